# SPDX-License-Identifier: MIT
"""What the tests of the tool share: running it, servers and proxies in the background."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
import unittest

ROOT = os.environ.get('SEMEL_ROOT') or os.path.abspath(os.path.join(os.path.dirname(__file__),
                                                                    '..', '..'))
TOOL = os.environ.get('SEMEL_TOOL') or os.path.join(ROOT, 'build', 'release', 'tool', 'semel')
STORES = os.environ.get('SEMEL_STORES', '1') == '1'
JANSSON = os.environ.get('SEMEL_JANSSON', '1') == '1'
NCURSES = os.environ.get('SEMEL_NCURSES', '1') == '1'
HANG = 120  # seconds after which something hangs, on any machine

# Whoever runs the tests in the background has these ignored, and what the tests start has it from
# them: shells that cannot trap what they are sent.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


needs_stores = unittest.skipUnless(STORES, 'built without stores')
needs_jansson = unittest.skipUnless(JANSSON, 'built without Jansson')


def alive(pid):
    """Is there a process of this id that has not ended?"""
    try:
        with open(f'/proc/{pid}/stat', encoding='utf-8') as file:
            return file.read().rsplit(')', 1)[1].split()[0] != 'Z'
    except OSError:
        return False


class Outcome:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return f'exit code {self.code}\nstdout: {self.out[:2000]!r}\nstderr:\n{self.err}'


def semel(*args, stdin=b'', **more):
    """Run the tool to its end."""
    done = subprocess.run([TOOL, *args], input=stdin, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=HANG, check=False, **more)
    return Outcome(done.returncode, done.stdout, done.stderr.decode(errors='replace'))


class Process:
    """The tool in the background; what it says on standard error is kept."""

    def __init__(self, *args, **more):
        more.setdefault('stdin', subprocess.DEVNULL)
        self.popen = subprocess.Popen([TOOL, *args], stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, **more)
        self.lines = []
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.popen.stderr:
            with self.changed:
                self.lines.append(line.decode(errors='replace').rstrip('\n'))
                self.changed.notify_all()

    def await_line(self, words, count=1):
        """The first line with these words; `count` of them must come."""
        end = time.monotonic() + HANG
        with self.changed:
            while True:
                found = [line for line in self.lines if words in line]
                if len(found) >= count:
                    return found[0]
                left = end - time.monotonic()
                if left < 0 or (self.popen.poll() is not None and not self.reader.is_alive()):
                    raise AssertionError(f'it never said {words!r}:\n' + '\n'.join(self.lines))
                self.changed.wait(min(left, 0.2))

    def signal(self, number):
        self.popen.send_signal(number)

    def end(self, number=None):
        """Signal it if told to, and wait for its end."""
        if number is not None and self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            out = self.popen.stdout.read()
            self.popen.wait(HANG)
        finally:
            if self.popen.poll() is None:
                self.popen.kill()
                self.popen.wait()
        self.reader.join(HANG)
        self.popen.stdout.close()
        self.popen.stderr.close()
        return Outcome(self.popen.returncode, out, '\n'.join(self.lines))


class ToolCase(unittest.TestCase):
    """A test with a directory of its own; what it starts in the background is ended."""

    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix='semel-', dir='/tmp')
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.directory, name)

    def background(self, *args, **more):
        process = Process(*args, **more)

        def stop():
            if process.popen.poll() is None:
                process.popen.kill()
            if not process.popen.stdout.closed:
                process.end()

        self.addCleanup(stop)
        return process

    def serve(self, *args, name='s', clean=True):
        """A server at unix:DIRECTORY/NAME; it must end well when told to."""
        server = self.background('serve', 'unix:' + self.path(name), *args)
        server.await_line('listening at')
        server.address = 'unix:' + self.path(name)
        if clean:
            def drain():
                if server.popen.poll() is None:
                    self.check(server.end(signal.SIGTERM), 0)
            self.addCleanup(drain)
        return server

    def store(self, name='store.db'):
        return 'sqlite:' + self.path(name)

    def sql(self, text, name='store.db'):
        """Run statements on a database that no server has; the rows of the last."""
        database = sqlite3.connect(self.path(name))
        try:
            rows = []
            for statement in text.split(';'):
                rows = database.execute(statement).fetchall()
            database.commit()
            return rows
        finally:
            database.close()

    def look(self, text, name='store.db'):
        """The rows of a query, beside a server."""
        database = sqlite3.connect(f'file:{self.path(name)}?mode=ro', uri=True, timeout=HANG)
        try:
            return database.execute(text).fetchall()
        finally:
            database.close()

    def pids(self, name='pids', count=1):
        """The process ids that commands have written into a file; they are killed at the end."""
        def written():
            if not os.path.exists(self.path(name)):
                return []
            with open(self.path(name), encoding='utf-8') as file:
                return [int(pid) for pid in file.read().split()]

        def kill(pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

        self.wait_until(lambda: len(written()) >= count, 'the commands never ran')
        for pid in written():
            self.addCleanup(kill, pid)
        return written()

    def proxy(self, target, *args, name='p'):
        address = 'unix:' + self.path(name)
        proxy = self.background('proxy', address, target, '-o', 'json', *args)
        proxy.await_line('listening at')
        proxy.address = address
        return proxy

    def calling(self, *args, **more):
        """A call in the background that has been submitted."""
        call = self.background('call', *args, '-v', **more)
        call.await_line('calling')
        return call

    def executions(self, ledger):
        """How many executions a server's ledger has."""
        if not os.path.exists(self.path(ledger)):
            return 0
        with open(self.path(ledger), encoding='utf-8') as file:
            return file.read().count('\n')

    def check(self, outcome, code, out=None, *words):
        """Compare an outcome; each of `words` must be on standard error."""
        self.assertEqual(outcome.code, code, outcome)
        if out is not None:
            self.assertEqual(outcome.out, out, outcome)
        for word in words:
            self.assertIn(word, outcome.err, outcome)

    def wait_until(self, condition, what):
        end = time.monotonic() + HANG
        while not condition():
            self.assertLess(time.monotonic(), end, what)
            time.sleep(0.02)


def main():
    unittest.main(verbosity=2)  # says why a test is skipped
