# SPDX-License-Identifier: MIT
"""Each header compiles alone; a public one also as C99 and as C++17, without our flags."""

import os
import tempfile
import unittest

import house

STRICT = ['-Wall', '-Wextra', '-pedantic', '-Werror', '-fsyntax-only']


class Headers(unittest.TestCase):
    def compile_alone(self, header, command):
        with tempfile.TemporaryDirectory() as scratch:
            source = os.path.join(scratch, 'alone.c')
            with open(source, 'w', encoding='utf-8') as file:
                file.write(f'#include {header}\n#include {header}\nextern int nothing;\n')
            status, out = house.run(command + [source])
        self.assertEqual(status, 0, f'{header} with {" ".join(command)}:\n{out}')

    def test_public_headers(self):
        include = '-I' + os.path.join(house.ROOT, 'include')
        ways = [['gcc', '-std=c99'], ['gcc', '-std=gnu17', '-Wshadow'],
                ['g++', '-x', 'c++', '-std=c++17']]
        if house.run(['clang', '--version'])[0] == 0:
            ways += [['clang', '-std=c99'], ['clang++', '-x', 'c++', '-std=c++17']]
        found = house.headers('include')
        self.assertIn('semel/semel.h', found)
        for header in found:
            for way in ways:
                with self.subTest(header=header, way=way):
                    self.compile_alone(f'<{header}>', way[:1] + STRICT + [include] + way[1:])

    def test_internal_headers(self):
        flags = ['-std=gnu17', '-D_GNU_SOURCE', '-Wall', '-Wextra', '-Wshadow', '-Werror',
                 '-fsyntax-only', '-I' + os.path.join(house.ROOT, 'include'),
                 '-I' + os.path.join(house.ROOT, 'src')]
        for header in house.headers('src'):
            with self.subTest(header=header):
                self.compile_alone(f'"{header}"', ['gcc'] + flags)

    def test_every_public_header_is_installed_and_in_semel_h(self):
        listed = house.read('include/semel/meson.build')
        everything = house.read('include/semel/semel.h')
        for header in house.headers('include'):
            name = os.path.basename(header)
            if name in house.OTHERS:
                continue
            self.assertIn(f"'{name}'", listed)
            if name != 'semel.h':
                self.assertIn(f'#include <{header}>', everything)

    def test_every_public_macro_expands(self):
        """A macro that names what is not there shows only when it is used."""
        source = '''
            #include <semel/semel.h>
            struct semel_client_options a = SEMEL_CLIENT_OPTIONS_INIT;
            struct semel_server_options b = SEMEL_SERVER_OPTIONS_INIT;
            struct semel_call_options c = SEMEL_CALL_OPTIONS_INIT;
            struct semel_method_options d = SEMEL_METHOD_OPTIONS_INIT;
            long long limits[] = { %s };
            int status = SEMEL_OK;
        '''
        import re
        names = re.findall(r'^#define (SEMEL_\w+) +[^ (\\]', house.read('include/semel/limits.h'),
                           re.M)
        self.assertGreater(len(names), 20)
        with tempfile.TemporaryDirectory() as scratch:
            path = os.path.join(scratch, 'macros.c')
            with open(path, 'w', encoding='utf-8') as file:
                file.write(source % ', '.join(names))
            for way in (['gcc', '-std=c99'], ['g++', '-x', 'c++', '-std=c++17']):
                house.must(way[:1] + ['-Wall', '-Werror', '-fsyntax-only',
                                      '-I' + os.path.join(house.ROOT, 'include')] + way[1:]
                           + [path])


if __name__ == '__main__':
    unittest.main()
