#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""semel sessions: what a store holds, beside a server and without one."""

import json
import os
import shutil
import signal

from toolkit import ToolCase, main, needs_stores, semel


class Usage(ToolCase):
    def test_it(self):
        def refused(*args, words):
            self.check(semel('sessions', *args), 2, b'', words)

        refused(words='a store is needed')
        refused('redis:x', words='sqlite:PATH')
        refused(self.store(), 'delete', words="'delete' is not list")
        refused(self.store(), 'show', words='needs the ID')
        refused(self.store(), 'forget', words='needs the ID')
        refused(self.store(), 'list', 'ab', words='takes no ID')
        refused(self.store(), 'renew', 'ab', words='takes no ID')
        refused(self.store(), 'show', 'xyz', words='not the ID')
        refused(self.store(), 'show', '', words='not the ID')
        refused(self.store(), 'show', 'a' * 33, words='not the ID')
        refused(self.store(), 'show', 'ab', 'cd', words='too many')


@needs_stores
class Sessions(ToolCase):
    def sessions(self, *args):
        return semel('sessions', self.store(), *args)

    def lines(self, *args):
        outcome = self.sessions(*args, '-o', 'json')
        self.check(outcome, 0)
        return [json.loads(line) for line in outcome.out.decode().split('\n')[:-1]]

    def serve_store(self, *args, **more):
        # Nobody will come for what is left: a drain would wait for that.
        return self.serve('--store', self.store(), '--drain', '50ms', *args, **more)

    def leave(self, server, *args):
        """A client that disappears while its call runs."""
        def started():
            return len([line for line in self.lines() if line['started'] == 1])

        before = started()
        call = self.calling(server.address, *args, '--timeout', '500s')
        self.wait_until(lambda: started() > before, 'it never ran')
        call.end(signal.SIGKILL)

    def leave_ended(self, server, method, *args):
        """The same, when its call has a verdict."""
        before = len([line for line in self.lines() if line['ended'] == 1])
        go = self.path('go')
        if os.path.exists(go):
            os.remove(go)
        self.leave(server, method, *args)
        with open(go, 'w', encoding='utf-8'):
            pass
        self.wait_until(lambda: len([line for line in self.lines() if line['ended'] == 1]) > before,
                        'it never ended')

    def slow(self, command):
        """A command that waits until its caller has gone."""
        return f'while [ ! -e {self.path("go")} ]; do sleep 0.02; done; {command}'

    def test_no_store(self):
        for args in ((), ('renew',), ('forget', 'ab'), ('poisoned',)):
            self.check(self.sessions(*args), 3, b'', 'store.db')
        self.assertEqual(os.listdir(self.directory), [])
        self.sql('CREATE TABLE a (x)')
        for args in ((), ('renew',), ('forget', 'ab')):
            self.check(self.sessions(*args), 3, b'', 'there is no store in it')
        self.assertEqual(self.sql("SELECT name FROM sqlite_schema"), [('a',)])

    def test_list_and_show_beside_a_server(self):
        server = self.serve_store('good=' + self.slow('printf "a reply"'),
                                  'bad=' + self.slow('echo "no \033[1m paper" >&2; exit 3'),
                                  'long=sleep 1000', '--kill-after', '0s')
        self.check(self.sessions(), 0)
        self.assertEqual(self.lines(), [])
        self.leave_ended(server, 'good', 'x', '--key', 'order 17')
        self.leave_ended(server, 'bad')
        call = self.calling(server.address, 'long', '--timeout', '500s')
        self.wait_until(lambda: any(line['started'] for line in self.lines()), 'it never began')
        found = self.lines()
        self.assertEqual([(line['calls'], line['started'], line['ended'], line['waiting'],
                           line['bytes'], line['connections'], line['uid']) for line in found],
                         [(1, 0, 1, 0, 7, 1, os.getuid()), (1, 0, 1, 0, 0, 1, os.getuid()),
                          (1, 1, 0, 0, 0, 1, os.getuid())])
        table = self.sessions('list').out.decode().split('\n')
        self.assertEqual(table[0].split()[:3], ['SESSION', 'UID', 'CALLS'])
        self.assertEqual(table[1].split(), [found[0]['session'], str(os.getuid()), '1', '0', '1',
                                            '0', '7', '1'])
        good, bad, long = (self.lines('show', line['session'])[0] for line in found)
        self.assertEqual(good['session'], found[0]['session'])
        self.assertEqual(good['open'], [{'call': 1, 'method': 'good', 'key': 'order 17',
                                         'state': 'ended', 'crashes': 0, 'outcome': 'value',
                                         'status': 'OK', 'body': 'a reply'}])
        self.assertEqual((bad['open'][0]['code'], bad['open'][0]['text']), (3, 'no ?[1m paper'))
        self.assertEqual((long['open'][0]['state'], long['open'][0]['method']), ('started', 'long'))
        text = self.sessions('show', found[0]['session']).out.decode()
        self.assertIn('good, key order 17: value of 7 bytes\n', text)
        text = self.sessions('show', found[1]['session'][:12]).out.decode()
        self.assertIn('bad: failure: the handler reported failure, code 3: no ?[1m paper\n', text)
        self.assertEqual(self.lines('poisoned'), [])
        self.check(self.sessions('show', found[0]['session'][:31] + 'x'), 2)
        call.end(signal.SIGKILL)

    def test_forget(self):
        server = self.serve_store('good=' + self.slow('printf "a reply"'))
        for body in ('x', 'y'):
            self.leave_ended(server, 'good', body)
        first, second = (line['session'] for line in self.lines())
        outcome = self.sessions('forget', first)
        self.check(outcome, 3, b'', 'in use', f'process {server.popen.pid}')
        server.end(signal.SIGTERM)
        self.check(self.sessions('forget', first[:31]), 0, b'',
                   'forgot session ' + first + ' and its 1 call\n')
        self.check(self.sessions('forget', first), 1, b'', 'no session ' + first)
        self.check(self.sessions('show', first), 1, b'', 'no session ' + first)
        self.assertEqual([line['session'] for line in self.lines()], [second])
        self.assertEqual(self.lines('forget', second), [{'forgotten': second}])
        self.assertEqual(self.lines(), [])
        self.assertEqual(self.sql('SELECT count(*) FROM semel_call'), [(0,)])

    def test_ids_that_fit_several(self):
        server = self.serve_store('good=' + self.slow('true'), '--workers', '20')
        for _ in range(17):  # of 17, two begin with the same digit
            self.leave(server, 'good')
        with open(self.path('go'), 'w', encoding='utf-8'):
            pass
        self.wait_until(lambda: len([line for line in self.lines() if line['ended']]) == 17, 'ends')
        server.end(signal.SIGTERM)
        ids = [line['session'] for line in self.lines()]
        digits = [found[0] for found in ids]
        twice = next(digit for digit in digits if digits.count(digit) > 1)
        self.check(self.sessions('show', twice), 2, b'', f'sessions begin with {twice}')
        self.check(self.sessions('forget', twice), 2, b'', f'sessions begin with {twice}')
        self.assertEqual(len(self.lines()), 17)

    def test_a_forgotten_client_is_told(self):
        command = ['long=' + f'echo $$ >> {self.path("pids")}; exec sleep 1000']
        server = self.serve_store(*command)
        call = self.calling(server.address, 'long', '--timeout', '500s', '-o', 'json')
        self.pids()
        server.end(signal.SIGKILL)
        session, = (line['session'] for line in self.lines())
        self.check(self.sessions('forget', session), 0)
        self.serve_store(*command)
        outcome = call.end()
        self.check(outcome, 5)
        self.assertEqual(outcome.json()['status'], 'SESSION_LOST')

    def test_renew(self):
        server = self.serve_store('good=' + self.slow('printf "a reply"'))
        self.leave_ended(server, 'good', '--key', 'k')
        self.check(self.sessions('renew'), 3, b'', 'in use', f'process {server.popen.pid}')
        server.end(signal.SIGTERM)
        shutil.copy(self.path('store.db'), self.path('copy.db'))
        first = self.lines('renew')[0]['generation']
        self.assertGreater(first, 1)
        self.check(self.sessions('renew', '-q'), 0, b'')
        self.assertEqual(self.lines(), [])
        # An old copy: refused as it is, and renewed once, not twice, to what was never there.
        shutil.copy(self.path('copy.db'), self.path('store.db'))
        self.check(semel('serve', 'unix:' + self.path('t'), '--store', self.store()), 3, b'',
                   'older copy')
        self.assertEqual(len(self.lines()), 1)
        self.assertGreater(self.lines('renew')[0]['generation'], first)
        self.assertEqual(self.lines(), [])
        server = self.serve_store('good=exit 1')
        outcome = semel('call', server.address, 'good', '--key', 'k')
        self.check(outcome, 0, b'a reply')  # keys stay


@needs_stores
class Poisoned(ToolCase):
    def committing(self, server):
        """The CPU time of the server's thread that runs SQL, in ticks."""
        folder = f'/proc/{server.popen.pid}/task'
        for task in os.listdir(folder):
            with open(f'{folder}/{task}/stat', encoding='utf-8') as file:
                name, rest = file.read().rsplit(')', 1)
            if name.endswith('(semel-commit'):
                return int(rest.split()[11])
        return 0

    def test_a_call_that_the_server_dies_of(self):
        store = ['--store', self.store(), '--drain', '50ms',
                 '--sql', 'one=SELECT 1 AS one', '--sql', 'forever=WITH RECURSIVE c(n) AS '
                 '(SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) AS n FROM c']
        server = self.serve(*store)
        call = self.calling(server.address, 'forever', '--timeout', '500s', '--key', 'k')
        for died in (1, 2, 3):
            self.wait_until(lambda s=server: self.committing(s) >= 10, 'it never ran')
            if died == 3:
                call.signal(signal.SIGKILL)  # so that nobody accepts the verdict
            server.end(signal.SIGKILL)
            if died < 3:
                server = self.serve(*store)
                line, = self.lines()
                self.assertEqual((line['waiting'], line['started']), (1, 0))
                shown, = self.lines('show', line['session'])
                self.assertEqual((shown['open'][0]['state'], shown['open'][0]['crashes']),
                                 ('waiting', died))
        call.end()
        server = self.serve(*store)
        found, = self.lines('poisoned')
        names = ('method', 'key', 'crashes', 'status', 'outcome')
        self.assertEqual([found[name] for name in names],
                         ['forever', 'k', 3, 'POISONED', 'not executed'])
        text = semel('sessions', self.store(), 'poisoned').out.decode()
        self.assertIn(found['session'], text)
        self.assertIn('forever, key k, the server died of it 3 times: not executed', text)
        self.check(semel('call', server.address, 'one'), 0, b'[{"one":1}]')

    def lines(self, *args):
        outcome = semel('sessions', self.store(), *args, '-o', 'json')
        self.check(outcome, 0)
        return [json.loads(line) for line in outcome.out.decode().split('\n')[:-1]]


if __name__ == '__main__':
    main()
