# SPDX-License-Identifier: MIT
"""README.md says what is so: its programs are the examples, its commands and links exist."""

import os
import re
import signal
import subprocess
import tempfile
import unittest

import house

SPDX = '/* SPDX-License-Identifier: MIT */\n'
EXAMPLES = ('hello_server.c', 'hello_client.c', 'stock_server.c')
STOCK_SERVER = os.path.join(house.BUILD, 'examples', 'stock_server')


def programs():
    """The C programs of the page, in order."""
    return re.findall(r'^```c\n(.*?)^```$', house.read('README.md'), re.S | re.M)


class Readme(unittest.TestCase):
    def test_its_programs_are_the_examples(self):
        found = programs()
        self.assertEqual(len(found), len(EXAMPLES))
        for name, text in zip(EXAMPLES, found):
            self.assertEqual(SPDX + text, house.read('examples/' + name))

    def test_its_programs_are_on_the_first_screen(self):
        before = house.read('README.md').split('```c\n')[0]
        self.assertLess(before.count('\n'), 20)
        for text in programs()[:2]:
            lines = [line for line in text.split('\n') if line.strip(' {}')]
            self.assertLessEqual(len(lines), 22)

    def test_its_commands_exist(self):
        made = re.findall(r'^([\w-]+):', house.read('Makefile'), re.M)
        for target in re.findall(r'\bmake ([a-z]+)\b', house.read('README.md')):
            self.assertIn(target, made)

    def test_the_ci_runs_its_test_command(self):
        self.assertIn('make test', house.read('README.md'))
        self.assertEqual(house.read('.ci/run').rstrip().splitlines()[-1], 'exec make test')

    def test_its_tool_commands_say_what_it_says(self):
        self.run_block('The tool', 0)

    def test_its_commands_with_a_store_say_what_it_says(self):
        if not house.SQLITE_LIBRARY:
            self.skipTest('libsemel_sqlite is not built here')
        if os.path.exists(STOCK_SERVER):
            self.run_block('A store', 0)
        self.run_block('The tool', 1)

    def run_block(self, title, number):
        """What a section shows, as a script, in a directory of its own, also instead of /tmp."""
        tool = os.environ.get('SEMEL_TOOL')
        if not tool:
            self.skipTest('the tool is not built')
        section = house.read('README.md').split(f'## {title}\n')[1].split('\n## ')[0]
        block = re.findall(r'^```console\n(.*?)^```$', section, re.S | re.M)[number]
        with tempfile.TemporaryDirectory(prefix='semel-readme-') as here:
            script, expected = [], []
            for line in block.split('\n'):
                if not line.startswith('$ '):
                    expected.append(line)
                    continue
                command = line[2:].split('    ')[0].rstrip()
                command = re.sub(r' &(?= |$)', ' >/dev/null 2>&1 &', command)
                if command.startswith('cc '):
                    continue  # the program is there, see stand_in
                if ' bench ' in command:
                    command = command.replace('5s', '1s') + ' >/dev/null'
                elif ' demo ' in command:
                    command = command.replace('20', '1 --kill-every 0 --cut-every 0')
                    command += ' >/dev/null 2>&1 || echo failed'
                script.append(command)
            self.stand_in(here)
            env = dict(os.environ, PATH=os.path.dirname(tool) + ':' + os.environ['PATH'] +
                       ':' + here)
            running = subprocess.Popen(
                ['sh', '-c', '\n'.join(script).replace('/tmp/', here + '/')], env=env, cwd=here,
                text=True, start_new_session=True, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            try:
                out = running.communicate(timeout=60)[0]
            finally:
                os.killpg(running.pid, signal.SIGKILL)
                running.communicate()
        # A note, if a server takes long to begin; that it was waited for the call's answer shows.
        out = re.sub(r'^semel \w+: cannot connect: \S+: (no such socket|.* refused)\n', '', out,
                     flags=re.M)
        self.assertEqual(out.replace(here + '/', '/tmp/').split('\n'), expected)

    def stand_in(self, here):
        """The program that was compiled; and for the sqlite3 program, where there is none."""
        os.symlink(STOCK_SERVER, os.path.join(here, 'stock_server'))
        path = os.path.join(here, 'sqlite3')
        with open(path, 'w', encoding='utf-8') as file:
            file.write('#!/usr/bin/env python3\nimport sqlite3, sys\n'
                       'sqlite3.connect(sys.argv[1]).executescript(sys.argv[2])\n')
        os.chmod(path, 0o755)

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
