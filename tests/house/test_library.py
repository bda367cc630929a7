# SPDX-License-Identifier: MIT
"""libsemel.so as a file: what it exports, its name, what it needs."""

import ctypes
import os
import re
import unittest

import house


class Library(unittest.TestCase):
    def exported(self, library=house.LIBRARY):
        out = house.must(['nm', '-D', '--defined-only', '--format=posix', library])
        names = {}
        for line in out.splitlines():
            name, kind = line.split()[:2]
            names[re.sub('@.*', '', name)] = kind
        return {name for name, kind in names.items() if kind != 'A'}  # A: the version itself

    def test_exports_are_the_functions_of_the_headers(self):
        self.assertEqual(sorted(self.exported()), sorted(house.declared()))

    @unittest.skipUnless(house.SQLITE_LIBRARY, 'libsemel_sqlite is not built here')
    def test_the_stores_library(self):
        self.assertEqual(sorted(self.exported(house.SQLITE_LIBRARY)),
                         sorted(house.declared('semel_sqlite')))
        out = house.must(['readelf', '-dW', house.SQLITE_LIBRARY])
        self.assertEqual(re.findall(r'\(SONAME\).*\[(.*)\]', out), ['libsemel_sqlite.so.0'])
        needs = re.findall(r'\(NEEDED\).*\[(.*)\]', out)
        self.assertIn('libsemel.so.0', needs)
        self.assertIn('libsqlite3.so.0', needs)

    def test_the_adapters(self):
        for name, library, foreign in (('semel_uv', house.UV_LIBRARY, 'libuv.so.1'),
                                       ('semel_glib', house.GLIB_LIBRARY, 'libglib-2.0.so.0')):
            if not library:
                continue
            with self.subTest(library=name):
                self.assertEqual(sorted(self.exported(library)), sorted(house.declared(name)))
                out = house.must(['readelf', '-dW', library])
                self.assertEqual(re.findall(r'\(SONAME\).*\[(.*)\]', out), [f'lib{name}.so.0'])
                needs = re.findall(r'\(NEEDED\).*\[(.*)\]', out)
                self.assertIn('libsemel.so.0', needs)
                self.assertIn(foreign, needs)
                # Over the public interface, and nothing else.
                used = house.must(['nm', '-D', '--undefined-only', '--format=posix', library])
                self.assertEqual(re.findall(r'^sml_\w+', used, re.M), [])

    def test_exports_have_the_public_prefix_and_a_version(self):
        self.assertTrue(self.exported())
        self.assertEqual([n for n in self.exported() if not n.startswith('semel_')], [])
        out = house.must(['nm', '-D', '--defined-only', '--with-symbol-versions', house.LIBRARY])
        functions = [line for line in out.splitlines() if ' T ' in line]
        self.assertEqual([line for line in functions if 'SEMEL_0' not in line], [])

    def test_internal_symbols_are_hidden(self):
        """Not only by the version script: each object says so itself."""
        archive = os.path.join(os.path.dirname(house.LIBRARY), 'libsemel.a')
        out = house.must(['readelf', '-sW', archive])
        seen, wrong = 0, []
        for line in out.splitlines():
            words = line.split()
            if len(words) >= 8 and words[4] == 'GLOBAL' and words[6] != 'UND':
                seen += 1
                public = words[7].startswith('semel_')
                if (words[5] == 'DEFAULT') != public:
                    wrong.append(words[7])
        self.assertGreater(seen, 20)
        self.assertEqual(wrong, [])
        allowed = re.compile(r'(semel|sml)_')
        names = {line.split()[7] for line in out.splitlines()
                 if len(line.split()) >= 8 and line.split()[4] == 'GLOBAL'
                 and line.split()[6] != 'UND'}
        self.assertEqual([n for n in names if not allowed.match(n)], [])

    def test_name_and_needs(self):
        out = house.must(['readelf', '-dW', house.LIBRARY])
        self.assertEqual(re.findall(r'\(SONAME\).*\[(.*)\]', out), ['libsemel.so.0'])
        needs = re.findall(r'\(NEEDED\).*\[(.*)\]', out)
        libc = re.compile(r'(libc|libpthread|librt|ld-linux.*)\.so')
        self.assertEqual([n for n in needs if not libc.match(n)], [])
        self.assertNotIn('TEXTREL', out)
        stack = re.search(r'GNU_STACK.*', house.must(['readelf', '-lW', house.LIBRARY])).group()
        self.assertNotIn('RWE', stack)

    def test_replaces_nothing_and_reads_no_environment(self):
        out = house.must(['nm', '-D', '--undefined-only', house.LIBRARY])
        used = {re.sub('@.*', '', line.split()[-1]) for line in out.splitlines()}
        banned = {'getenv', 'secure_getenv', 'printf', 'puts', 'putchar', 'perror', 'exit', '_exit',
                  'signal', 'sigaction', 'atexit', 'setlocale', 'environ', 'system', 'fork'}
        # os/spawn.c hands it on to the programs of worker processes, unread.
        self.assertEqual(used & banned, {'environ'})

    def test_version(self):
        library = ctypes.CDLL(house.LIBRARY)
        library.semel_version.restype = ctypes.c_char_p
        version = re.search(r"version: '([\d.]+)'", house.read('meson.build')).group(1)
        self.assertEqual(library.semel_version().decode(), version)
        header = house.read('include/semel/semel.h')
        numbers = re.findall(r'#define SEMEL_VERSION_\w+ (\d+)', header)
        self.assertEqual('.'.join(numbers), version)


if __name__ == '__main__':
    unittest.main()
