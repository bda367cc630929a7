#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A program in the loop of another library makes calls, and its own timer goes on ticking: the
replies are held back until it has ticked."""
import os
import shutil
import subprocess
import tempfile
import unittest

TOOL = os.environ['SEMEL_TOOL']
PROGRAM = os.environ['PROGRAM']


class ForeignCalls(unittest.TestCase):
    def setUp(self):
        self.at = tempfile.mkdtemp(prefix='semel-foreign-', dir='/tmp')
        self.addCleanup(shutil.rmtree, self.at)
        self.address = 'unix:' + os.path.join(self.at, 's')
        self.go = os.path.join(self.at, 'go')
        self.start(TOOL, 'serve', self.address,
                   f'slow=until [ -e {self.go} ]; do sleep 0.02; done; cat', 'quick=cat',
                   'no=exit 3', '--workers', '4', stderr=subprocess.PIPE, await_line='listening')

    def start(self, *command, await_line=None, **more):
        process = subprocess.Popen(command, text=True, **more)

        def end():
            process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream:
                    stream.close()

        self.addCleanup(end)
        while await_line and await_line not in process.stderr.readline():
            self.assertIsNone(process.poll())
        return process

    def program(self, *args):
        return self.start(PROGRAM, self.address, *args, stdout=subprocess.PIPE)

    def test_it_ticks_while_calls_are_outstanding(self):
        program = self.program('slow', 'one', 'two')
        for _ in range(5):
            self.assertEqual(program.stdout.readline(), 'tick\n')
        with open(self.go, 'w', encoding='ascii'):
            pass
        rest = program.stdout.read().split('\n')
        self.assertEqual(sorted(line for line in rest if line not in ('tick', '')),
                         ['reply: one', 'reply: two'])
        self.assertEqual(program.wait(), 0)

    def test_failures(self):
        program = self.program('no', 'x')
        self.assertIn('failure: exit status 3\n', program.stdout.read())
        self.assertEqual(program.wait(), 1)

    def test_many(self):
        bodies = [f'{i}' for i in range(100)]
        program = self.program('quick', *bodies)
        replies = [line for line in program.stdout.read().split('\n') if line.startswith('reply')]
        self.assertEqual(sorted(replies), sorted('reply: ' + body for body in bodies))
        self.assertEqual(program.wait(), 0)


if __name__ == '__main__':
    unittest.main(verbosity=2)
