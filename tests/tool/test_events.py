#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""semel trigger and semel wait, at a server with an exchange."""

import json
import os
import signal
import subprocess
import threading
import time

from toolkit import HANG, TOOL, ToolCase, main, semel


class Events(ToolCase):
    def setUp(self):
        super().setUp()
        self.address = self.serve('--exchange').address

    def trigger(self, *args, **more):
        return semel('trigger', self.address, *args, **more)

    def wait(self, *args):
        return semel('wait', self.address, *args)

    def waiting(self, *args):
        process = self.background('wait', self.address, *args, '-v')
        process.await_line('calling')
        return process

    def test_early_events_in_the_order_asked(self):
        self.check(self.trigger('b', 'two'), 0, b'')
        self.check(self.trigger('a', 'one'), 0, b'')
        self.check(self.wait('a', 'b'), 0, b'a\tone\nb\ttwo\n')
        self.check(self.wait('a', '--timeout', '0s'), 4, b'', '0 of 1 there')

    def test_late_events(self):
        wait = self.waiting('a', 'b', '--timeout', '100s')
        self.trigger('b', 'two')
        self.assertIsNone(wait.popen.poll())
        self.trigger('a', 'one')
        self.check(wait.end(), 0, b'a\tone\nb\ttwo\n')

    def test_an_id_asked_for_twice_is_printed_twice(self):
        self.trigger('a', 'x')
        self.check(self.wait('a', 'a'), 0, b'a\tx\na\tx\n')

    def test_any_takes_one(self):
        self.trigger('b', 'two')
        self.check(self.wait('a', 'b', '--any'), 0, b'b\ttwo\n')
        wait = self.waiting('a', 'b', '--any', '--timeout', '100s')
        self.trigger('a', 'one')
        self.check(wait.end(), 0, b'a\tone\n')

    def test_the_newer_event_wins(self):
        self.trigger('a', 'old')
        self.trigger('a', 'new')
        self.check(self.wait('a'), 0, b'a\tnew\n')

    def test_unmet_leaves_all_there(self):
        self.trigger('a', 'x')
        begin = time.monotonic()
        self.check(self.wait('a', 'b', '--timeout', '200ms'), 4, b'', '1 of 2 there, and left')
        self.assertGreaterEqual(time.monotonic() - begin, 0.2)
        self.check(self.wait('a', '--timeout', '0s'), 0, b'a\tx\n')

    def test_partial_takes_what_is_there(self):
        self.trigger('a', 'x')
        self.check(self.wait('b', 'a', '--timeout', '50ms', '--partial'), 1, b'a\tx\n', 'taken')
        self.check(self.wait('a', '--timeout', '0s'), 4, b'')

    def test_data(self):
        self.check(self.trigger('a', '-', stdin=b'x\ty\n\x1b\xff'), 0)
        self.check(self.wait('a'), 0, b'a\tx\ty\\x0a\\x1b\\xff\n')
        self.trigger('empty')
        self.check(self.wait('empty'), 0, b'empty\t\n')
        large = os.urandom(5 << 20).hex().encode()
        self.check(self.trigger('large', '-', stdin=large), 0)
        self.check(self.wait('large'), 0, b'large\t' + large + b'\n')

    def test_json(self):
        self.trigger('a', 'x\ny')
        self.trigger('b', '-', stdin=b'\xff')
        outcome = self.wait('a', 'b', '-o', 'json')
        self.check(outcome, 0)
        self.assertEqual([json.loads(line) for line in outcome.out.splitlines()],
                         [{'id': 'a', 'data': 'x\ny'}, {'id': 'b', 'data_base64': '/w=='}])

    def test_one_wait_gets_it(self):
        waits = [self.waiting('a', '--timeout', '100s') for _ in range(3)]
        for i in range(3):
            self.trigger('a', str(i))
        self.assertEqual(sorted(wait.end().out for wait in waits),
                         [b'a\t0\n', b'a\t1\n', b'a\t2\n'])

    def test_interrupted_wait_takes_nothing(self):
        wait = self.waiting('a', '--timeout', '100s')
        self.check(wait.end(signal.SIGINT), 9, b'')
        self.trigger('a', 'x')
        self.check(self.wait('a', '--timeout', '0s'), 0, b'a\tx\n')

    def test_output_that_nobody_takes(self):
        self.trigger('a', 'x')
        with open('/dev/full', 'wb') as full:
            done = subprocess.run([TOOL, 'wait', self.address, 'a'], stdout=full,
                                  stderr=subprocess.DEVNULL, timeout=HANG, check=False)
        self.assertEqual(done.returncode, 5)

    def test_waits_hold_no_thread(self):
        server = self.serve('--exchange', '--workers', '2', name='few')
        waits = [self.background('wait', server.address, f'{i}', '--timeout', '100s', '-v')
                 for i in range(8)]
        for wait in waits:
            wait.await_line('calling')
        self.check(semel('call', server.address, 'echo', 'x'), 0, b'x')
        for i in range(8):
            semel('trigger', server.address, f'{i}', 'x')
        for wait in waits:
            self.check(wait.end(), 0)


class Servers(ToolCase):
    def test_keep_tells_all(self):
        server = self.serve('--exchange=keep')
        semel('trigger', server.address, 'a', 'x')
        for _ in range(2):
            self.check(semel('wait', server.address, 'a'), 0, b'a\tx\n')

    def test_retention(self):
        server = self.serve('--exchange', '--event-retention', '50ms')
        semel('trigger', server.address, 'a', 'x')
        time.sleep(0.2)
        self.check(semel('wait', server.address, 'a', '--timeout', '0s'), 4, b'')

    def test_without_an_exchange(self):
        server = self.serve()
        self.check(semel('trigger', server.address, 'a'), 8, b'', '--exchange')
        self.check(semel('wait', server.address, 'a'), 8, b'', '--exchange')

    def test_no_server(self):
        self.check(semel('wait', 'unix:' + self.path('none'), 'a'), 3, b'')
        self.check(semel('trigger', 'unix:' + self.path('none'), 'a'), 3, b'')

    def test_methods_beside_it(self):
        server = self.serve('--exchange', 'up=tr a-z A-Z')
        self.check(semel('call', server.address, 'up', 'x'), 0, b'X')
        self.check(semel('trigger', server.address, 'a'), 0, b'')

    def test_broken_connections(self):
        server = self.serve('--exchange')
        proxy = self.proxy(server.address, '--cut-every', '30ms')
        seen = []

        def wait(i):
            seen.append(semel('wait', proxy.address, f'{i}', '--timeout', '60s',
                              '--connect-timeout', '60s').out)

        threads = [threading.Thread(target=wait, args=(i,)) for i in range(10)]
        for thread in threads:
            thread.start()
        for i in range(10):
            time.sleep(0.05)
            self.check(semel('trigger', proxy.address, f'{i}', f'{i}', '--connect-timeout', '60s'),
                       0)
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(seen), [b'%d\t%d\n' % (i, i) for i in range(10)])

    def test_a_drain_ends_waits(self):
        server = self.serve('--exchange', '--drain', '100s')
        wait = self.background('wait', server.address, 'a', '--timeout', '100s', '-v')
        wait.await_line('calling')
        self.check(server.end(signal.SIGTERM), 0)
        self.check(wait.end(), 4, b'')


if __name__ == '__main__':
    main()
