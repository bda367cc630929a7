#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""semel call: what it prints, and each of its exit codes."""

import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time

from toolkit import HANG, TOOL, ToolCase, main, semel


class BuiltIns(ToolCase):
    def setUp(self):
        super().setUp()
        self.server = self.serve('--workers', '4', '--ledger', self.path('ledger'))
        self.address = self.server.address

    def call(self, *args, **more):
        return semel('call', self.address, *args, **more)

    def test_echo_prints_the_bytes_as_they_are(self):
        self.check(self.call('echo', 'hello'), 0, b'hello')
        self.check(self.call('echo'), 0, b'')
        self.check(self.call('echo', ''), 0, b'')
        every = bytes(range(256)) * 3
        self.check(self.call('echo', '-', stdin=every), 0, every)

    def test_large_bodies(self):
        large = os.urandom(5 << 20)
        self.check(self.call('echo', '-', stdin=large), 0, large)
        # The handler ran, and then learned that its caller does not take so much.
        self.check(self.call('echo', '-', '--body-limit', '1MiB', stdin=large), 1, b'',
                   'its reply of 5242880 bytes is larger', "'semel call --body-limit'")
        self.check(self.call('echo', '-', stdin=bytes((16 << 20) + 1)), 4, b'',
                   'too large (the server takes at most 16777216 bytes)',
                   "that limit is 'semel serve --body-limit'")

    def test_sum(self):
        self.check(self.call('sum', '1 2\n\t3'), 0, b'6')
        self.check(self.call('sum', ''), 0, b'0')
        self.check(self.call('sum', '--', '-4 0.5'), 0, b'-3.5')
        self.check(self.call('sum', '9223372036854775807 0'), 0, b'9223372036854775807')
        self.check(self.call('sum', '1 two 3'), 1, b'', "'two' is not a number")

    def test_sleep_and_burn(self):
        begin = time.monotonic()
        self.check(self.call('sleep', '120ms'), 0, b'')
        self.assertGreaterEqual(time.monotonic() - begin, 0.12)
        self.check(self.call('burn', '30ms'), 0, b'')
        self.check(self.call('sleep', '10'), 1, b'', 'no unit')
        self.check(self.call('burn', 'x'), 1, b'', 'not a duration')

    def test_failure_names_method_peer_and_call(self):
        outcome = self.call('fail', '7 out of paper')
        self.check(outcome, 1, b'', 'fail', self.address, 'out of paper', 'code 7')
        self.assertEqual(self.call('fail', '7 x', '-q').code, 1)

    def test_json(self):
        value = self.call('echo', 'ab"c', '-o', 'json').json()
        self.assertEqual((value['outcome'], value['body']), ('value', 'ab"c'))
        binary = self.call('echo', '-', '-o', 'json', stdin=b'\xff\x00').json()
        self.assertEqual(binary['body_base64'], '/wA=')
        failure = self.call('fail', '7 out of paper', '-o', 'json')
        self.check(failure, 1)
        words = failure.json()
        self.assertEqual((words['outcome'], words['status'], words['code'], words['text']),
                         ('failure', 'FAILED', 7, 'out of paper'))
        self.assertEqual(words['method'], 'fail')
        self.assertGreater(words['call'], 0)
        self.assertEqual(self.call('nix', '-o', 'json').json()['status'], 'NO_METHOD')

    def test_terminal_controls_of_a_peer_are_escaped(self):
        outcome = self.call('fail', '1 \x1b[31mred\x07')
        self.check(outcome, 1, b'', '\\x1b[31mred\\x07')
        self.assertNotIn('\x1b', outcome.err)

    def test_no_such_method(self):
        self.check(self.call('nix', 'x'), 8, b'', 'nix', self.address, 'no such method')

    def test_bad_method_name(self):
        self.check(self.call('m' * 300), 2, b'', '255 bytes')
        self.check(self.call(''), 2, b'')

    def test_rerun_ok_is_for_idempotent_methods(self):
        outcome = self.call('echo', 'x', '--rerun-ok')
        self.check(outcome, 4, b'', 'rerun')
        idempotent = self.serve('--idempotent', 'echo', name='i')
        self.check(semel('call', idempotent.address, 'echo', 'x', '--rerun-ok'), 0, b'x')

    def test_reply_that_cannot_be_written(self):
        with open('/dev/full', 'wb') as full:
            done = subprocess.run([TOOL, 'call', self.address, 'echo', 'x'], stdout=full,
                                  stderr=subprocess.PIPE, timeout=HANG, check=False)
        self.assertEqual(done.returncode, 5, done.stderr)
        self.assertIn(b'could not be written', done.stderr)

    def test_interrupt_cancels(self):
        call = self.calling(self.address, 'sleep', '60s', '--timeout', '100s')
        self.wait_until(lambda: self.executions('ledger') == 1, 'it never ran')
        outcome = call.end(signal.SIGINT)
        self.check(outcome, 1, b'', 'cancelling', 'cancelled after')


class Connecting(ToolCase):
    def test_nobody_there(self):
        address = 'unix:' + self.path('nobody')
        begin = time.monotonic()
        self.check(semel('call', address, 'm', '--connect-timeout', '100ms'), 3, b'', address, 'm',
                   'no such socket')
        self.assertLess(time.monotonic() - begin, 30)
        # Nobody listens: that is clear at once, and said without the wait for a silent server.
        self.check(semel('call', address, 'm', '--timeout', '1h'), 3, b'', 'no such socket')
        outcome = semel('call', address, 'm', '--timeout', '100ms', '-o', 'json')
        self.check(outcome, 3)
        self.assertEqual(json.loads(outcome.out)['outcome'], 'not executed')

    def test_waiting_is_no_failure(self):
        """What keeps it from connecting is said once, when it gives up; until then with -v."""
        address = 'unix:' + self.path('nobody')
        call = self.background('call', address, 'm', '-v', '--connect-timeout', '600s')
        call.await_line('semel call: cannot connect: ' + address)
        call.end(signal.SIGINT)
        for args in (['--connect-timeout', '2s'], []):
            outcome = semel('call', address, 'm', *args)
            self.check(outcome, 3, b'', 'not sent: cannot connect: ' + address)
            self.assertEqual(outcome.err.count('\n'), 1, outcome)

    def test_refused(self):
        with socket.socket() as placeholder:
            placeholder.bind(('127.0.0.1', 0))
            address = 'tcp:127.0.0.1:%d' % placeholder.getsockname()[1]
            self.check(semel('call', address, 'm', '--connect-timeout', '100ms'), 3, b'', address,
                       'refused')

    def test_silent_server(self):
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(self.path('s'))
            silent.listen(8)
            self.check(semel('call', 'unix:' + self.path('s'), 'm', '--connect-timeout', '300ms'),
                       3, b'', self.path('s'))

    def test_server_that_comes_late(self):
        address = 'unix:' + self.path('late')
        call = self.background('call', address, 'echo', 'x', '--connect-timeout', '60s')
        time.sleep(0.3)
        self.serve(name='late')
        self.check(call.end(), 0, b'x')

    def test_interrupted_before_anything_was_sent(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            call = self.background('call', 'unix:' + self.path('nobody'), 'm', '-v',
                                   '--connect-timeout', '60s')
            call.await_line('connecting')
            self.assertEqual(call.end(number).code, 128 + number)

    def speak(self, answer):
        """A server that answers whatever comes with the same bytes, then waits."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path('odd'))
        listener.listen(8)
        self.addCleanup(listener.close)
        self.addCleanup(listener.shutdown, socket.SHUT_RDWR)

        def run():
            while True:
                try:
                    with listener.accept()[0] as connection:
                        connection.recv(65536)
                        connection.sendall(answer)
                        while connection.recv(65536):
                            pass
                except OSError:
                    if listener.fileno() < 0:
                        return

        threading.Thread(target=run, daemon=True).start()
        return 'unix:' + self.path('odd')

    def test_not_a_semel_server(self):
        address = self.speak(b'HTTP/1.1 400 Bad Request\r\n\r\n' + bytes(64))
        self.check(semel('call', address, 'm'), 10, b'', address, 'protocol error')

    def test_version_mismatch(self):
        text = b'only version 9'
        bye = struct.pack('<HH', 5, len(text)) + text  # as docs/PROTOCOL.md has it
        frame = struct.pack('<IBBHQ', len(bye), 15, 0, 0, 0) + bye
        address = self.speak(frame)
        outcome = semel('call', address, 'm', '--connect-timeout', '5s')
        self.assertEqual(outcome.code, 10, outcome)

    def test_tcp_and_alternatives(self):
        server = self.background('serve', 'tcp:127.0.0.1:0,tcp:[::1]:0')
        server.await_line('listening at', 2)
        addresses = [line.split()[-1] for line in server.lines if 'listening at' in line]
        self.assertTrue(addresses[0].startswith('tcp:127.0.0.1:'), addresses)
        self.assertTrue(addresses[1].startswith('tcp:[::1]:'), addresses)
        for address in addresses + [f'unix:{self.path("none")},{addresses[0]}']:
            self.check(semel('call', address, 'echo', 'x'), 0, b'x')
        self.check(server.end(signal.SIGTERM), 0)


class Busy(ToolCase):
    """A server with one worker, and that one taken."""

    def setUp(self):
        super().setUp()
        self.server = self.serve('--workers', '1', '--backlog', '1', '--ledger',
                                 self.path('ledger'))
        self.address = self.server.address
        self.occupant = self.calling(self.address, 'sleep', '60s', '--timeout', '100s')
        self.addCleanup(self.end_occupant)
        self.wait_until(lambda: self.executions('ledger') == 1, 'it never ran')

    def end_occupant(self):
        if not self.occupant.popen.stdout.closed:
            self.occupant.end(signal.SIGINT)

    def test_expired_before_it_started(self):
        outcome = semel('call', self.address, 'echo', 'x', '--timeout', '200ms')
        self.check(outcome, 4, b'', 'echo', self.address)

    def test_overloaded(self):
        waiting = self.calling(self.address, 'echo', 'w', '--timeout', '100s')
        time.sleep(0.7)
        outcome = semel('call', self.address, 'echo', 'x', '--refuse-when-full')
        self.check(outcome, 6, b'', 'echo', self.address, 'overloaded')
        self.occupant.signal(signal.SIGINT)
        self.check(waiting.end(), 0, b'w')

    def test_cancelled_before_it_started(self):
        waiting = self.calling(self.address, 'echo', 'x', '--timeout', '100s')
        time.sleep(0.5)
        self.check(waiting.end(signal.SIGINT), 9, b'', 'cancelling')


class Unknown(ToolCase):
    def setUp(self):
        super().setUp()
        self.server = self.serve("stubborn=trap '' TERM; touch %s; sleep 60 & wait; wait; echo done"
                                 % self.path('deaf'),
                                 'killed=kill -9 $$', '--kill-after', '2s', '--drain', '1s',
                                 '--workers', '4', '--ledger', self.path('ledger'))
        self.address = self.server.address

    def test_worker_died(self):
        outcome = semel('call', self.address, 'killed')
        self.check(outcome, 5, b'', 'killed', 'pid', 'signal 9', self.address)

    def test_deadline_without_a_verdict(self):
        outcome = semel('call', self.address, 'stubborn', '--timeout', '300ms')
        self.check(outcome, 5, b'', 'stubborn', self.address)

    def test_second_interrupt_gives_up(self):
        call = self.calling(self.address, 'stubborn', '--timeout', '100s')
        # Until its trap is set the command is not stubborn at all.
        self.wait_until(lambda: os.path.exists(self.path('deaf')), 'it never ran')
        call.signal(signal.SIGINT)
        call.await_line('cancelling')
        self.check(call.end(signal.SIGINT), 5, b'', 'unknown')

    def test_server_stopped_in_the_middle(self):
        server = self.serve('--workers', '2', '--ledger', self.path('t-ledger'), name='t',
                            clean=False)
        call = self.calling(server.address, 'sleep', '60s', '--timeout', '1h')
        self.wait_until(lambda: self.executions('t-ledger') == 1, 'it never ran')
        server.signal(signal.SIGTERM)
        server.await_line('waiting for running calls')
        server.end(signal.SIGTERM)
        # Its own word ends the call, not the deadline an hour away.
        self.check(call.end(), 5, b'', 'session lost', 'has stopped')

    def test_server_killed_in_the_middle(self):
        server = self.serve('--workers', '2', '--ledger', self.path('k-ledger'), name='k',
                            clean=False)
        call = self.calling(server.address, 'sleep', '60s', '--timeout', '5s')
        self.wait_until(lambda: self.executions('k-ledger') == 1, 'it never ran')
        server.end(signal.SIGKILL)
        self.check(call.end(), 5, b'', 'sleep', server.address)


if __name__ == '__main__':
    main()
