#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the tool says about itself, and what it refuses before doing anything."""

import os
import re
import subprocess

from toolkit import ROOT, ToolCase, main, needs_jansson, semel

COMMANDS = ('serve', 'call', 'list', 'describe', 'ps', 'cancel', 'top', 'trigger', 'wait', 'lock',
            'bench', 'proxy', 'sessions', 'demo')


class Usage(ToolCase):
    def test_version(self):
        self.check(semel('--version'), 0, b'semel 0.4.0\n')

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
        self.refused(['wait', 'unix:/x', 'a', '--timeout', '-1s'], '--timeout', 'negative')
        self.refused(['wait', 'unix:/x', 'a', '--timeout', '600h'], 'too long')
        self.refused(['lock', 'unix:/x', 'n', '--timeout', '5', '--', 'true'], 'no unit')
        self.refused(['lock', 'unix:/x', 'n', '--kill-after', 'x', '--', 'true'], '--kill-after')
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
        self.refused(['call', 'unix:/x', 'm', '--key', ''], '--key')
        self.refused(['serve'], 'address')
        self.refused(['serve', 'unix:/x', 'noequals'], 'NAME=COMMAND')
        self.refused(['serve', 'unix:/x', '=command'], 'NAME=COMMAND')
        self.refused(['serve', 'unix:/x', 'a=true', 'b=true', 'a=cat'], "two methods 'a'")
        self.refused(['serve', 'unix:/x', 'x=cat', '--stream', 'x', '--sql', 'x=SELECT 1'],
                     "two methods 'x'")
        self.refused(['serve', 'unix:/x', '--program', './p', 'a', 'a'], "two methods 'a'")
        self.refused(['serve', 'unix:/x', '--stream', 'x', '--sql', 'x=SELECT 1'],
                     'x is SQL; only commands, NAME=COMMAND, have streams')
        self.refused(['bench', 'unix:/x'], 'method')
        self.refused(['serve', 'unix:/x', '--inspect', 'some'], 'all, own or none')
        self.refused(['serve', 'unix:/x', '--describe', 'nix=x'], "no method 'nix'")
        self.refused(['serve', 'unix:/x', '--describe', 'echo'], 'NAME=TEXT')
        self.refused(['serve', 'unix:/x', '--describe', 'echo=' + 'd' * 4097], 'at most 4096 bytes')
        self.refused(['bench', 'unix:/x', 'm', '-t', '2', '-w', '2'], 'exclude')
        self.refused(['bench', 'unix:/x', 'm', '-z', '2', '--body', 'x'], 'exclude')
        self.refused(['trigger', 'unix:/x'], "event's ID")
        self.refused(['trigger', 'unix:/x', ''], '1 to 255 bytes')
        self.refused(['trigger', 'unix:/x', 'i' * 256], '1 to 255 bytes')
        self.refused(['trigger', 'unix:/x', 'id', 'a', 'b'], 'quotes')
        self.refused(['wait', 'unix:/x'], "events' IDs")
        self.refused(['wait', 'unix:/x', 'a', ''], '1 to 255 bytes')
        self.refused(['wait', 'unix:/x', 'a', '--any', '--all'], 'exclude')
        self.refused(['lock', 'unix:/x', 'name'], 'command')
        self.refused(['lock', 'unix:/x', '', '--', 'true'], '1 to 255 bytes')
        self.refused(['lock', 'unix:/x', 'n' * 256, '--', 'true'], '1 to 255 bytes')
        self.refused(['serve', 'unix:/x', '--exchange=most'], 'take or keep')
        self.refused(['serve', 'unix:/x', '--event-retention', '5s'], 'needs --exchange')
        self.refused(['serve', 'unix:/x', '--locks=1ms'], 'too short')
        self.refused(['proxy', 'unix:/x'], 'connect to')
        self.refused(['proxy', 'unix:/x', 'unix:/y', '--half-open'], '--cut-every')

    @needs_jansson
    def test_arguments_of_those_that_look(self):
        for command in ('list', 'ps', 'top'):
            self.refused([command], 'address')
            self.refused([command, 'unix:/x', 'more'], 'too many')
            self.refused([command, 'unix:/x', '--timeout', '5'], 'no unit')
            self.refused([command, 'unix:/x', '--connect-timeout', 'x'], '--connect-timeout')
        self.refused(['top', 'unix:/x', '--interval', '1ms'], 'at least 10ms')
        self.refused(['top', 'unix:/x', '--interval', '2'], 'no unit')
        self.refused(['describe', 'unix:/x'], 'method')
        self.refused(['describe', 'unix:/x', ''], '1 to 255 bytes')
        self.refused(['describe', 'unix:/x', 'm', 'n'], 'too many')
        self.refused(['cancel', 'unix:/x'], "call's ID")
        self.refused(['cancel', 'unix:/x', '1234.5', 'more'], 'too many')
        for wrong in ('', '17', 'abc.1', '1234.', '.1', '1234.x', 'ABCD.1', '1234.1 ',
                      'f' * 33 + '.1'):
            self.refused(['cancel', 'unix:/x', wrong], 'SESSION.CALL')

    def test_bad_addresses(self):
        for address in ('', 'nonsense', 'ftp:x', 'tcp:nohost', 'tcp:', 'unix:'):
            self.refused(['call', address, 'm'], 'unix:/path')
            self.refused(['wait', address, 'm'], 'unix:/path')
            self.refused(['lock', address, 'm', 'true'], 'unix:/path')
            self.refused(['serve', address], 'unix:/path')
            self.refused(['proxy', address, 'unix:/x', '-q'], 'bad address')
            self.refused(['proxy', 'unix:' + self.path('p'), address, '-q'], 'bad address')


def options_of(command):
    """Those that its help lists."""
    return set(re.findall(r'^ {2,6}(?:-\S, )?(--[\w-]+)', semel(command, '--help').out.decode(),
                          re.M))


class Manual(ToolCase):
    def page(self, name):
        with open(os.path.join(ROOT, 'docs', 'man', name + '.scd'), encoding='utf-8') as file:
            return file.read()

    def test_every_option_is_in_the_manual(self):
        common = self.page('semel.1') + '--usage'
        for command in COMMANDS:
            page = self.page(f'semel-{command}.1')
            for option in options_of(command):
                self.assertTrue(option in page or option in common, f'{command} {option}')

    def test_every_option_of_the_manual_is_there(self):
        for command in COMMANDS:
            known = options_of(command)
            page = self.page(f'semel-{command}.1')
            for option in re.findall(r'^\*(?:-\w\*, \*)?(--[\w-]+)', page, re.M):
                self.assertIn(option, known, command)

    def test_every_page_is_built(self):
        with open(os.path.join(ROOT, 'docs', 'man', 'meson.build'), encoding='utf-8') as file:
            listed = file.read()
        for command in COMMANDS:
            self.assertIn(f"'semel-{command}.1'", listed)
            self.assertIn(f'*semel-{command}*(1)', self.page('semel.1'))


class Completion(ToolCase):
    SCRIPT = os.path.join(ROOT, 'tool', 'completion', 'semel.bash')

    def complete(self, *words, typed=''):
        """What is offered behind these words for the one that is being typed."""
        script = 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _semel; ' \
                 'printf "%s\\n" "${COMPREPLY[@]}"'
        done = subprocess.run(['bash', '-c', script, self.SCRIPT, *words, typed], check=True,
                              stdout=subprocess.PIPE, text=True, cwd=self.directory)
        return done.stdout.split()

    def test_it_parses(self):
        subprocess.run(['bash', '-n', self.SCRIPT], check=True)

    def test_commands(self):
        for command in COMMANDS:
            self.assertIn(command, self.complete('semel'))
            self.assertIn(command, self.complete('semel', typed=command[:2]))
            self.assertIn(command, self.complete('semel', 'help'))
        self.assertEqual(self.complete('semel', typed='ses'), ['sessions'])

    def test_options(self):
        for command in COMMANDS:
            self.assertEqual(set(self.complete('semel', command, typed='--')), options_of(command))

    def test_values(self):
        self.assertEqual(self.complete('semel', 'call', '-o'), ['json', 'text'])
        self.assertEqual(self.complete('semel', 'serve', '--orphans'), ['kill', 'wait'])
        self.assertEqual(self.complete('semel', 'serve', '--inspect'), ['all', 'own', 'none'])

    def test_what_sessions_does(self):
        verbs = ['list', 'show', 'forget', 'poisoned', 'renew']
        with open(self.path('x.db'), 'w', encoding='utf-8'):
            pass
        self.assertEqual(self.complete('semel', 'sessions', typed='x'), ['x.db'])
        self.assertEqual(self.complete('semel', 'sessions', 'sqlite', typed=':'), ['x.db'])
        self.assertEqual(self.complete('semel', 'sessions', 'x.db'), verbs)
        self.assertEqual(self.complete('semel', 'sessions', 'sqlite', ':', 'x.db'), verbs)
        self.assertEqual(self.complete('semel', 'sessions', 'x.db', typed='po'), ['poisoned'])


if __name__ == '__main__':
    main()
