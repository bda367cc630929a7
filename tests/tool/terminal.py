# SPDX-License-Identifier: MIT
"""A terminal for programs that need one: a pseudo terminal, and what would stand on its screen.

It knows what a VT100 and its kin are told by ncurses; anything else is an error, so that no test
passes by what was not understood."""

import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

from toolkit import HANG

SEQUENCE = re.compile(rb'\x1b(?:\[([?>=]?)([0-9;]*)([@-~])|[()][0-9A-Z]|[=>78cDEHMc])')
IGNORED = b'hlmrnct'  # modes, attributes, margins, questions


class Screen:
    """Characters in rows and columns."""

    def __init__(self, rows, columns):
        self.resize(rows, columns)
        self.rest = b''

    def resize(self, rows, columns):
        self.rows, self.columns = rows, columns
        self.cells = [[' '] * columns for _ in range(rows)]
        self.row = self.column = 0
        self.last = ' '

    def text(self):
        return '\n'.join(''.join(row).rstrip() for row in self.cells)

    def feed(self, data):
        data = self.rest + data
        at = 0
        while at < len(data):
            if data[at] == 0x1b:
                match = SEQUENCE.match(data, at)
                if not match:
                    if len(data) - at > 32:
                        raise AssertionError(f'not understood: {data[at:at + 32]!r}')
                    break
                self.escape(match)
                at = match.end()
            elif data[at] < 0x20:
                self.control(data[at])
                at += 1
            else:
                length = 1 if data[at] < 0x80 else 2 if data[at] < 0xe0 else \
                    3 if data[at] < 0xf0 else 4
                if at + length > len(data):
                    break
                self.put(data[at:at + length].decode(errors='replace'))
                at += length
        self.rest = data[at:]

    def control(self, byte):
        if byte == 0x0d:
            self.column = 0
        elif byte == 0x0a:
            self.down()
        elif byte == 0x08:
            self.column = max(self.column - 1, 0)
        elif byte == 0x09:
            self.column = min(self.column // 8 * 8 + 8, self.columns - 1)

    def down(self):
        if self.row < self.rows - 1:
            self.row += 1
        else:
            self.cells = self.cells[1:] + [[' '] * self.columns]

    def put(self, letter):
        if self.column >= self.columns:  # the last column was written: this one wraps
            self.column = 0
            self.down()
        self.cells[self.row][self.column] = self.last = letter
        self.column += 1

    def move(self, row, column):
        self.row = min(max(row, 0), self.rows - 1)
        self.column = min(max(column, 0), self.columns - 1)

    def erase(self, first, end):
        """Cells from one to before the other, counted over the whole screen."""
        for cell in range(first, end):
            self.cells[cell // self.columns][cell % self.columns] = ' '

    def escape(self, match):
        if match.group(3) is None:
            if match.group(0) == b'\x1bM':
                self.move(self.row - 1, self.column)
            return
        private, final = match.group(1), match.group(3)
        numbers = [int(n) if n else 0 for n in match.group(2).split(b';')]
        first = max(numbers[0], 1)
        here = self.row * self.columns + min(self.column, self.columns - 1)
        start = self.row * self.columns
        if private or final in IGNORED:
            return
        if final in b'Hf':
            self.move(first - 1, (numbers + [1])[1] - 1)
        elif final in b'ABCD':
            down, right = {b'A': (-1, 0), b'B': (1, 0), b'C': (0, 1), b'D': (0, -1)}[final]
            self.move(self.row + down * first, self.column + right * first)
        elif final == b'G':
            self.move(self.row, first - 1)
        elif final == b'd':
            self.move(first - 1, self.column)
        elif final == b'J':
            self.erase(*[(here, self.rows * self.columns), (0, here + 1),
                         (0, self.rows * self.columns)][numbers[0]])
        elif final == b'K':
            self.erase(*[(here, start + self.columns), (start, here + 1),
                         (start, start + self.columns)][numbers[0]])
        elif final == b'X':
            self.erase(here, min(here + first, start + self.columns))
        elif final == b'b':
            for _ in range(first):
                self.put(self.last)
        elif final in b'P@':
            row = self.cells[self.row]
            if final == b'P':
                row = row[:self.column] + row[self.column + first:] + [' '] * first
            else:
                row = row[:self.column] + [' '] * first + row[self.column:]
            self.cells[self.row] = row[:self.columns]
        elif final in b'LM':
            lines = self.cells[self.row:]
            blank = [[' '] * self.columns for _ in range(first)]
            lines = blank + lines if final == b'L' else lines[first:] + blank
            self.cells[self.row:] = lines[:self.rows - self.row]
        else:
            raise AssertionError(f'not understood: {match.group(0)!r}')


class Terminal:
    """A program in a pseudo terminal."""

    def __init__(self, *command, term='vt100', rows=24, columns=80, **more):
        self.master, self.slave = pty.openpty()
        self.screen = Screen(rows, columns)
        self.output = b''
        self.set_size(rows, columns)
        self.modes = termios.tcgetattr(self.slave)
        environment = dict(os.environ, TERM=term, LC_ALL='C.UTF-8')
        environment.pop('LINES', None)
        environment.pop('COLUMNS', None)

        def own_terminal():
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it
            os.setsid()
            fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)

        self.popen = subprocess.Popen(command, stdin=self.slave, stdout=self.slave,
                                      stderr=subprocess.PIPE, env=environment,
                                      preexec_fn=own_terminal, **more)

    def set_size(self, rows, columns):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))

    def resize(self, rows, columns):
        self.set_size(rows, columns)
        self.screen.resize(rows, columns)
        os.kill(self.popen.pid, signal.SIGWINCH)

    def read(self, seconds):
        """What comes within this time, once. False: nothing did."""
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False
        self.output += data
        self.screen.feed(data)
        return True

    def type(self, keys):
        os.write(self.master, keys)

    def wait_for(self, words, what=None):
        """The screen's text, once it has these words (or what is looked for is true of it)."""
        true = words if callable(words) else lambda text: words in text
        end = time.monotonic() + HANG
        while True:
            self.read(0.05)
            if true(self.screen.text()):
                return self.screen.text()
            if time.monotonic() > end or self.popen.poll() is not None:
                raise AssertionError(f'never saw {what or words!r}; the screen is:\n'
                                     + self.screen.text() + '\n'
                                     + (self.popen.stderr.read().decode()
                                        if self.popen.poll() is not None else ''))

    def end(self):
        """Wait for its end: its exit code, and what it said on standard error."""
        end = time.monotonic() + HANG
        while self.popen.poll() is None:
            self.read(0.05)
            if time.monotonic() > end:
                self.popen.kill()
        while self.read(0.05):
            pass
        return self.popen.returncode, self.popen.stderr.read().decode()

    def modes_now(self):
        return termios.tcgetattr(self.slave)

    def close(self):
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        self.popen.stderr.close()
        os.close(self.master)
        os.close(self.slave)
