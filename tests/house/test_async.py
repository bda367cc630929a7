# SPDX-License-Identifier: MIT
"""The C of docs/ASYNC.md and docs/WORKERS.md compiles, without a warning."""

import os
import re
import tempfile
import unittest

import house

PAGES = ['docs/ASYNC.md', 'docs/WORKERS.md']
STRICT = ['-Wall', '-Wextra', '-pedantic', '-Werror', '-c', '-o', '/dev/null']
# A header of another library, what pkg-config calls it, and whether it is there.
FOREIGN = [('<uv.h>', 'libuv', house.UV_LIBRARY), ('<glib.h>', 'glib-2.0', house.GLIB_LIBRARY)]


def text_of_pages():
    return '\n'.join(house.read(page) for page in PAGES)


def snippets():
    return re.findall(r'^```c\n(.*?)^```$', text_of_pages(), re.S | re.M)


class Async(unittest.TestCase):
    def flags(self, text):
        """Those of the foreign library that it needs; None: it is not there."""
        for header, package, there in FOREIGN:
            if f'#include {header}' not in text:
                continue
            if not there:
                return None
            # Their warnings are their own.
            return house.must(['pkg-config', '--cflags', package]).replace('-I', '-isystem').split()
        return []

    def test_its_programs_compile(self):
        found = snippets()
        for header, _, _ in FOREIGN:
            self.assertEqual(sum(f'#include {header}' in text for text in found), 1)
        self.assertGreater(len(found), 6)
        for text in found:
            with self.subTest(text=text.split('\n\n')[1][:60]), \
                    tempfile.TemporaryDirectory() as scratch:
                flags = self.flags(text)
                if flags is None:
                    continue
                source = os.path.join(scratch, 'snippet.c')
                with open(source, 'w', encoding='utf-8') as file:
                    file.write(text)
                for way in (['-std=c99', '-D_POSIX_C_SOURCE=200809L'], ['-std=gnu17']):
                    house.must(['gcc'] + way + STRICT + flags +
                               ['-I' + os.path.join(house.ROOT, 'include'), source])

    def test_it_names_what_is_there(self):
        declared = house.declared() | house.declared('semel_uv') | house.declared('semel_glib')
        for name in re.findall(r'\bsemel_\w+(?=[(`])', text_of_pages()):
            self.assertIn(name, declared | {'semel_bytes', 'semel_bytes_text'}, name)


if __name__ == '__main__':
    unittest.main()
