# SPDX-License-Identifier: MIT
"""docs/GUARANTEES.md promises nothing without a test: each promise names some, and they exist."""

import os
import re
import shutil
import tempfile
import unittest

import house

PAGE = 'docs/GUARANTEES.md'
NOT_PROMISED = '## What is not promised'
# `name`, `name` [folder/file]
NAMED = re.compile(r'((?:`[^`]+`(?:,\s+)?)+)\s+\[([\w./-]+)\]')
DEFINED = re.compile(r'^\[([\w./-]+)\]: (\S+)$', re.M)


def promises(text):
    """(section, text) of each list item between the overview and what is not promised."""
    for section in text.split(NOT_PROMISED)[0].split('\n## ')[2:]:
        title = section.split('\n')[0]
        for item in re.findall(r'^- (.*(?:\n  .*)*)', section, re.M):
            yield title, item


def is_test_of(name, source, path):
    """Does a test of this name stand in the file?"""
    literal = re.escape(name)
    if path.endswith('.py') and re.search(rf'^ +def {literal}\(self', source, re.M):
        return True
    return re.search(rf'(["\'])(?:{literal})\1', source) is not None


def problems(text, root):
    defined = dict(DEFINED.findall(text))
    used = set()
    for title, item in promises(text):
        if not NAMED.search(item):
            yield f'{title}: a promise without a test: {item}'
    for names, file in NAMED.findall(text):
        used.add(file)
        path = os.path.join(root, 'tests', file)
        if defined.get(file) != '../tests/' + file:
            yield f'[{file}] is not defined as ../tests/{file}'
        elif not os.path.exists(path):
            yield f'there is no tests/{file}'
        else:
            with open(path, encoding='utf-8') as source:
                known = source.read()
            for name in re.findall(r'`([^`]+)`', names):
                if not is_test_of(re.sub(r'\s+', ' ', name), known, file):
                    yield f'there is no test "{name}" in tests/{file}'
    for file in set(defined) - used:
        yield f'[{file}] is defined and not used'


class Guarantees(unittest.TestCase):
    def test_every_promise_has_its_tests(self):
        text = house.read(PAGE)
        self.assertGreater(len(list(promises(text))), 60)
        self.assertIn(NOT_PROMISED, text)
        self.assertEqual(list(problems(text, house.ROOT)), [])


class Checker(unittest.TestCase):
    """It finds what it is for."""

    TEXT = ('# Page\n\n## In short\n\n- this and that\n\n## First\n\n- A promise.\n'
            '  `a call runs`,\n  `test_it` [x/test_a.py]\n\n## What is not promised\n\n- All.\n\n'
            '[x/test_a.py]: ../tests/x/test_a.py\n')

    def setUp(self):
        self.root = tempfile.mkdtemp(prefix='semel-guarantees-')
        self.addCleanup(shutil.rmtree, self.root)
        os.makedirs(os.path.join(self.root, 'tests', 'x'))
        with open(os.path.join(self.root, 'tests/x/test_a.py'), 'w', encoding='utf-8') as file:
            file.write('NAMES = ["a call runs"]\n\n\nclass A:\n    def test_it(self):\n')

    def bad(self, words, old, new):
        self.assertIn(old, self.TEXT)
        found = list(problems(self.TEXT.replace(old, new), self.root))
        self.assertTrue([line for line in found if words in line], found)

    def test_good(self):
        self.assertEqual(list(problems(self.TEXT, self.root)), [])

    def test_bad(self):
        self.bad('there is no test "a call ran"', 'a call runs', 'a call ran')
        self.bad('there is no test "test_"', 'test_it', 'test_')
        self.bad('there is no tests/x/test_b.py', 'test_a', 'test_b')
        self.bad('is not defined', '[x/test_a.py]: ', '[x/test_c.py]: ')
        self.bad('defined and not used', 'test_it` [x/test_a.py]', 'test_it`')
        self.bad('a promise without a test', '  `a call runs`,\n  `test_it` [x/test_a.py]\n', '')
        self.bad('a promise without a test', '## What is', '- Another promise.\n\n## What is')


if __name__ == '__main__':
    unittest.main()
