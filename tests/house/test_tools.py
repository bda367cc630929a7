# SPDX-License-Identifier: MIT
"""The checkers find what they are for: each is given a small tree with one thing wrong."""

import os
import shutil
import sys
import tempfile
import unittest

import house

sys.path.insert(0, os.path.join(house.ROOT, 'tools'))
import lanes  # noqa: E402

SPDX = '/* SPDX-License-Identifier: MIT */\n'
HEADER = '''/* Does a thing. Thread: any thread. Since: 0.1 */
SEMEL_API int semel_thing(void);
'''


class Tree(unittest.TestCase):
    """A tree in which everything is right, to be spoiled."""

    def setUp(self):
        self.root = tempfile.mkdtemp(prefix='semel-tools-')
        self.addCleanup(shutil.rmtree, self.root)
        self.put('tools/layers.txt', house.read('tools/layers.txt'))
        self.put('include/semel/semel.h', SPDX + '#include <stddef.h>\n\n' + HEADER)
        self.put('src/base/list.h', SPDX + '#include <stddef.h>\n')
        self.put('src/base/list.c', SPDX + '#include "base/list.h"\n#include <semel/semel.h>\n')
        self.put('src/base/meson.build', "# SPDX-License-Identifier: MIT\nfiles('list.c')\n")
        self.put('src/wire/frame.h', SPDX + '#include "base/list.h"\n')
        self.put('src/os/clock.h', SPDX + '#include <time.h>\n#include <pthread.h>\n')
        self.put('tests/base/test_list.c', SPDX + 'int main(void)\n{\n    return 0;\n}\n')
        self.put('tests/base/meson.build', "# SPDX-License-Identifier: MIT\n{'test_list': {}}\n")
        self.put('tool/main.c', SPDX + '#include <semel/semel.h>\n#include "output.h"\n')
        self.put('tool/output.h', SPDX)

    def put(self, path, text):
        path = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'w', encoding='utf-8') as file:
            file.write(text)

    def check(self, tool, *more):
        return house.run([sys.executable, os.path.join(house.ROOT, 'tools', tool),
                          '--root', self.root, *more])

    def good(self, tool, *more):
        status, out = self.check(tool, *more)
        self.assertEqual(status, 0, out)

    def bad(self, tool, words, *more):
        status, out = self.check(tool, *more)
        self.assertEqual(status, 1, out)
        self.assertIn(words, out)


class Layers(Tree):
    def test_good(self):
        self.good('layers.py')

    def test_wall(self):
        self.put('src/base/up.h', SPDX + '#include "wire/frame.h"\n')
        self.bad('layers.py', 'base may not include wire')

    def test_wall_with_a_door(self):
        for header in ('record', 'callee'):
            self.put(f'src/session/{header}.h', SPDX)
        self.put('src/store/x.h', SPDX + '#include "session/record.h"\n')
        self.good('layers.py')
        self.put('src/store/x.h', SPDX + '#include "session/callee.h"\n')
        self.bad('layers.py', 'store may not include this header of session')

    def test_wall_behind_a_comment(self):
        self.put('src/base/up.h', SPDX + '/* a\n b */ #  include "wire/frame.h"\n')
        self.bad('layers.py', 'src/base/up.h:3: #include wire/frame.h')

    def test_a_comment_is_no_include(self):
        self.put('src/base/up.h', SPDX + '/*\n#include "wire/frame.h"\n*/\n')
        self.good('layers.py')

    def test_internal_header_in_angles(self):
        self.put('src/base/up.h', SPDX + '#include <wire/frame.h>\n')
        self.bad('layers.py', 'included with quotes')

    def test_upwards(self):
        self.put('src/wire/x.h', SPDX + '#include "../base/list.h"\n')
        self.bad('layers.py', '../ is not allowed')
        os.remove(os.path.join(self.root, 'src/wire/x.h'))
        self.put('tests/wire/x.h', SPDX + '#include "../../src/base/list.h"\n')
        self.bad('layers.py', '../ is not allowed')

    def test_not_rooted(self):
        self.put('src/base/x.c', SPDX + '#include "list.h"\n')
        self.bad('layers.py', 'not rooted')

    def test_source_included(self):
        self.put('src/base/x.c', SPDX + '#include "base/list.c"\n')
        self.bad('layers.py', '.c file')

    def test_system_headers(self):
        self.put('src/wire/x.c', SPDX + '#include <stdlib.h>\n')
        self.bad('layers.py', 'wire may not include this system header')
        os.remove(os.path.join(self.root, 'src/wire/x.c'))
        for folder, header in (('rpc', 'pthread.h'), ('base', 'unistd.h'), ('session', 'time.h')):
            self.put(f'src/{folder}/x.c', SPDX + f'#include <{header}>\n')
            self.bad('layers.py', f'{folder} may not include this system header')
            os.remove(os.path.join(self.root, f'src/{folder}/x.c'))

    def test_outside_uses_the_public_interface(self):
        for folder in ('tool', 'bench', 'examples'):
            for include in ('"base/list.h"', '<base/list.h>'):
                self.put(f'{folder}/x.c', SPDX + f'#include {include}\n')
                self.bad('layers.py', f'{folder}/x.c:2')
                os.remove(os.path.join(self.root, f'{folder}/x.c'))

    def test_unknown_folder(self):
        self.put('src/extra/x.c', SPDX)
        self.bad('layers.py', 'not in tools/layers.txt')

    def test_cycle_of_files(self):
        self.put('src/base/a.h', SPDX + '#include "base/b.h"\n')
        self.put('src/base/b.h', SPDX + '#include "base/c.h"\n')
        self.put('src/base/c.h', SPDX + '#include "base/a.h"\n')
        self.bad('layers.py', 'cycle of files: src/base/a.h -> src/base/b.h -> src/base/c.h')

    def test_cycle_of_folders(self):
        text = house.read('tools/layers.txt').replace('base        -   ', 'base        wire')
        self.put('tools/layers.txt', text)
        self.bad('layers.py', 'cycle of folders')


class Purity(Tree):
    def archives(self, **sources):
        """A build folder whose sml_X archives hold one object per source."""
        build = os.path.join(self.root, 'build')
        os.makedirs(os.path.join(build, 'src'), exist_ok=True)
        for layer in ('base', 'async', 'wire', 'session'):
            objects = []
            for number, text in enumerate(sources.get(layer, ['int sml_%s_x;\n' % layer])):
                path = os.path.join(build, f'{layer}{number}')
                with open(path + '.c', 'w', encoding='utf-8') as file:
                    file.write(text)
                house.must(['gcc', '-O2', '-fPIC', '-c', path + '.c', '-o', path + '.o'])
                objects.append(path + '.o')
            archive = os.path.join(build, 'src', f'libsml_{layer}.a')
            house.must(['ar', 'rcT' if layer == 'wire' else 'rc', archive] + objects)
        return ['--build', build]

    USES = 'void {0}(void);\nvoid sml_{1}(void);\nvoid sml_{1}(void)\n{{\n    {0}();\n}}\n'

    def test_good(self):
        self.good('layers.py', *self.archives(
            wire=['#include <string.h>\nunsigned long sml_f(const char *s);\n'
                  'unsigned long sml_f(const char *s)\n{\n    return strlen(s);\n}\n'],
            session=[self.USES.format('sml_f', 'g')]))

    def test_clock(self):
        for layer in ('async', 'wire', 'session'):
            self.bad('layers.py', f'{layer} is pure and may not use clock_gettime',
                     *self.archives(**{layer: [self.USES.format('clock_gettime', 'now')]}))

    def test_memory_of_base(self):
        base = [self.USES.format('malloc', 'impure'), 'int sml_pure;\n']
        self.good('layers.py', *self.archives(
            base=base, wire=['extern int sml_pure;\nint *sml_w = &sml_pure;\n']))
        self.bad('layers.py', 'wire is pure and may not use sml_impure',
                 *self.archives(base=base, wire=[self.USES.format('sml_impure', 'w')]))

    def test_memory_of_base_at_one_remove(self):
        base = [self.USES.format('malloc', 'impure'), self.USES.format('sml_impure', 'between')]
        self.bad('layers.py', 'session is pure and may not use sml_between',
                 *self.archives(base=base, session=[self.USES.format('sml_between', 's')]))

    def test_not_built(self):
        self.bad('layers.py', 'not built', '--build', os.path.join(self.root, 'nowhere'))


class Tidy(Tree):
    def test_good(self):
        self.good('tidy.py')

    def spoil(self, text, words, path='tool/x.c'):
        self.put(path, text)
        self.bad('tidy.py', words)

    def test_slashes(self):
        self.spoil(SPDX + 'int a; // b\n', 'tool/x.c:2: a // comment')

    def test_slashes_in_text_are_none(self):
        self.put('tool/x.c', SPDX + 'const char *a = "unix://x"; /* // */\nint c = \'"\';\n')
        self.good('tidy.py')

    def test_later(self):
        for word in ('TO' + 'DO', 'FIX' + 'ME'):
            self.spoil(SPDX + f'/* {word} */\n', word)

    def test_licence(self):
        self.spoil('int a;\n' + SPDX, 'the first line')
        self.spoil('pass\n', 'the first line', 'tests/x.py')

    def test_long_function(self):
        body = '    a++;\n' * 71
        self.spoil(SPDX + 'void f(int a)\n{\n' + body + '}\n', 'a function of 71 lines')
        self.put('tool/x.c', SPDX + 'void f(int a)\n{\n' + body[9:] + '}\n')
        self.good('tidy.py')

    def test_long_file(self):
        self.spoil(SPDX + 'int a;\n' * 900, '901 lines')

    def test_long_line(self):
        self.spoil(SPDX + '/* ' + 'a' * 95 + ' */\n', '101 columns')

    def test_blanks(self):
        self.spoil(SPDX + 'int a; \n', 'blanks at the end')
        self.spoil(SPDX + '\tint a;\n', 'a tab')
        self.spoil(SPDX + 'int a;', 'no newline')

    def test_mirror(self):
        os.remove(os.path.join(self.root, 'tests/base/test_list.c'))
        self.bad('tidy.py', 'no tests/base/test_list.c')
        self.put('tools/untested.txt', 'src/base/list.c\n')
        self.bad('tidy.py', 'no reason')
        self.put('tools/untested.txt', 'src/base/list.c  tested elsewhere\n')
        self.good('tidy.py')

    def test_stale_excuses(self):
        self.put('tools/untested.txt', 'src/base/list.c  tested elsewhere\n')
        self.bad('tidy.py', 'src/base/list.c has a test')
        self.put('tools/untested.txt', 'src/base/gone.c  tested elsewhere\n')
        self.bad('tidy.py', 'there is no src/base/gone.c')

    def test_not_registered(self):
        self.put('src/base/meson.build', '# SPDX-License-Identifier: MIT\n')
        self.bad('tidy.py', 'src/base/list.c: not in src/base/meson.build')
        self.put('src/base/meson.build', "# SPDX-License-Identifier: MIT\nfiles('list.c')\n")
        self.put('tests/base/meson.build', '# SPDX-License-Identifier: MIT\n')
        self.bad('tidy.py', 'tests/base/test_list.c: not in')

    def test_public_functions(self):
        header = 'include/semel/x.h'
        self.spoil(SPDX + '\nSEMEL_API int semel_x(void);\n', 'semel_x has no comment', header)
        self.spoil(SPDX + '\n/* Since: 0.1 */\nSEMEL_API int\nsemel_x(void);\n', 'no Thread',
                   header)
        self.spoil(SPDX + '\n/* Thread: any */\nSEMEL_API int semel_x(void);\n', 'no Since', header)
        self.spoil(SPDX + '\n' + HEADER + '\nSEMEL_API int semel_y(int (*f)(int));\n',
                   'semel_y has no comment', header)

    def test_manual(self):
        self.put('docs/man/semel_thing.3.scd', 'semel_other\n')
        self.bad('tidy.py', 'semel_thing is in no page')
        self.put('docs/man/semel_thing.3.scd', '*semel_thing*(void)\n')
        self.good('tidy.py')


class Contracts(Tree):
    def setUp(self):
        super().setUp()
        import contracts
        self.rows = contracts.CONTRACTS
        self.put('docs/CONTRACTS.md', self.page(self.rows))
        self.put('tests/io/test_all.c', '\n'.join(f'{{ "{row} holds" }},' for row in self.rows))

    def page(self, rows):
        return '| row | contract | test |\n|---|---|---|\n' + ''.join(
            f'| {row} | what | `{row} holds` (`tests/io/test_all.c`) |\n' for row in rows)

    def test_good(self):
        self.assertEqual(len(self.rows), 78)
        self.good('contracts.py')

    def test_no_row(self):
        self.put('docs/CONTRACTS.md', self.page(self.rows[1:]))
        self.bad('contracts.py', 'no row M1')

    def test_no_test(self):
        """M1 is not served by M10's test."""
        self.put('tests/io/test_all.c', '\n'.join(f'"{row} holds"' for row in self.rows[1:]))
        self.bad('contracts.py', 'M1: no test has a name')
        self.bad('contracts.py', 'there is no test "M1 holds"')

    def test_write(self):
        page = self.page(self.rows)
        self.put('docs/CONTRACTS.md', page.replace('`M1 holds` (`tests/io/test_all.c`)', ''))
        self.bad('contracts.py', 'M1 names no test')
        self.good('contracts.py', '--write')
        with open(os.path.join(self.root, 'docs/CONTRACTS.md'), encoding='utf-8') as file:
            self.assertEqual(file.read(), page)

    def test_row_without_its_test(self):
        self.put('docs/CONTRACTS.md', self.page(self.rows).replace('`M1 holds`', '`M2 holds`'))
        self.bad('contracts.py', 'M1 names no test of its own')


class Format(Tree):
    MACROS = '#define X_INIT { 0, 1 }\n\n#define X(a, b) { a, b, 0 }\n\n'

    def test_format(self):
        import format as formatter
        if not formatter.find_formatter():
            self.skipTest('no clang-format 14')
        shutil.copy(os.path.join(house.ROOT, '.clang-format'), self.root)
        for path in ('tool/output.h', 'tool/main.c', 'include/semel/semel.h'):
            self.good('format.py', path)
        self.put('tool/x.c', SPDX + self.MACROS + 'int f(int a) {\n  return a;\n}\n')
        self.bad('format.py', '-int f(int a) {', 'tool/x.c')
        self.good('format.py', '--fix', 'tool/x.c')
        with open(os.path.join(self.root, 'tool/x.c'), encoding='utf-8') as file:
            self.assertEqual(file.read(), SPDX + self.MACROS + 'int f(int a)\n{\n'
                             '    return a;\n}\n')


class Tally(unittest.TestCase):
    """The last line of a test run must not flatter."""

    def count(self, out, result='OK', err=''):
        return lanes.count_cases({'stdout': out, 'stderr': err, 'result': result})

    RUN = '[ RUN      ] M6 partial I/O\n'
    OK = '[       OK ] M6 partial I/O\n'
    FAILED = '[  FAILED  ] M6 partial I/O\n'

    def test_cases(self):
        self.assertEqual(self.count(''), (1, 0, 0))
        self.assertEqual(self.count((self.RUN + self.OK) * 3), (3, 0, 0))
        self.assertEqual(self.count('..\nRan 7 tests in 0.1s\n\nOK (skipped=2)\n'), (5, 0, 2))

    def test_failures(self):
        self.assertEqual(self.count('', 'FAIL'), (0, 1, 0))
        self.assertEqual(self.count((self.RUN + self.OK) * 2 + self.RUN, 'FAIL', self.FAILED),
                         (2, 1, 0))
        self.assertEqual(self.count('Ran 7 tests in 0.1s\nFAILED (failures=1, errors=2)', 'FAIL'),
                         (4, 3, 0))

    def test_a_crash_or_a_hang_is_a_failure(self):
        for result in ('TIMEOUT', 'ERROR', 'FAIL', 'INTERRUPT', 'UNEXPECTEDPASS'):
            self.assertEqual(self.count(self.RUN + self.OK + self.RUN, result), (1, 1, 0))
            self.assertEqual(self.count(self.RUN + self.OK, result), (1, 1, 0))

    def test_skipped(self):
        self.assertEqual(self.count('', 'SKIP'), (0, 0, 1))
        self.assertEqual(self.count(self.RUN + self.OK + self.RUN + '[  SKIPPED ] M6 x\n'
                                    '[  SKIPPED ] 1 test(s), listed below:\n'), (1, 0, 1))


if __name__ == '__main__':
    unittest.main()
