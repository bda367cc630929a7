# SPDX-License-Identifier: MIT
"""README.md says what is so: its programs are the examples, its commands and links exist."""

import os
import re
import unittest

import house

SPDX = '/* SPDX-License-Identifier: MIT */\n'


def programs():
    """The C programs of the page, in order."""
    return re.findall(r'^```c\n(.*?)^```$', house.read('README.md'), re.S | re.M)


class Readme(unittest.TestCase):
    def test_its_programs_are_the_examples(self):
        found = programs()
        self.assertEqual(len(found), 2)
        for name, text in zip(('hello_server.c', 'hello_client.c'), found):
            self.assertEqual(SPDX + text, house.read('examples/' + name))

    def test_its_programs_are_on_the_first_screen(self):
        before = house.read('README.md').split('```c\n')[0]
        self.assertLess(before.count('\n'), 20)
        for text in programs():
            lines = [line for line in text.split('\n') if line.strip(' {}')]
            self.assertLessEqual(len(lines), 22)

    def test_its_commands_exist(self):
        made = re.findall(r'^([\w-]+):', house.read('Makefile'), re.M)
        for target in re.findall(r'\bmake ([a-z]+)\b', house.read('README.md')):
            self.assertIn(target, made)

    def test_the_ci_runs_its_test_command(self):
        self.assertIn('make test', house.read('README.md'))
        self.assertEqual(house.read('.ci/run').rstrip().splitlines()[-1], 'exec make test')

    def test_links_of_the_documents_lead_somewhere(self):
        pages = ['README.md'] + ['docs/' + name for name in
                                 os.listdir(os.path.join(house.ROOT, 'docs'))
                                 if name.endswith('.md')]
        for page in pages:
            for target in re.findall(r'\]\(([^)#]+?)(?:#[^)]*)?\)', house.read(page)):
                if '://' not in target:
                    where = os.path.join(house.ROOT, os.path.dirname(page), target)
                    self.assertTrue(os.path.exists(where), f'{page}: {target}')


if __name__ == '__main__':
    unittest.main()
