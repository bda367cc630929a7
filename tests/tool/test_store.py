#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""semel serve with a store: opening it, keys, and a server that is killed and comes back."""

import os
import shutil
import signal
import unittest

from toolkit import STORES, ToolCase, main, needs_stores, semel


class WithoutStores(ToolCase):
    @unittest.skipIf(STORES, 'built with stores')
    def test_they_are_missed_in_so_many_words(self):
        self.check(semel('serve', 'unix:' + self.path('s'), '--store', self.store()), 2, b'',
                   'built without SQLite')
        self.check(semel('sessions', self.store()), 2, b'', 'built without SQLite')


class Usage(ToolCase):
    def refused(self, *args, words=()):
        self.check(semel('serve', 'unix:' + self.path('s'), *args), 2, b'', *words)

    def test_options_that_need_a_store(self):
        for option, value in (('--sql', 'a=SELECT 1'), ('--on-crash', 'a=rerun'),
                              ('--orphans', 'wait'), ('--key-retention', '1h')):
            self.refused('a=true' if option == '--on-crash' else 'b=true', option, value,
                         words=[option + ' needs --store'])
        self.refused('--adopt', words=['--adopt needs --store'])
        self.refused('--foreign-keys', words=['--foreign-keys needs --store'])

    def test_names_of_stores(self):
        for name, words in (('redis:x', 'sqlite:PATH'), ('sqlite:', 'no file'),
                            ('sqlite::memory:', 'no file'), ('', 'no file'),
                            ('sqlite:/nowhere/at/all', 'No such file')):
            self.refused('--store', name, words=['--store', words])
        self.refused('--store', self.store(), '--store', self.store(), words=['one is enough'])

    def test_settings(self):
        store = ['--store', self.store()]
        self.refused(*store, 'a=true', '--on-crash', 'a', words=['NAME=rerun'])
        self.refused(*store, 'a=true', '--on-crash', 'a=resolve', words=['NAME=rerun'])
        self.refused(*store, 'a=true', '--on-crash', 'b=rerun', words=["no method 'b'"])
        self.refused(*store, 'a=true', '--on-crash', 'a=rerun', '--idempotent', 'a',
                     words=['again'])
        self.refused(*store, '--sql', 'a=SELECT 1', '--on-crash', 'a=rerun', words=['SQL'])
        self.refused(*store, '--sql', 'a=SELECT 1', '--idempotent', 'a', words=['SQL'])
        self.refused(*store, '--orphans', 'ignore', words=['kill or wait'])
        self.refused(*store, '--key-retention', '7', words=['no unit'])
        self.refused(*store, '--session-idle', '4000d', words=['3650d'])
        self.refused(*store, '--body-limit', '1GiB', words=['512MiB'])
        self.assertFalse(os.path.exists(self.path('store.db')))


@needs_stores
class Opening(ToolCase):
    def serve_store(self, *args, **more):
        return self.serve('--store', self.store(), *args, **more)

    def refused(self, *words, args=()):
        outcome = semel('serve', 'unix:' + self.path('t'), '--store', self.store(), *args)
        self.check(outcome, 3, b'', *words)
        self.assertFalse(os.path.exists(self.path('t')))

    def test_in_use(self):
        server = self.serve_store()
        self.refused('in use', f'process {server.popen.pid}', 'stop it first')
        os.symlink(self.path('store.db'), self.path('link.db'))
        self.check(semel('serve', 'unix:' + self.path('t'), '--store', self.store('link.db')), 3,
                   b'', f'process {server.popen.pid}')
        self.check(semel('call', server.address, 'echo', 'x'), 0, b'x')

    def test_not_a_file(self):
        os.mkdir(self.path('store.db'))
        self.refused('store.db: ')

    def test_damaged(self):
        with open(self.path('store.db'), 'wb') as file:
            file.write(b'no database at all ' * 1000)
        self.refused('damaged', 'not a database', 'semel sessions STORE renew')

    def test_newer(self):
        self.serve_store().end(signal.SIGTERM)
        self.sql('UPDATE semel_store SET schema = 99')
        self.refused('newer', 'version 99', 'use the version of semel')

    def test_replaced(self):
        self.serve_store().end(signal.SIGTERM)
        os.remove(self.path('store.db'))
        self.refused('not the store that was here', '--adopt')
        server = self.serve('--store', self.store('other.db'))
        server.end(signal.SIGTERM)
        os.rename(self.path('other.db'), self.path('store.db'))
        self.refused('not the store that was here', '--adopt')
        adopted = self.serve_store('--adopt')
        self.check(semel('call', adopted.address, 'echo', 'x'), 0, b'x')

    def test_rolled_back(self):
        server = self.serve_store()
        self.check(semel('call', server.address, 'echo', 'x'), 0, b'x')
        server.end(signal.SIGTERM)
        shutil.copy(self.path('store.db'), self.path('copy.db'))
        server = self.serve_store()
        for _ in range(3):
            self.check(semel('call', server.address, 'echo', 'x'), 0, b'x')
        server.end(signal.SIGTERM)
        shutil.copy(self.path('copy.db'), self.path('store.db'))
        self.refused('older copy', 'rolled back', '--adopt')
        self.serve_store('--adopt').end(signal.SIGTERM)
        self.serve_store()  # and now it is the one that was here

    def test_damaged_inside(self):
        self.sql('CREATE TABLE semel_store (one)')
        self.refused('store.db')

    def test_usage_comes_before_anything_is_done(self):
        outcome = semel('serve', 'unix:' + self.path('s'), '--store', self.store(), 'a')
        self.check(outcome, 2, b'', 'NAME=COMMAND')
        self.assertEqual(os.listdir(self.directory), [])

    def test_an_address_that_is_taken(self):
        server = self.serve()
        outcome = semel('serve', server.address, '--store', self.store())
        self.check(outcome, 3, b'', 'address in use')

    def test_the_applications_database(self):
        self.sql('CREATE TABLE a (x); INSERT INTO a VALUES (5)')
        server = self.serve_store()
        self.check(semel('call', server.address, 'echo', 'x'), 0, b'x')
        self.assertEqual(self.look('SELECT x FROM a'), [(5,)])
        self.check(server.end(signal.SIGTERM), 0)
        self.assertEqual(self.sql('PRAGMA integrity_check'), [('ok',)])

    def test_summary(self):
        server = self.serve_store('-v', clean=False)
        self.check(semel('call', server.address, 'echo', 'x', '--key', 'k'), 0, b'x')
        self.check(semel('call', server.address, 'echo', 'x', '--key', 'k'), 0, b'x')
        self.check(semel('call', server.address, 'echo', 'y', '--key', 'k'), 4)
        self.check(server.end(signal.SIGTERM), 0, b'', 'store: ', 'commits',
                   'keys: 1 replayed, 1 mismatched')


@needs_stores
class Keys(ToolCase):
    COMMANDS = ['--store', 'charge=echo run >> runs; cat; echo " by $SEMEL_IDEMPOTENCY_KEY"',
                'refuse=echo run >> refusals; echo no >&2; exit 9']

    def serve_keys(self, *args):
        return self.serve(self.COMMANDS[0], self.store(),
                          *(word.replace('>> ', '>> ' + self.directory + '/')
                            for word in self.COMMANDS[1:]), *args)

    def call(self, server, *args):
        return semel('call', server.address, *args)

    def test_one_run_for_all_calls_with_a_key(self):
        server = self.serve_keys()
        for _ in range(3):
            self.check(self.call(server, 'charge', 'EUR 12', '--key', 'order-17'), 0,
                       b'EUR 12 by order-17\n')
        self.assertEqual(self.executions('runs'), 1)
        self.check(self.call(server, 'charge', 'EUR 12', '--key', 'order-18'), 0,
                   b'EUR 12 by order-18\n')
        self.check(self.call(server, 'charge', 'EUR 12'), 0, b'EUR 12 by \n')
        self.assertEqual(self.executions('runs'), 3)

    def test_they_outlive_the_server(self):
        server = self.serve_keys()
        self.check(self.call(server, 'charge', 'EUR 12', '--key', 'order-17'), 0)
        server.end(signal.SIGKILL)
        server = self.serve_keys('--drain', '50ms')
        self.check(self.call(server, 'charge', 'EUR 12', '--key', 'order-17'), 0,
                   b'EUR 12 by order-17\n')
        self.assertEqual(self.executions('runs'), 1)

    def test_other_contents(self):
        server = self.serve_keys()
        self.check(self.call(server, 'charge', 'EUR 12', '--key', 'order-17'), 0)
        outcome = self.call(server, 'charge', 'EUR 13', '--key', 'order-17', '-o', 'json')
        self.check(outcome, 4, None, 'same key, other contents')
        self.assertEqual(outcome.json()['status'], 'KEY_MISMATCH')
        self.assertEqual(self.executions('runs'), 1)

    def test_failures_are_kept_too(self):
        server = self.serve_keys()
        for _ in range(2):
            self.check(self.call(server, 'refuse', '--key', 'order-17'), 1, b'', 'no (code 9)')
        self.assertEqual(self.executions('refusals'), 1)

    def test_a_server_without_a_store_has_none(self):
        server = self.serve()
        outcome = self.call(server, 'echo', 'x', '--key', 'order-17', '-o', 'json')
        self.check(outcome, 4)
        self.assertEqual(outcome.json()['status'], 'NO_KEYS')

    def test_keys_that_are_none(self):
        for key in ('', 'a\nb', 'x' * 256):
            self.check(semel('call', 'unix:/x', 'm', '--key', key), 2, b'', '--key')

    def test_the_variable_is_not_inherited(self):
        environment = dict(os.environ, SEMEL_IDEMPOTENCY_KEY='outside', SEMEL_STORE='outside')
        server = self.background('serve', 'unix:' + self.path('s'), 'env=env', env=environment)
        server.await_line('listening at')
        out = semel('call', 'unix:' + self.path('s'), 'env').out
        self.assertNotIn(b'SEMEL_IDEMPOTENCY_KEY', out)
        # Without a store of its own the server is itself a program of another one's, maybe.
        self.assertIn(b'SEMEL_STORE=outside\n', out)


@needs_stores
class Restart(ToolCase):
    def test_a_command_that_ran_is_unknown(self):
        server = self.serve('--store', self.store(), f'long=echo $$ >> {self.path("pids")}; '
                            'exec sleep 1000')
        call = self.calling(server.address, 'long', '--timeout', '500s', '-o', 'json')
        self.pids()
        server.end(signal.SIGKILL)
        server = self.serve('--store', self.store(), 'long=true')
        outcome = call.end()
        self.check(outcome, 5, None, 'the server died while it ran')
        self.assertEqual(outcome.json()['status'], 'SERVER_DIED')

    def test_on_crash_rerun_has_the_same_key(self):
        pids, keys, first = self.path('pids'), self.path('keys'), self.path('first')
        command = ['--store', self.store(), '--on-crash', 'late=rerun',
                   f'late=echo $SEMEL_CALL_KEY $SEMEL_IDEMPOTENCY_KEY >> {keys}; '
                   f'if [ -e {first} ]; then echo again; exit; fi; echo > {first}; '
                   f'echo $$ >> {pids}; exec sleep 1000']
        server = self.serve(*command)
        call = self.calling(server.address, 'late', '--timeout', '500s', '--key', 'mine')
        self.pids()
        server.end(signal.SIGKILL)
        self.serve(*command)
        self.check(call.end(), 0, b'again\n')
        with open(keys, encoding='utf-8') as file:
            lines = file.read().split('\n')
        self.assertEqual(lines[0], lines[1])
        self.assertRegex(lines[0], '^[0-9a-f]{32} mine$')

    def test_idempotent_runs_again(self):
        pids, first = self.path('pids'), self.path('first')
        command = ['--store', self.store(), '--idempotent', 'late',
                   f'late=if [ -e {first} ]; then echo again; exit; fi; echo > {first}; '
                   f'echo $$ >> {pids}; exec sleep 1000']
        server = self.serve(*command)
        call = self.calling(server.address, 'late', '--timeout', '500s', '--rerun-ok')
        self.pids()
        server.end(signal.SIGKILL)
        self.serve(*command)
        self.check(call.end(), 0, b'again\n')

    def test_what_waited_runs_when_it_is_back(self):
        pids = self.path('pids')
        command = ['--store', self.store(), '--workers', '1',
                   f'long=echo $$ >> {pids}; exec sleep 1000', 'short=cat']
        server = self.serve(*command)
        long = self.calling(server.address, 'long', '--timeout', '500s')
        self.pids()
        short = self.calling(server.address, 'short', 'hello', '--timeout', '500s')
        server.end(signal.SIGKILL)
        self.serve(*command)
        self.check(short.end(), 0, b'hello')
        self.check(long.end(), 5)

    def test_each_command_runs_once_through_kills(self):
        """Commands are started at most once each, and what is a value was started."""
        command = ['--store', self.store(), '--workers', '4', '--kill-after', '0s',
                   f'add=echo $SEMEL_CALL_KEY >> {self.path("keys")}']
        server = self.serve(*command)
        bench = self.background('bench', server.address, 'add', '-t', '4', '-d', '1h', '--body',
                                'x', '--timeout', '500s', '-o', 'json')
        for _ in range(4):
            before = self.executions('keys')
            self.wait_until(lambda b=before: self.executions('keys') > b + 20, 'it stands still')
            server.end(signal.SIGKILL)
            server = self.serve(*command)
        figures = bench.end(signal.SIGINT).json()
        with open(self.path('keys'), encoding='utf-8') as file:
            keys = file.read().split('\n')[:-1]
        self.assertEqual(len(keys), len(set(keys)), 'run twice')
        values = figures['calls'] - figures['errors']
        self.assertEqual(figures['not_executed'] + figures['failures'], 0)
        self.assertLessEqual(figures['unknown'], 4 * 4)  # what ran at a kill
        self.assertTrue(values <= len(keys) <= values + figures['unknown'], figures)

    def test_nothing_leaks(self):
        server = self.serve('--store', self.store(), 'fds=ls /proc/self/fd', 'x=cat; exit 1')
        pid = server.popen.pid

        def descriptors():
            return len(os.listdir(f'/proc/{pid}/fd'))

        def children():
            with open(f'/proc/{pid}/task/{pid}/children', encoding='utf-8') as file:
                return file.read().split()

        self.check(semel('call', server.address, 'x'), 1)
        before = descriptors()
        for _ in range(20):
            self.check(semel('call', server.address, 'x', 'body'), 1)
        self.wait_until(lambda: not children(), 'a child is left')
        self.wait_until(lambda: descriptors() <= before, 'descriptors are left')
        # 3 is the store's, 4 is ls's own; whatever else this test was started with stays out.
        out = semel('call', server.address, 'fds').out.split()
        self.assertEqual([fd for fd in out if int(fd) < 10], [b'0', b'1', b'2', b'3', b'4'])


if __name__ == '__main__':
    main()
