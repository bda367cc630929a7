#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""semel lock on a terminal: what is typed is the command's."""

import os
import pty
import select
import signal
import termios
import time
import unittest

from toolkit import HANG, TOOL, ToolCase, main, semel

CTRL_C, CTRL_BACKSLASH = '\x03', '\x1c'

# Counts signals, until a line is typed.
COUNTS = '''
import os, select, signal, sys
told, tell = os.pipe()
os.set_blocking(tell, False)
signal.set_wakeup_fd(tell)
count = 0
for number in map(int, sys.argv[1:]):
    signal.signal(number, lambda number, frame: None)
print('ready', flush=True)
while 0 not in select.select([0, told], [], [])[0]:
    for number in os.read(told, 100):
        count += 1
        print('caught', number, flush=True)
print('typed', input(), 'after', count, flush=True)
sys.exit(5)
'''


class Terminal:
    """A command that has a terminal, and one who looks at it and types."""

    def __init__(self, *command):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                # As a shell has it; who runs tests in the background may have them ignored.
                for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
                    signal.signal(number, signal.SIG_DFL)
                # Else Ctrl-C also takes away what the command prints about it, if it is fast.
                modes = termios.tcgetattr(0)
                modes[3] |= termios.NOFLSH
                termios.tcsetattr(0, termios.TCSANOW, modes)
                os.execvp(command[0], command)
            finally:
                os._exit(127)
        self.seen = ''
        self.code = None

    def type(self, text):
        os.write(self.fd, text.encode())

    def look(self, until):
        """False: nothing more will be seen."""
        left = until - time.monotonic()
        if left < 0 or not select.select([self.fd], [], [], left)[0]:
            raise AssertionError(f'seen so far:\n{self.seen}')
        try:
            got = os.read(self.fd, 4096)
        except OSError:  # EIO: nobody has the other end any more
            got = b''
        self.seen += got.decode(errors='replace')
        return got != b''

    def await_text(self, text):
        until = time.monotonic() + HANG
        while text not in self.seen:
            if not self.look(until):
                raise AssertionError(f'never seen {text!r}:\n{self.seen}')

    def end(self):
        """Its exit code; -N: it died of signal N."""
        until = time.monotonic() + HANG
        while self.look(until):
            pass
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

    def close(self):
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


class LockOnATerminal(ToolCase):
    def setUp(self):
        super().setUp()
        self.address = self.serve('--locks').address

    def terminal(self, *command):
        terminal = Terminal(*command)
        self.addCleanup(terminal.close)
        return terminal

    def lock(self, *command):
        return self.terminal(TOOL, 'lock', self.address, 'n', '--', *command)

    def counting(self, *numbers):
        terminal = self.lock('python3', '-c', COUNTS, *(str(int(n)) for n in numbers))
        terminal.await_text('ready')
        return terminal

    def check_free(self):
        self.check(semel('lock', self.address, 'n', '--timeout', '60s', '--', 'echo', 'free'), 0,
                   b'free\n')

    def test_the_command_reads_what_is_typed(self):
        terminal = self.lock('sh', '-c', 'test -t 0 && test -t 1 && test -t 2 && echo ready; '
                             'read line; echo "<$line>"; exit 7')
        terminal.await_text('ready')
        terminal.type('hello\n')
        terminal.await_text('<hello>')
        self.assertEqual(terminal.end(), 7)
        self.check_free()

    def test_ctrl_c_ends_the_command(self):
        terminal = self.lock('sh', '-c', 'echo ready; exec sleep 100')
        terminal.await_text('ready')
        terminal.type(CTRL_C)
        self.assertEqual(terminal.end(), 128 + signal.SIGINT)
        self.check_free()

    def test_ctrl_c_reaches_the_command_once(self):
        terminal = self.counting(signal.SIGINT)
        terminal.type(CTRL_C)
        terminal.await_text('caught')
        time.sleep(0.2)  # a second one would be there by now
        terminal.type('x\n')
        terminal.await_text('typed x after 1')
        self.assertEqual(terminal.end(), 5)
        self.check_free()

    def test_a_kill_reaches_the_command_once(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number=number):
                terminal = self.counting(number)
                os.kill(terminal.pid, number)
                terminal.await_text('caught')
                time.sleep(0.2)
                terminal.type('x\n')
                terminal.await_text('typed x after 1')
                self.assertEqual(terminal.end(), 5)

    def test_ctrl_backslash_is_the_commands(self):
        terminal = self.counting(signal.SIGQUIT)
        terminal.type(CTRL_BACKSLASH)
        terminal.await_text('caught')
        self.check(semel('lock', self.address, 'n', '--timeout', '1ms', '--', 'true'), 4, b'')
        terminal.type('x\n')
        terminal.await_text('typed x after 1')
        self.assertEqual(terminal.end(), 5)
        terminal = self.lock('sh', '-c', 'ulimit -c 0; echo ready; exec sleep 100')
        terminal.await_text('ready')
        terminal.type(CTRL_BACKSLASH)
        self.assertEqual(terminal.end(), 128 + signal.SIGQUIT)
        self.check_free()

    def test_ctrl_c_in_line(self):
        holder = self.counting()
        behind = self.terminal(TOOL, 'lock', self.address, 'n', '-v', '--', 'echo', 'ran')
        behind.await_text('waiting for the lock')
        behind.type(CTRL_C)
        behind.await_text('interrupted')
        self.assertEqual(behind.end(), 9)
        self.assertNotIn('ran\r\n', behind.seen)
        holder.type('x\n')
        self.assertEqual(holder.end(), 5)

    def test_input_from_a_pipe_and_a_question_on_the_terminal(self):
        command = 'echo ready; read line </dev/tty; echo "<$line>"; cat; exit 6'
        terminal = self.terminal(
            'sh', '-c', f'echo piped | {TOOL} lock {self.address} n -- sh -c \'{command}\'')
        terminal.await_text('ready')
        terminal.type('yes\n')
        terminal.await_text('<yes>')
        self.assertEqual(terminal.end(), 6)
        self.assertIn('piped', terminal.seen)

    def test_output_into_a_pipe(self):
        terminal = self.terminal(
            'sh', '-c', f'{TOOL} lock {self.address} n -- '
            'sh -c \'echo ready >&2; read line; echo $line\' | tr a-z A-Z')
        terminal.await_text('ready')
        terminal.type('loud\n')
        terminal.await_text('LOUD')
        self.assertEqual(terminal.end(), 0)


if __name__ == '__main__':
    main()
