#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A real window on a virtual screen: what it shows while tasks run, are cancelled and killed, and
for how long it was silent."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest

PROGRAM = os.environ['WINDOW']
LONG = '4000000000'  # nobody waits for that
PATIENCE = 60        # seconds: a hang
SILENCE = 1500       # ms: less than a worker that is waited for has to end (2 s)

if not shutil.which('Xvfb') or not shutil.which('xdotool'):
    print('Xvfb or xdotool is not installed')
    sys.exit(77)


class Screen:
    """An X server of our own; it chooses its number."""

    def __init__(self):
        read, write = os.pipe()
        self.server = subprocess.Popen(['Xvfb', '-displayfd', str(write), '-screen', '0',
                                        '1000x600x24', '-nolisten', 'tcp'], pass_fds=[write],
                                       stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(write)
        with os.fdopen(read) as file:
            self.name = ':' + file.readline().strip()

    def close(self):
        self.server.terminate()
        self.server.wait()


class Window:
    def __init__(self, screen):
        self.env = dict(os.environ, DISPLAY=screen.name, GDK_BACKEND='x11', NO_AT_BRIDGE='1',
                        GTK_THEME='Adwaita', GSETTINGS_BACKEND='memory')
        # GTK and what is below it keep memory until the end.
        self.env['ASAN_OPTIONS'] = os.environ.get('ASAN_OPTIONS', '') + ':detect_leaks=0'
        # What they synchronise among their own threads the thread sanitizer does not see.
        self.env['TSAN_OPTIONS'] = (os.environ.get('TSAN_OPTIONS', '') +
                                    ':ignore_noninstrumented_modules=1')
        self.process = subprocess.Popen([PROGRAM, '--script'], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env=self.env)

    def say(self, line):
        self.process.stdin.write(line + '\n')
        self.process.stdin.flush()

    def ask(self, line):
        self.say(line)
        return self.process.stdout.readline().strip()

    def rows(self):
        """What is shown: a dictionary for each row."""
        self.say('show')
        found = []
        while True:
            line = self.process.stdout.readline().strip()
            if line == 'end':
                return found
            _, title, state, percent, words, buttons = line.split('|')
            found.append({'title': title, 'state': state, 'percent': int(percent), 'words': words,
                          'buttons': buttons})

    def until(self, number, **wanted):
        """The row, as soon as it shows that."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            row = self.rows()[number - 1]
            if all(re.fullmatch(pattern, str(row[key])) for key, pattern in wanted.items()):
                return row
            time.sleep(0.02)
        raise AssertionError(f'row {number} is not {wanted}: {row}')

    def silence(self):
        return int(re.fullmatch(r'longest silence (\d+) ms', self.ask('gap')).group(1))

    def click(self, *what):
        """With the pointer, where the window says that the button is."""
        where = self.until_mapped(' '.join(('where',) + what))
        subprocess.run(['xdotool', 'mousemove', *where.split(), 'sleep', '0.1', 'click', '1'],
                       env=self.env, check=True, timeout=PATIENCE)

    def until_mapped(self, line):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            where = self.ask(line)
            if where != 'nowhere':
                return where
            time.sleep(0.02)
        raise AssertionError(line)

    def close(self):
        self.say('close')
        self.process.stdin.close()
        code = self.process.wait(timeout=PATIENCE)
        self.process.stdout.close()
        return code


def is_running(pid):
    try:
        with open(f'/proc/{pid}/stat', encoding='ascii') as file:
            return file.read().rsplit(')', 1)[1].split()[0] not in 'ZX'
    except OSError:
        return False


class Tasks(unittest.TestCase):
    def setUp(self):
        self.screen = Screen()
        self.addCleanup(self.screen.close)
        self.window = Window(self.screen)
        self.addCleanup(self.window.process.kill)

    def pid_of(self, number):
        row = self.window.until(number, state='executing', words=r'process \d+')
        return int(row['words'].split()[1])

    def test_completes(self):
        self.window.say('start 1000000')
        row = self.window.until(1, state='completed')
        self.assertEqual(row['words'], '78498 primes, 100 reports')
        self.assertEqual((row['title'], row['percent'], row['buttons']), ('1000000', 100, '--'))
        self.assertEqual(self.window.close(), 0)

    def test_a_killed_worker(self):
        self.window.say('start ' + LONG)
        self.window.say('start ' + LONG)
        first, second = self.pid_of(1), self.pid_of(2)
        self.assertEqual(self.window.rows()[0]['buttons'], 'ck')
        self.window.say('reset')
        os.kill(first, signal.SIGKILL)
        row = self.window.until(1, state='failed')
        self.assertIn(f'process {first} was killed by signal 9 (SIGKILL)', row['words'])
        self.assertEqual(row['buttons'], '--')
        self.assertEqual(self.window.rows()[1]['state'], 'executing')
        self.window.say('kill 2')
        row = self.window.until(2, state='failed')
        self.assertIn(f'process {second} was killed by signal 9', row['words'])
        self.window.say('start 1000')  # in a process that took the place
        self.window.until(3, state='completed')
        self.assertLess(self.window.silence(), SILENCE)
        self.assertEqual(self.window.close(), 0)

    def test_a_stopped_worker(self):
        """One that does not even hear that it is cancelled: the window lives, and so does Kill."""
        self.window.say('start ' + LONG)
        pid = self.pid_of(1)
        os.kill(pid, signal.SIGSTOP)
        self.window.say('reset')
        self.window.say('cancel 1')
        row = self.window.until(1, state='cancelling')
        self.assertEqual(row['buttons'], '-k')
        self.window.say('kill 1')
        self.window.until(1, state='cancelled', buttons='--')
        self.assertLess(self.window.silence(), SILENCE)
        self.assertFalse(is_running(pid))
        self.assertEqual(self.window.close(), 0)

    def test_real_clicks(self):
        self.window.click('start')
        end = time.monotonic() + PATIENCE
        while not self.window.rows() and time.monotonic() < end:
            time.sleep(0.02)
        self.pid_of(1)
        self.window.click('cancel', '1')
        self.window.until(1, state='cancelled')
        self.window.say('start ' + LONG)
        pid = self.pid_of(2)
        self.window.click('kill', '2')
        row = self.window.until(2, state='failed')
        self.assertIn(f'process {pid} was killed', row['words'])
        self.assertEqual(self.window.close(), 0)

    def test_closing(self):
        """It closes with tasks in it, and leaves no process behind."""
        self.window.say('start ' + LONG)
        self.window.say('start ' + LONG)
        pids = [self.pid_of(1), self.pid_of(2)]
        os.kill(pids[0], signal.SIGSTOP)
        self.assertEqual(self.window.close(), 0)
        for pid in pids:
            self.assertFalse(is_running(pid))


if __name__ == '__main__':
    unittest.main()
