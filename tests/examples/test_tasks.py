#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tasks in worker processes, in the terminal: counted, cancelled, killed; and what it prints."""

import os
import re
import signal
import subprocess
import sys
import unittest

PROGRAM = os.environ['TASKS']
LONG = '4000000000'  # nobody waits for that


class Program:
    def __init__(self, *limits):
        self.process = subprocess.Popen([PROGRAM, *limits], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines = []

    def say(self, line):
        self.process.stdin.write(line + '\n')
        self.process.stdin.flush()

    def until(self, pattern):
        """The first new line that matches."""
        while True:
            line = self.process.stdout.readline()
            if not line:
                raise AssertionError(f'no {pattern} in\n' + ''.join(self.lines))
            self.lines.append(line)
            found = re.match(pattern, line)
            if found:
                return found

    def end(self):
        out, err = self.process.communicate(timeout=60)
        self.lines += out.splitlines(True)
        return self.process.returncode, err


class Tasks(unittest.TestCase):
    def test_counts(self):
        program = Program('1000000', '1000', '100000')
        self.assertEqual(program.end(), (0, ''))
        text = ''.join(program.lines)
        for number, primes in ((1, 78498), (2, 168), (3, 9592)):
            self.assertIn(f'{number} completed: {primes} primes, 100 reports\n', text)

    def test_cancel(self):
        program = Program(LONG)
        program.until('1 executing')
        program.say('cancel 1')
        program.until('1 cancelling$')
        program.until('1 cancelled$')
        program.say('quit')
        self.assertEqual(program.end(), (0, ''))

    def test_kill(self):
        program = Program(LONG)
        pid = int(program.until(r'1 executing in process (\d+)').group(1))
        program.say('start ' + LONG)
        other = int(program.until(r'2 executing in process (\d+)').group(1))
        program.say('kill 1')
        program.until(fr'1 failed: .*process {pid} was killed by signal 9 \(SIGKILL\)')
        os.kill(other, signal.SIGKILL)  # from outside
        program.until(fr'2 failed: .*process {other} was killed by signal 9 \(SIGKILL\)')
        program.say('start 1000')  # others have taken their places
        program.until('3 completed: 168 primes')
        program.say('quit')
        self.assertEqual(program.end(), (1, ''))

    def test_failure(self):
        program = Program('nonsense')
        self.assertEqual(program.end(), (1, ''))
        self.assertRegex(program.lines[-1], '1 failed: .*not a number')


if __name__ == '__main__':
    sys.exit(unittest.main())
