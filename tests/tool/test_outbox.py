#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""semel call --outbox: calls that survive the command, and the command's end at any moment."""

import json
import os
import random
import signal
import subprocess
import time
import unittest

from toolkit import HANG, STORES, TOOL, ToolCase, main, needs_stores, semel


class WithoutStores(ToolCase):
    @unittest.skipIf(STORES, 'built with stores')
    def test_they_are_missed_in_so_many_words(self):
        self.check(semel('call', '--outbox', self.path('o'), 'unix:/x', 'm'), 2, b'',
                   'built without SQLite')


class Usage(ToolCase):
    def refused(self, *args, words=()):
        self.check(semel('call', '--outbox', self.path('o'), *args), 2, b'', *words)
        self.assertFalse(os.path.exists(self.path('o')))

    def test_options_that_contradict(self):
        self.refused('unix:/x', 'm', '--rerun-ok', words=['--rerun-ok', 'never runs twice'])
        self.refused('unix:/x', 'm', '--refuse-when-full', words=['--refuse-when-full'])
        self.refused('unix:/x', 'm', '--connect-timeout', '1s', words=['--connect-timeout'])
        self.refused('unix:/x', '--key', 'k', words=['--key', 'METHOD'])
        self.refused(words=['address is needed'])
        self.refused('unix:/x', 'm', '--timeout', '0s', words=['too short'])

    def test_names_that_are_no_files(self):
        for name in ('', ':memory:', 'redis:x'):
            self.check(semel('call', '--outbox', name, 'unix:/x', 'm'), 2, b'', '--outbox')


@needs_stores
class OutboxCase(ToolCase):
    """Commands of a server that count their runs by key."""

    def setUp(self):
        super().setUp()
        self.address = 'unix:' + self.path('s')

    def up(self, *args):
        runs = self.path('runs')
        return self.serve('--store', self.store(), '--kill-after', '0s',
                          f'echo=cat; echo $SEMEL_IDEMPOTENCY_KEY >> {runs}',
                          f'slow=cat; sleep 0.05; echo $SEMEL_IDEMPOTENCY_KEY >> {runs}',
                          'refuse=echo no >&2; exit 9', *args)

    def runs(self):
        if not os.path.exists(self.path('runs')):
            return []
        with open(self.path('runs'), encoding='utf-8') as file:
            return file.read().split()

    def command(self, *args, name='o'):
        return ['call', '--outbox', self.path(name), self.address, *args]

    def call(self, *args, **more):
        return semel(*self.command(*args), **more)

    def flush(self, *args):
        """All results of the file, by key."""
        outcome = self.call('-o', 'json', *args)
        results = [json.loads(line) for line in outcome.out.splitlines()]
        return outcome.code, {result['key']: result for result in results}


class One(OutboxCase):
    def test_value(self):
        self.up()
        self.check(self.call('echo', 'hello', '--key', 'k'), 0, b'hello')
        self.check(self.call('echo', '-', '--key', 'b', stdin=bytes(range(256))), 0,
                   bytes(range(256)))
        self.assertEqual(self.runs(), ['k', 'b'])
        self.assertEqual(self.flush(), (0, {}))

    def test_again_it_is_the_same(self):
        self.up()
        for _ in range(3):
            self.check(self.call('echo', 'hello', '--key', 'k'), 0, b'hello')
            self.check(self.call('refuse', '--key', 'k'), 1, b'', 'no (code 9)')
        self.assertEqual(self.runs(), ['k'])

    def test_without_a_key_each_is_its_own(self):
        self.up()
        for _ in range(2):
            self.check(self.call('echo', 'hello'), 0, b'hello')
        keys = self.runs()
        self.assertEqual(len(set(keys)), 2)
        self.assertRegex(keys[0], '^[0-9a-f]{32}$')

    def test_json(self):
        self.up()
        value = self.call('echo', 'hello', '--key', 'k', '-o', 'json').json()
        self.assertEqual((value['outcome'], value['key'], value['method'], value['body']),
                         ('value', 'k', 'echo', 'hello'))
        failure = self.call('refuse', '--key', 'k', '-o', 'json').json()
        self.assertEqual((failure['outcome'], failure['code'], failure['text']),
                         ('failure', 9, 'no'))

    def test_other_contents(self):
        self.up()
        self.check(self.call('echo', 'hello', '--key', 'k'), 0)
        self.check(self.call('echo', 'other', '--key', 'k'), 4, b'', 'same key, other contents')
        self.check(self.call('refuse', '--timeout', '50s', '--key', 'k'), 1)

    def test_other_contents_than_in_the_file(self):
        self.check(self.call('echo', 'hello', '--key', 'k', '--timeout', '200ms'), 5)
        self.check(self.call('echo', 'other', '--key', 'k'), 4, b'', 'same key, other contents')
        self.up()
        self.check(self.call('echo', 'hello', '--key', 'k'), 0, b'hello')

    def test_a_bad_method_is_not_kept(self):
        self.up()
        self.check(self.call('m' * 300), 2, b'', '255 bytes')
        self.check(self.call('nix'), 8, b'', 'no such method')
        self.assertEqual(self.flush(), (0, {}))

    def test_a_server_without_a_store(self):
        self.serve()
        outcome = self.call('echo', 'x', '-o', 'json')
        self.check(outcome, 4)
        self.assertEqual(outcome.json()['status'], 'NO_KEYS')
        self.assertEqual(self.flush(), (0, {}))

    def test_results_of_others_stay(self):
        for key in 'abc':
            self.check(self.call('echo', 'body ' + key, '--key', key, '--timeout', '200ms'), 5)
        self.up()
        self.check(self.call('echo', 'body b', '--key', 'b'), 0, b'body b')
        self.wait_until(lambda: len(self.runs()) == 3, 'the others were not carried out')
        code, results = self.flush()
        self.assertEqual(code, 0)
        self.assertEqual({key: result['body'] for key, result in results.items()},
                         {'a': 'body a', 'c': 'body c'})
        self.assertEqual(sorted(self.runs()), ['a', 'b', 'c'])
        self.assertEqual(self.flush(), (0, {}))

    def test_output_that_cannot_be_written_is_not_accepted(self):
        self.up()
        with open('/dev/full', 'wb') as full:
            done = subprocess.run([TOOL, *self.command('echo', 'hello', '--key', 'k')],
                                  stdout=full, stderr=subprocess.PIPE, timeout=HANG, check=False)
        self.assertEqual(done.returncode, 5, done.stderr)
        self.assertIn(b'could not be written', done.stderr)
        self.assertIn(b'still in', done.stderr)
        code, results = self.flush()
        self.assertEqual((code, list(results)), (0, ['k']))
        self.assertEqual(self.runs(), ['k'])

    def test_no_result_in_time(self):
        outcome = self.call('echo', 'hello', '--key', 'k', '--timeout', '300ms')
        self.check(outcome, 5, b'', 'no result', 'no such socket', 'still in',
                   'run the same command again')
        outcome = self.call('echo', 'hello', '--timeout', '300ms')
        key = outcome.err.split('--key ')[1].split()[0]
        self.up()
        self.check(self.call('echo', 'hello', '--key', 'k'), 0, b'hello')
        self.check(self.call('echo', 'hello', '--key', key), 0, b'hello')
        self.assertEqual(sorted(self.runs()), sorted(['k', key]))

    def test_interrupted(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            key = f'k{number}'
            call = self.background(*self.command('echo', 'hello', '--key', key, '-v'))
            call.await_line('posted')
            self.check(call.end(number), 5, b'', 'still in', 'run the same command again')
        self.up()
        for number in (signal.SIGINT, signal.SIGTERM):
            self.check(self.call('echo', 'hello', '--key', f'k{number}'), 0, b'hello')
        self.assertEqual(len(self.runs()), 2)


class All(OutboxCase):
    def fill(self, *keys, method='echo'):
        for key in keys:
            self.check(self.call(method, 'body ' + key, '--key', key, '--timeout', '100ms'), 5)

    def test_a_file_that_is_not_there(self):
        self.check(self.call(), 3, b'', 'No such file', 'no outbox')
        self.assertFalse(os.path.exists(self.path('o')))

    def test_text(self):
        self.fill('a')
        self.fill('b\u00a7', method='refuse')
        self.up()
        outcome = self.call()
        self.check(outcome, 1)
        self.assertEqual(sorted(outcome.out.decode().splitlines()),
                         ['a echo: value: body a', 'b\u00a7 refuse: failure: no (code 9)'])
        self.check(self.call(), 0, b'')

    def test_not_all_in_time(self):
        self.fill('a', 'b')
        self.check(self.call('--timeout', '300ms'), 5, b'', '2 calls without a result',
                   'no such socket', 'still in')
        self.up()
        self.assertEqual(sorted(self.flush()[1]), ['a', 'b'])

    def test_progress(self):
        self.fill('a')
        flush = self.background(*self.command())
        flush.await_line('0 done, 1 outstanding')
        self.up()
        self.check(flush.end(), 0, b'a echo: value: body a\n')

    def test_output_that_cannot_be_written_is_not_accepted(self):
        self.fill('a', 'b')
        self.up()
        with open('/dev/full', 'wb') as full:
            done = subprocess.run([TOOL, *self.command()], stdout=full, stderr=subprocess.PIPE,
                                  timeout=HANG, check=False)
        self.assertEqual(done.returncode, 5, done.stderr)
        self.assertEqual(sorted(self.flush()[1]), ['a', 'b'])
        self.assertEqual(sorted(self.runs()), ['a', 'b'])

    def test_many(self):
        def post(number):
            return subprocess.Popen([TOOL, *self.command('echo', 'x', '--key', f'k{number}',
                                                         '--timeout', '100ms')],
                                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        for number in range(20):
            self.assertEqual(post(number).wait(HANG), 5)
        self.up()
        code, results = self.flush()
        self.assertEqual((code, len(results)), (0, 20))
        self.assertEqual(len(self.runs()), 20)


class Killed(OutboxCase):
    def test_the_command_at_any_moment(self):
        """kill -9 after anything from nothing to longer than the call takes; then once more."""
        self.up()
        chance = random.Random(7)
        for number in range(24):
            command = self.command('slow', f'body {number}', '--key', f'k{number}')
            killed = subprocess.Popen([TOOL, *command], stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL)
            time.sleep(chance.uniform(0, 0.15))
            killed.kill()
            killed.wait(HANG)
            self.check(semel(*command), 0, b'body %d' % number)
        self.assertEqual(sorted(self.runs()), sorted(f'k{number}' for number in range(24)))
        self.assertEqual(self.flush(), (0, {}))

    def test_the_command_that_carries_out_all(self):
        keys = [f'k{number}' for number in range(8)]
        for key in keys:
            self.check(self.call('slow', 'x', '--key', key, '--timeout', '50ms'), 5)
        self.up('--workers', '2')
        printed = []
        for _ in range(4):
            killed = subprocess.Popen([TOOL, *self.command()], stdout=subprocess.PIPE,
                                      stderr=subprocess.DEVNULL)
            time.sleep(0.1)
            killed.kill()
            printed += killed.communicate(timeout=HANG)[0].decode().splitlines()
        printed += self.call().out.decode().splitlines()
        # What was printed but not accepted is printed again; nothing is missing.
        self.assertEqual({line.split()[0] for line in printed}, set(keys))
        self.assertEqual(sorted(self.runs()), keys)

    def test_the_server_in_between(self):
        """A command that ran is unknown; SQL, and what waited, run once."""
        self.sql('CREATE TABLE a (x)')
        pids = self.path('pids')
        more = ('--workers', '1', f'long=echo $$ >> {pids}; exec sleep 1000',
                '--sql', 'add=INSERT INTO a VALUES (:x)')
        server = self.up(*more)
        long = self.background(*self.command('long', '--key', 'l', '--timeout', '500s'))
        self.pids()
        echo = self.background(*self.command('echo', 'x', '--key', 'e', '--timeout', '500s',
                                             name='p'))
        server.end(signal.SIGKILL)
        add = self.background(*self.command('add', '{"x":5}', '--key', 'a', '--timeout', '500s',
                                            name='q'))
        self.up(*more)
        self.check(long.end(), 5, b'', 'the server died while it ran')
        self.check(echo.end(), 0, b'x')
        self.check(add.end(), 0, b'{"changes":1}')
        self.assertEqual(self.look('SELECT x FROM a'), [(5,)])
        self.check(self.call('long', '--key', 'l'), 5, b'', 'the server died while it ran')

    def test_both_again_and_again(self):
        more = ('--sql', 'add=INSERT INTO a VALUES (:x)')
        self.sql('CREATE TABLE a (x)')
        server = self.up(*more)
        chance = random.Random(8)
        for number in range(10):
            command = self.command('add', f'{{"x":{number}}}', '--key', f'k{number}')
            killed = subprocess.Popen([TOOL, *command], stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL)
            time.sleep(chance.uniform(0, 0.03))
            server.end(signal.SIGKILL)
            time.sleep(chance.uniform(0, 0.03))
            killed.kill()
            killed.wait(HANG)
            server = self.up(*more)
            self.check(semel(*command), 0, b'{"changes":1}')
        self.assertEqual(self.look('SELECT x FROM a'), [(number,) for number in range(10)])


class Files(OutboxCase):
    def test_in_use(self):
        one = self.background(*self.command('echo', 'x', '--key', 'k', '-v'))
        one.await_line('posted')
        self.check(self.call('echo', 'y'), 3, b'', 'in use', f'process {one.popen.pid}')
        os.symlink(self.path('o'), self.path('link'))
        self.check(semel(*self.command('echo', 'y', name='link')), 3, b'', 'in use')
        self.up()
        self.check(one.end(), 0, b'x')

    def test_damaged(self):
        with open(self.path('o'), 'wb') as file:
            file.write(b'no database at all ' * 1000)
        self.check(self.call('echo', 'x'), 3, b'', 'damaged', self.path('o'), 'put a copy')

    def test_newer(self):
        self.check(self.call('echo', 'x', '--timeout', '50ms'), 5)
        self.sql('UPDATE semel_outbox SET schema = 99', name='o')
        self.check(self.call('echo', 'x'), 3, b'', 'newer', 'use the version of semel')

    def test_a_folder_that_is_not_there(self):
        self.check(semel('call', '--outbox', self.path('no/o'), self.address, 'm'), 2, b'',
                   'No such file')

    @unittest.skipIf(os.geteuid() == 0, 'root may write everything')
    def test_read_only(self):
        self.check(self.call('echo', 'x', '--timeout', '50ms'), 5)
        os.chmod(self.path('o'), 0o444)
        self.check(self.call('echo', 'x'), 3, b'', 'cannot be written')

    @unittest.skipUnless(os.geteuid() == 0, 'only root may mount')
    def test_full(self):
        os.mkdir(self.path('small'))
        made = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=512k', 'tmpfs',
                               self.path('small')], stderr=subprocess.DEVNULL, check=False)
        if made.returncode:
            self.skipTest('nothing can be mounted here')
        self.addCleanup(subprocess.run, ['umount', self.path('small')], check=True)
        self.up()
        body = bytes(600 << 10)
        self.check(semel(*self.command('echo', '-', name='small/o'), stdin=body), 3, b'',
                   'no space left', 'make room')
        self.check(semel(*self.command('echo', 'x', name='small/o')), 0, b'x')


if __name__ == '__main__':
    main()
