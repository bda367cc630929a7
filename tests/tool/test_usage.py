#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the tool says about itself, and what it refuses before doing anything."""

import os
import subprocess

from toolkit import ROOT, ToolCase, main, semel

COMMANDS = ('serve', 'call', 'bench', 'proxy')


class Usage(ToolCase):
    def test_version(self):
        self.check(semel('--version'), 0, b'semel 0.1.0\n')

    def test_help(self):
        for args in (['--help'], ['help'], ['-h']):
            outcome = semel(*args)
            self.check(outcome, 0)
            for command in COMMANDS:
                self.assertIn(command.encode(), outcome.out)

    def test_help_of_commands_has_examples(self):
        for command in COMMANDS:
            for args in ([command, '--help'], ['help', command]):
                outcome = semel(*args)
                self.check(outcome, 0)
                self.assertIn(b'Examples:', outcome.out)
                self.assertIn(b'semel ' + command.encode() + b' ', outcome.out)

    def test_unknown_command(self):
        self.check(semel('clal'), 2, b'', "no command 'clal'", 'semel --help')
        self.check(semel('help', 'clal'), 2, b'', "no command 'clal'")
        self.check(semel(), 2, b'', 'Usage:')

    def refused(self, args, *words):
        self.check(semel(*args), 2, b'', *words)

    def test_durations(self):
        self.refused(['call', 'unix:/x', 'm', '--timeout', '20'],
                     '--timeout', "'20' has no unit; write 20ms, 20s")
        self.refused(['call', 'unix:/x', 'm', '--connect-timeout', '5sec'], "unknown unit 'sec'")
        self.refused(['call', 'unix:/x', 'm', '--timeout', '0s'], 'too short')
        self.refused(['bench', 'unix:/x', 'm', '-d', 'soon'], 'not a duration')
        self.refused(['bench', 'unix:/x', 'm', '-d', '0s'], 'more than nothing')
        self.refused(['proxy', 'unix:/x', 'unix:/y', '--cut-every', '-5ms'], 'negative')
        self.refused(['proxy', 'unix:/x', 'unix:/y', '--delay', ''], 'missing')
        self.refused(['serve', 'unix:/x', '--max-run', '7'], '--max-run', 'no unit')
        self.refused(['serve', 'unix:/x', '--drain', 'x'], '--drain')

    def test_numbers(self):
        self.refused(['serve', 'unix:/x', '--workers', '0'], 'from 1 to 4096')
        self.refused(['serve', 'unix:/x', '--workers', 'many'], '--workers', "'many'")
        self.refused(['serve', 'unix:/x', '--backlog', '-1'], '--backlog')
        self.refused(['serve', 'unix:/x', '--limit', '3'], 'NAME=N')
        self.refused(['serve', 'unix:/x', '--limit', 'nix=3'], "no method 'nix'")
        self.refused(['serve', 'unix:/x', '--idempotent', 'nix'], "no method 'nix'")
        self.refused(['serve', 'unix:/x', '--body-limit', '1MB'], '64KiB')
        self.refused(['bench', 'unix:/x', 'm', '-t', '0'], '-t')
        self.refused(['bench', 'unix:/x', 'm', '-z', '9..8'], 'backwards')
        self.refused(['proxy', 'unix:/x', 'unix:/y', '--seed', 'x'], '--seed')

    def test_arguments(self):
        self.refused(['call'], 'address')
        self.refused(['call', 'unix:/x'], 'method')
        self.refused(['call', 'unix:/x', 'm', 'a', 'b'], 'quotes')
        self.refused(['call', 'unix:/x', 'm', '-o', 'xml'], 'json')
        self.refused(['call', 'unix:/x', 'm', '--nonsense'], 'nonsense')
        self.refused(['serve'], 'address')
        self.refused(['serve', 'unix:/x', 'noequals'], 'NAME=COMMAND')
        self.refused(['serve', 'unix:/x', '=command'], 'NAME=COMMAND')
        self.refused(['bench', 'unix:/x'], 'method')
        self.refused(['bench', 'unix:/x', 'm', '-t', '2', '-w', '2'], 'exclude')
        self.refused(['bench', 'unix:/x', 'm', '-z', '2', '--body', 'x'], 'exclude')
        self.refused(['proxy', 'unix:/x'], 'connect to')
        self.refused(['proxy', 'unix:/x', 'unix:/y', '--half-open'], '--cut-every')

    def test_bad_addresses(self):
        for address in ('', 'nonsense', 'ftp:x', 'tcp:nohost', 'tcp:', 'unix:'):
            self.refused(['call', address, 'm'], 'unix:/path')
            self.refused(['serve', address], 'unix:/path')
            self.refused(['proxy', address, 'unix:/x', '-q'], 'bad address')
            self.refused(['proxy', 'unix:' + self.path('p'), address, '-q'], 'bad address')


def options_of(command):
    known = semel(command, '--help').out.decode().replace('=', ' ').replace('[', ' ').split()
    return {word.rstrip(',.;') for word in known if word.startswith('--')}


class Manual(ToolCase):
    def test_every_option_is_in_the_manual(self):
        with open(os.path.join(ROOT, 'docs', 'man', 'semel.1.scd'), encoding='utf-8') as file:
            common = file.read() + '--usage'
        for command in COMMANDS:
            path = os.path.join(ROOT, 'docs', 'man', f'semel-{command}.1.scd')
            with open(path, encoding='utf-8') as file:
                page = file.read()
            for option in options_of(command):
                self.assertTrue(option in page or option in common, f'{command} {option}')


class Completion(ToolCase):
    SCRIPT = os.path.join(ROOT, 'tool', 'completion', 'semel.bash')

    def complete(self, *words):
        script = f'source {self.SCRIPT}; COMP_WORDS=({" ".join(words)} ""); ' \
                 f'COMP_CWORD={len(words)}; _semel; printf "%s\\n" "${{COMPREPLY[@]}}"'
        done = subprocess.run(['bash', '-c', script.replace('""', "''")], check=True,
                              stdout=subprocess.PIPE, text=True)
        return done.stdout.split()

    def test_it_parses(self):
        subprocess.run(['bash', '-n', self.SCRIPT], check=True)

    def test_commands(self):
        for command in COMMANDS:
            self.assertIn(command, self.complete('semel'))

    def test_every_option_is_known_to_the_tool(self):
        with open(self.SCRIPT, encoding='utf-8') as file:
            text = file.read()
        for command in COMMANDS:
            for option in options_of(command):
                self.assertIn(option, text)


if __name__ == '__main__':
    main()
