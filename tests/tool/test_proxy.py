#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""semel proxy: it relays, it cuts, and calls through it still run once each."""

import json
import os
import signal
import socket
import struct
import threading
import time

from toolkit import HANG, ToolCase, main, semel


def frame(payload):
    return struct.pack('<I', len(payload)) + bytes(12) + payload


class Relay(ToolCase):
    """The proxy before a server of this file, which sends back what it gets."""

    def setUp(self):
        super().setUp()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path('s'))
        self.listener.listen(64)
        self.addCleanup(self.listener.close)
        self.addCleanup(self.listener.shutdown, socket.SHUT_RDWR)
        threading.Thread(target=self.run_server, daemon=True).start()

    def run_server(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.send_back, args=(connection,), daemon=True).start()

    @staticmethod
    def send_back(connection):
        with connection:
            try:
                while True:
                    data = connection.recv(65536)
                    if not data:
                        return
                    connection.sendall(data)
            except OSError:
                pass

    def connect(self):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(HANG)
        client.connect(self.path('p'))
        self.addCleanup(client.close)
        return client

    @staticmethod
    def receive(client, size):
        data = b''
        while len(data) < size:
            piece = client.recv(65536)
            if not piece:
                break
            data += piece
        return data

    def exchange_until_cut(self):
        """Frames back and forth until the connection breaks. Returns how many came back whole."""
        client = self.connect()
        with client:
            for count in range(1000000):
                sent = frame(os.urandom(300))
                try:
                    client.sendall(sent)
                    if self.receive(client, len(sent)) != sent:
                        return count
                except OSError:
                    return count
        return None

    def test_it_relays_both_ways(self):
        proxy = self.proxy('unix:' + self.path('s'))
        data = os.urandom(3 << 20)
        client = self.connect()
        sender = threading.Thread(target=client.sendall, args=(data,))
        sender.start()
        self.assertEqual(self.receive(client, len(data)), data)
        sender.join()
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(client.recv(1), b'')
        figures = proxy.end(signal.SIGTERM).json()
        self.assertEqual((figures['connections'], figures['cuts']), (1, 0))
        self.assertEqual(figures['bytes'], 2 * len(data))
        self.assertFalse(os.path.exists(self.path('p')))

    def test_delay(self):
        self.proxy('unix:' + self.path('s'), '--delay', '50ms')
        client = self.connect()
        begin = time.monotonic()
        client.sendall(b'x')
        self.assertEqual(client.recv(1), b'x')
        self.assertGreaterEqual(time.monotonic() - begin, 0.1)

    def test_tcp(self):
        proxy = self.background('proxy', 'tcp:127.0.0.1:0', 'unix:' + self.path('s'))
        host, port = proxy.await_line('listening at').split()[-1][4:].rsplit(':', 1)
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b'hello')
            self.assertEqual(self.receive(client, 5), b'hello')
        self.check(proxy.end(signal.SIGINT), 0)

    def test_cuts_are_counted(self):
        proxy = self.proxy('unix:' + self.path('s'), '--cut-every', '5ms', '--stats',
                           self.path('stats'))
        for _ in range(20):
            self.assertIsNotNone(self.exchange_until_cut())
        figures = proxy.end(signal.SIGTERM).json()
        self.assertGreaterEqual(figures['cuts'], 20)
        self.assertEqual(figures['cuts_half_open'], 0)
        with open(self.path('stats'), encoding='utf-8') as file:
            self.assertEqual(json.load(file), figures)

    def test_mid_frame(self):
        proxy = self.proxy('unix:' + self.path('s'), '--cut-every', '5ms', '--mid-frame')
        for _ in range(20):
            self.exchange_until_cut()
        figures = proxy.end(signal.SIGTERM).json()
        self.assertGreaterEqual(figures['cuts'], 20)
        self.assertEqual(figures['cuts_mid_frame'], figures['cuts'])

    def test_half_open(self):
        proxy = self.proxy('unix:' + self.path('s'), '--cut-every', '2ms', '--half-open')
        for _ in range(150):  # one cut in five is plain: of 20 none is so once in 87 times
            self.exchange_until_cut()
        figures = proxy.end(signal.SIGTERM).json()
        self.assertGreater(figures['cuts_half_open'], 0)
        self.assertLess(figures['cuts_half_open'], figures['cuts'])

    def test_target_that_is_not_there(self):
        proxy = self.proxy('unix:' + self.path('nobody'))
        client = self.connect()
        try:
            self.assertEqual(client.recv(1), b'')
        except ConnectionError:
            pass
        self.assertEqual(proxy.end(signal.SIGTERM).json()['refused'], 1)

    def test_address_in_use(self):
        self.proxy('unix:' + self.path('s'))
        outcome = semel('proxy', 'unix:' + self.path('p'), 'unix:' + self.path('s'))
        self.check(outcome, 3, b'', self.path('p'), 'in use')


class Soak(ToolCase):
    """Calls through a proxy that cuts: each ends in its own value and runs once."""

    def soak(self, calls, size, *options):
        ledger = self.path('ledger')
        server = self.serve('--ledger', ledger, '--workers', '4')
        proxy = self.proxy(server.address, *options)
        outcome = semel('bench', proxy.address, 'echo', '-t', '16', '-n', str(calls), '-z', size,
                        '--timeout', '100s', '--connect-timeout', '60s', '-o', 'json')
        self.check(outcome, 0)
        figures = outcome.json()
        self.assertEqual((figures['calls'], figures['errors'], figures['mismatches']),
                         (calls, 0, 0), figures)
        with open(ledger, encoding='utf-8') as file:
            keys = [line.split()[0] for line in file]
        self.assertEqual(len(keys), calls)
        self.assertEqual(len(set(keys)), calls)
        cuts = proxy.end(signal.SIGTERM).json()
        return figures, cuts

    def test_small_bodies(self):
        figures, cuts = self.soak(5000, '0..4KiB', '--cut-every', '20ms', '--delay', '1ms')
        self.assertGreater(cuts['cuts'], 5)
        self.assertGreater(figures['reconnects'], 5)

    def test_small_bodies_cut_in_frames(self):
        _, cuts = self.soak(5000, '0..4KiB', '--cut-every', '20ms', '--delay', '1ms',
                            '--mid-frame')
        self.assertGreater(cuts['cuts_mid_frame'], 5)

    def test_half_open(self):
        _, cuts = self.soak(4000, '0..4KiB', '--cut-every', '20ms', '--delay', '1ms',
                            '--half-open')
        self.assertGreater(cuts['cuts'], 5)

    def test_large_bodies(self):
        _, cuts = self.soak(20, '8MiB', '--cut-every', '20ms')
        self.assertGreater(cuts['cuts'], 2)


if __name__ == '__main__':
    main()
