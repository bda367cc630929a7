#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""semel list, describe, ps and cancel: a server from inside."""

import json
import os
import signal
import socket
import threading

from toolkit import TOOL, ToolCase, main, needs_jansson, needs_stores, semel, subprocess, unittest


class Looking(ToolCase):
    def lines(self, *args):
        outcome = semel(*args, '-o', 'json')
        self.check(outcome, 0)
        return [json.loads(line) for line in outcome.out.decode().split('\n')[:-1]]

    def states(self, server):
        return [line['state'] for line in self.lines('ps', server.address)]

    def two_calls(self, *options):
        """A server with one worker, a call that runs on it, one that waits; and their ids."""
        server = self.serve('long=exec sleep 500', 'never=true', '--workers', '1', '--kill-after',
                            '0s', *options)
        running = self.calling(server.address, 'long', '--timeout', '500s')
        self.wait_until(lambda: self.states(server) == ['running'], 'it never ran')
        waiting = self.calling(server.address, 'never', '--timeout', '500s')
        self.wait_until(lambda: len(self.states(server)) == 2, 'it never waited')
        return server, running, waiting, [line['id'] for line in self.lines('ps', server.address)]


def rewriting(case, server, words):
    """An address before the server's, where words of the server are replaced by others as long."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(case.path('older'))
    listener.listen()
    case.addCleanup(listener.close)

    def pump(source, sink, words):
        while data := source.recv(1 << 20):
            for old, new in words.items():
                data = data.replace(old, new)
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)

    def accept():
        while True:
            try:
                near = listener.accept()[0]
            except OSError:
                return
            case.addCleanup(near.close)
            far = socket.socket(socket.AF_UNIX)
            case.addCleanup(far.close)
            far.connect(server.address[len('unix:'):])
            for ends in ((near, far, {}), (far, near, words)):
                threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return 'unix:' + case.path('older')


@needs_jansson
class Methods(Looking):
    def test_list(self):
        server = self.serve('b=true', 'a=true', '--limit', 'a=3', '--max-run', 'a=1500ms',
                            '--idempotent', 'b', '--describe', 'a=Does it,\nat once.',
                            '--describe', 'b=\x1b[1mbold')
        outcome = semel('list', server.address)
        self.check(outcome, 0)
        lines = outcome.out.decode().split('\n')
        self.assertEqual(lines[0].split(), ['METHOD', 'KIND', 'STREAMS', 'LIMIT', 'MAX-RUN',
                                            'DESCRIPTION'])
        self.assertEqual(lines[1].split(), ['a', 'once', '-', '3', '1.5s', 'Does', 'it,'])
        self.assertEqual(lines[2].split(), ['b', 'idempotent', '-', '-', '-', '\\x1b[1mbold'])
        self.assertEqual(lines[3:], [''])
        self.assertEqual(self.lines('list', server.address)[0],
                         {'name': 'a', 'kind': 'once', 'on_crash': 'unknown', 'limit': 3,
                          'max_run_ms': 1500, 'takes_items': False, 'gives_items': False,
                          'reserved': False,
                          'describe': 'Does it,\nat once.'})
        names = [line['name'] for line in self.lines('list', server.address, '--all')]
        self.assertEqual(names, ['a', 'b', 'semel.calls', 'semel.cancel', 'semel.counters',
                                 'semel.describe', 'semel.methods', 'semel.reverse'])

    def test_describe(self):
        server = self.serve('a=true', '--describe', 'a=Does it,\nat once.', '--limit', 'a=2')
        self.check(semel('describe', server.address, 'a'), 0,
                   b'a\n  Does it,\n  at once.\n'
                   b'  kind: once (never runs twice; unknown if the server dies while it runs)\n'
                   b'  limit: 2 at once\n')
        found, = self.lines('describe', server.address, 'semel.calls')
        self.assertTrue(found['reserved'])
        self.check(semel('describe', server.address, 'b'), 8, b'',
                   f'semel describe: {server.address}: no such method: b\n')

    def test_streams(self):
        server = self.serve('a=true', 'b=cat', '--stream', 'b')
        lines = semel('list', server.address, '--all').out.decode().split('\n')
        streams = {line.split()[0]: line.split()[2] for line in lines[1:-1]}
        self.assertEqual([streams[name] for name in ('a', 'b', 'semel.calls', 'semel.reverse')],
                         ['-', 'both', '-', 'both'])
        found = {line['name']: (line['takes_items'], line['gives_items'])
                 for line in self.lines('list', server.address)}
        self.assertEqual(found, {'a': (False, False), 'b': (True, True)})
        words = b'  takes a stream: its callers may send items\n' \
                b'  gives a stream: it sends items before its reply\n'
        self.assertIn(words, semel('describe', server.address, 'b').out)
        self.assertNotIn(b'stream', semel('describe', server.address, 'a').out)

    def test_a_server_that_says_nothing_of_streams(self):
        server = self.serve('a=true', 'b=cat', '--stream', 'b')
        older = rewriting(self, server, {b'"takes_items"': b'"tokes_items"',
                                         b'"gives_items"': b'"goves_items"'})
        outcome = semel('list', older)
        self.check(outcome, 0)
        self.assertEqual([line.split()[:3] for line in outcome.out.decode().split('\n')[1:-1]],
                         [['a', 'once', '?'], ['b', 'once', '?']])
        outcome = semel('describe', older, 'b')
        self.check(outcome, 0)
        self.assertNotIn(b'stream', outcome.out)

    @needs_stores
    def test_kinds(self):
        server = self.serve('a=true', 'b=true', '--store', self.store(), '--sql', 's=SELECT 1',
                            '--on-crash', 'a=rerun', '--idempotent', 'b')
        kinds = {line['name']: (line['kind'], line.get('on_crash'))
                 for line in self.lines('list', server.address)}
        self.assertEqual(kinds, {'a': ('once', 'rerun'), 'b': ('idempotent', None),
                                 's': ('transactional', None)})
        for method, words in (('a', b'runs again, with its key'), ('b', b'may run again'),
                              ('s', b'exactly once')):
            self.assertIn(words, semel('describe', server.address, method).out)

    def test_builtins_say_what_they_do(self):
        server = self.serve()
        for line in self.lines('list', server.address):
            self.assertTrue(line['describe'], line)

    def test_servers_that_are_not_there_or_show_nothing(self):
        nowhere = 'unix:' + self.path('none')
        closed = self.serve('--inspect', 'none')
        for args in (['list'], ['describe', 'echo'], ['ps'], ['cancel', '1234.1']):
            self.check(semel(args[0], nowhere, *args[1:]), 3, b'', 'not sent')
            self.check(semel(args[0], closed.address, *args[1:]), 8, b'', '--inspect none')

    def test_output_that_cannot_be_written(self):
        server = self.serve()
        for args in (['list'], ['describe', 'echo'], ['ps']):
            with open('/dev/full', 'wb') as full:
                done = subprocess.run([TOOL, args[0], server.address, *args[1:]], stdout=full,
                                      stderr=subprocess.PIPE, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn(b'could not be written', done.stderr)


    def test_the_body_limit_is_not_for_the_list(self):
        server = self.serve('a=cat', '--body-limit', '64')
        self.assertEqual([line['name'] for line in self.lines('list', server.address)], ['a'])
        self.assertEqual(self.lines('ps', server.address), [])
        self.check(semel('call', server.address, 'a', 'x' * 65), 4, b'')


@needs_jansson
class Processes(Looking):
    def processes(self, server):
        return self.lines('ps', server.address, '--processes')

    def test_ps(self):
        server = self.serve('--procs', '2', 'nap=exec sleep 500', 'die=kill -9 $PPID',
                            '--kill-after', '0s')
        self.wait_until(lambda: [p['state'] for p in self.processes(server)] == ['ready'] * 2,
                        'they never came up')
        first, second = self.processes(server)
        self.assertEqual([first['place'], second['place']], [0, 1])
        self.assertEqual((first['running'], first['calls'], first['restarts']), (0, 0, 0))
        call = self.calling(server.address, 'nap', '--timeout', '500s')
        self.wait_until(lambda: sorted(p['running'] for p in self.processes(server)) == [0, 1],
                        'it never ran')
        busy = next(p['pid'] for p in self.processes(server) if p['running'])
        self.check(semel('call', server.address, 'die'), 5)
        self.wait_until(lambda: [p['state'] for p in self.processes(server)] == ['ready'] * 2,
                        'none came after it')
        died, = [p for p in self.processes(server) if p['pid'] != busy]
        old, = {first['pid'], second['pid']} - {busy}
        self.assertEqual((died['restarts'], died['last_pid'], died['last_exit']),
                         (1, old, 'was killed by signal 9 (SIGKILL)'))
        lines = semel('ps', server.address, '--processes').out.decode().split('\n')
        self.assertEqual(lines[0].split(), ['PLACE', 'PID', 'STATE', 'RUNNING', 'CALLS',
                                            'RESTARTS', 'AGE', 'LAST-END'])
        line = lines[1 + died['place']].split()
        self.assertEqual(line[:3], [str(died['place']), str(died['pid']), 'ready'])
        self.assertEqual((line[3], line[5]), ('0', '1'))
        self.assertIn('was killed by signal 9 (SIGKILL)', lines[1 + died['place']])
        call.end(signal.SIGINT)

    def test_top(self):
        server = self.serve('--procs', '2', 'a=true')
        sample, = self.lines('top', server.address, '--interval', '10ms')
        self.assertEqual([p['place'] for p in sample['processes']], [0, 1])

    def test_none(self):
        server = self.serve()
        self.check(semel('ps', server.address, '--processes'), 0, b'', 'do not run in worker')
        sample, = self.lines('top', server.address, '--interval', '10ms')
        self.assertNotIn('processes', sample)


@needs_jansson
class Calls(Looking):
    def test_ps(self):
        server, running, waiting, ids = self.two_calls()
        outcome = semel('ps', server.address)
        self.check(outcome, 0)
        lines = [line.split() for line in outcome.out.decode().split('\n')]
        self.assertEqual(lines[0], ['ID', 'STATE', 'AGE', 'LEFT', 'UID', 'METHOD', 'PEER'])
        self.assertEqual([lines[1][i] for i in (0, 1, 4, 5)],
                         [ids[0], 'running', str(os.getuid()), 'long'])
        self.assertEqual([lines[2][i] for i in (0, 1, 4, 5)],
                         [ids[1], 'waiting', str(os.getuid()), 'never'])
        self.assertEqual(lines[1][6:], [server.address, 'pid', str(running.popen.pid)])
        first = self.lines('ps', server.address)[0]
        self.assertEqual(first['id'], f"{first['session'][:8]}.{first['call']}")
        self.assertFalse(first['cancelled'])
        running.end(signal.SIGINT)
        waiting.end()

    def test_cancel_what_waits(self):
        server, running, waiting, ids = self.two_calls()
        self.check(semel('cancel', server.address, ids[1]), 0, b'', ids[1] + ': not executed')
        self.check(waiting.end(), 9, b'', 'cancelled')
        self.assertEqual(self.states(server), ['running'])
        running.end(signal.SIGINT)

    def test_cancel_what_runs(self):
        server, running, waiting, ids = self.two_calls()
        found, = self.lines('cancel', server.address, ids[0])
        self.assertEqual((found['call'], found['became']), (1, 'asked to stop'))
        self.check(running.end(), 5, b'', 'cancelled')
        self.check(waiting.end(), 0)
        self.check(semel('cancel', server.address, ids[0]), 1, b'', 'no such call')

    def test_force(self):
        server, running, waiting, ids = self.two_calls()
        self.check(semel('cancel', server.address, ids[1], '--force'), 0, b'', 'not executed')
        waiting.end()
        self.check(semel('cancel', server.address, ids[0], '--force'), 1, b'', 'asked to stop',
                   "cannot be forced: its handler runs inside the server's process")
        running.end()

    def test_strangers_look_and_do_not_cancel(self):
        server = self.background('serve', 'tcp:127.0.0.1:0', 'long=exec sleep 500', '--kill-after',
                                 '0s')
        server.address = server.await_line('listening at').split()[-1]
        call = self.calling(server.address, 'long', '--timeout', '500s')
        self.wait_until(lambda: self.states(server) == ['running'], 'it never ran')
        line, = self.lines('ps', server.address)
        self.assertNotIn('uid', line)
        self.check(semel('cancel', server.address, line['id']), 7, b'', 'not permitted')
        self.assertEqual(self.states(server), ['running'])
        call.end(signal.SIGINT)

    @unittest.skipIf(os.geteuid(), 'only root can be somebody else')
    def test_other_users(self):
        os.chmod(self.directory, 0o755)
        server = self.serve('--inspect', 'own')
        os.chmod(self.path('s'), 0o777)
        for args in (['list'], ['ps'], ['describe', 'echo'], ['cancel', '1234.1']):
            self.check(semel(args[0], server.address, *args[1:], user=65534, group=65534,
                             extra_groups=[]), 7, b'', 'not permitted')
        self.check(semel('call', server.address, 'echo', 'x', user=65534, group=65534,
                         extra_groups=[]), 0, b'x')


if __name__ == '__main__':
    main()
