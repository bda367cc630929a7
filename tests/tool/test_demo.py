#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""semel demo: small runs of it, runs that must fail, and runs that are interrupted."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
import unittest

from toolkit import HANG, STORES, TOOL, ToolCase, main, needs_stores, semel

AUDIT = os.environ.get('SEMEL_AUDIT')
KEYS = ['calls', 'kills', 'kills_busy', 'cuts', 'replayed', 'reattached', 'resumed', 'lost',
        'doubled', 'unknown', 'seconds']


class WithoutStores(ToolCase):
    @unittest.skipIf(STORES, 'built with stores')
    def test_it_says_so(self):
        self.check(semel('demo', '--seconds', '1'), 1, b'', 'built without SQLite')


class Usage(ToolCase):
    def refused(self, *args, words=()):
        self.check(semel('demo', *args), 2, b'', *words)

    def test_numbers(self):
        self.refused('--seconds', '0', words=['--seconds', 'from 1 to'])
        self.refused('--seconds', '5s', words=['--seconds'])
        self.refused('--clients', '0', words=['--clients', 'from 1 to 64'])
        self.refused('--clients', '65', words=['--clients'])
        self.refused('--seed', 'x', words=['--seed'])

    def test_durations(self):
        self.refused('--kill-every', '300', words=['--kill-every', 'no unit'])
        self.refused('--cut-every', '-5ms', words=['--cut-every', 'negative'])
        self.refused('--kill-every', '5us', words=['--kill-every', 'too often'])

    def test_arguments(self):
        self.refused('bank', words=['too many arguments'])
        self.refused('-o', 'xml', words=['json'])

    @needs_stores
    def test_a_directory_that_is_none(self):
        with open(self.path('file'), 'w', encoding='utf-8'):
            pass
        self.refused('--keep', self.path('file'), words=['--keep', 'not empty'])
        self.refused('--keep', self.directory, words=['--keep', 'not empty'])
        self.refused('--keep', self.path('no/such'), words=['--keep', 'No such file'])
        self.assertEqual(os.listdir(self.directory), ['file'])


@needs_stores
class DemoCase(ToolCase):
    """Its temporary directories lie in the test's own."""

    def setUp(self):
        super().setUp()
        os.mkdir(self.path('tmp'))
        self.env = dict(os.environ, TMPDIR=self.path('tmp'))
        self.addCleanup(self.end_processes)

    def demo(self, *args, **more):
        return semel('demo', *args, env=self.env, **more)

    def processes(self):
        """Ids of those that work in the test's directory."""
        found = []
        for pid in os.listdir('/proc'):
            try:
                if pid.isdigit() and os.readlink(f'/proc/{pid}/cwd').startswith(self.directory):
                    found.append(int(pid))
            except OSError:
                pass
        return found

    def end_processes(self):
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def directories(self):
        return os.listdir(self.path('tmp'))

    def gone(self):
        """Nothing of it is left."""
        self.wait_until(lambda: not self.processes(), 'processes are left')
        self.assertEqual(self.directories(), [])

    def running(self, *args):
        demo = self.background('demo', '--seconds', '300', *args, env=self.env)
        self.wait_until(lambda: len(self.pids_of(b'demo client')) == 4, 'it has no clients')
        return demo

    def pids_of(self, words):
        """Processes of the demo with these words in their command line."""
        found = []
        for pid in self.processes():
            try:
                with open(f'/proc/{pid}/cmdline', 'rb') as file:
                    if words in file.read().replace(b'\0', b' '):
                        found.append(pid)
            except OSError:
                pass
        return found

    def audit(self, directory):
        done = subprocess.run([AUDIT, directory], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=HANG, text=True, check=False)
        return done.returncode, done.stdout + done.stderr


class Runs(DemoCase):
    def test_a_short_one(self):
        outcome = self.demo('--seconds', '8', '-o', 'json')
        self.check(outcome, 0)
        self.assertEqual(outcome.out.count(b'\n'), 1, outcome)
        result = outcome.json()
        self.assertEqual(list(result), KEYS)
        self.assertEqual((result['lost'], result['doubled'], result['unknown']), (0, 0, 0))
        self.assertGreater(result['kills'], 3)
        self.assertGreater(result['kills_busy'], 0.8 * result['kills'])
        for key, least in (('cuts', 20), ('calls', 200), ('resumed', 10), ('replayed', 1),
                           ('reattached', 1)):
            self.assertGreaterEqual(result[key], least, key)
        self.assertEqual(result['seconds'], 8.0)
        self.gone()

    def test_kept_and_judged_again(self):
        kept = self.path('kept')
        outcome = self.demo('--seconds', '3', '--keep', kept, '--clients', '2')
        self.check(outcome, 0)
        text = outcome.out.decode()
        self.assertTrue(text.splitlines()[-1].startswith('PASSED'), outcome)
        for words in ('server kills', 'before a start', 'before a commit', 'before a reply',
                      'connections cut', 'doubled', 'mismatched'):
            self.assertIn(words, text)
        self.assertEqual(self.directories(), [])
        code, words = self.audit(kept)
        self.assertEqual(code, 0, words)
        with open(os.path.join(kept, 'kills'), encoding='utf-8') as file:
            self.assertIn(f'server kills     {len(file.readlines())},', text)
        self.spoil(kept)
        # A directory with something in it is not taken for another run.
        self.check(self.demo('--keep', kept), 2, b'', 'not empty')

    def spoil(self, kept):
        """A row that is there twice, the money with it, is found."""
        database = sqlite3.connect(os.path.join(kept, 'bank.db'))
        database.execute('INSERT INTO moves SELECT * FROM moves ORDER BY amount LIMIT 1')
        database.commit()
        database.close()
        code, words = self.audit(kept)
        self.assertEqual(code, 1, words)
        self.assertIn('transferred again', words)

    def test_without_kills_and_cuts(self):
        outcome = self.demo('--seconds', '2', '--kill-every', '0', '--cut-every', '0', '-o', 'json',
                            '--clients', '1')
        self.check(outcome, 0)
        result = outcome.json()
        self.assertEqual((result['kills'], result['cuts'], result['unknown']), (0, 0, 0))
        self.gone()

    def test_a_long_path(self):
        """Sockets need a short one."""
        self.env['TMPDIR'] = self.path('tmp/' + 'long' * 30)
        os.mkdir(self.env['TMPDIR'])
        self.check(self.demo('--seconds', '1', '--clients', '2'), 0)
        self.assertEqual(os.listdir(self.env['TMPDIR']), [])


class Failing(DemoCase):
    def failed(self, outcome, *words):
        """The directory is kept, and named; processes are gone."""
        self.check(outcome, 1, None, *words)
        self.assertNotIn(b'PASSED', outcome.out)
        self.assertEqual(len(self.directories()), 1)
        self.assertIn(self.path('tmp/' + self.directories()[0]), outcome.err)
        self.wait_until(lambda: not self.processes(), 'processes are left')

    def test_notices_that_run_again(self):
        """A server that runs them once more after it died is found out."""
        outcome = self.demo('--seconds', '6', '--kill-every', '200ms', '--server-option',
                            '--on-crash', '--server-option', 'notify=rerun', '-o', 'json')
        self.failed(outcome, 'began again', 'kills hit', 'FAILED: calls were')
        self.assertGreater(json.loads(outcome.out.splitlines()[-1])['doubled'], 0)

    def test_a_server_that_does_not_start(self):
        begin = time.monotonic()
        self.failed(self.demo('--server-option', '--nonsense'), 'does not start', 'exit status 2',
                    'server.log')
        self.assertLess(time.monotonic() - begin, HANG / 2)

    def test_a_server_that_dies_by_itself(self):
        demo = self.running('--kill-every', '0')
        os.kill(self.pids_of(b'semel serve unix:')[0], signal.SIGKILL)
        self.failed(demo.end(), 'the server ended by itself', 'signal 9', 'server.log')

    def test_a_client_that_dies_by_itself(self):
        demo = self.running()
        os.kill(self.pids_of(b'client 1 0 plain')[0], signal.SIGKILL)
        self.failed(demo.end(), 'client 1 failed', 'signal 9', 'client-1.log')

    def test_no_audit(self):
        """A tool that was copied without it says so at once."""
        shutil.copy(TOOL, self.path('semel'))
        done = subprocess.run([self.path('semel'), 'demo'], env=self.env, timeout=HANG,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if b'there is no audit' not in done.stdout:
            self.skipTest('there is one installed')
        self.assertEqual(done.returncode, 1)
        self.assertEqual(self.directories(), [])

    def test_output_that_cannot_be_written(self):
        with open('/dev/full', 'wb') as full:
            done = subprocess.run([TOOL, 'demo', '--seconds', '1'], stdout=full, env=self.env,
                                  stderr=subprocess.PIPE, timeout=HANG, check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn(b'cannot be written', done.stderr)


class Interrupted(DemoCase):
    def test_by_a_signal(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            demo = self.running()
            time.sleep(0.7)
            self.assertEqual(demo.end(number).code, 128 + number)
            self.gone()

    def test_at_once(self):
        demo = self.background('demo', env=self.env)
        demo.await_line('the seed is')
        self.assertEqual(demo.end(signal.SIGINT).code, 130)
        self.gone()

    def test_killed(self):
        """Its processes end with it, whatever ends it."""
        demo = self.running()
        time.sleep(0.7)
        demo.end(signal.SIGKILL)
        self.wait_until(lambda: not self.processes(), 'processes are left')

    def test_what_is_kept_is_kept(self):
        demo = self.running('--keep', self.path('kept'))
        demo.end(signal.SIGINT)
        self.assertTrue(os.path.exists(self.path('kept/bank.db')))


if __name__ == '__main__':
    main()
