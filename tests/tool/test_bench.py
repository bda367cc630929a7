#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""semel bench: what it counts, checks and prints. No figure of speed is judged here."""

import signal
import time

from toolkit import ToolCase, main, semel

KEYS = ['calls', 'calls_per_s', 'p50_us', 'p99_us', 'p999_us', 'errors', 'mismatches',
        'reconnects', 'cpu_us_per_call']


class Bench(ToolCase):
    def bench(self, address, *args):
        outcome = semel('bench', address, *args, '-o', 'json')
        self.assertEqual(outcome.out.count(b'\n'), 1, outcome)
        return outcome, outcome.json()

    def test_threads_and_window(self):
        server = self.serve()
        for load in (['-t', '8'], ['-w', '32'], []):
            outcome, figures = self.bench(server.address, 'echo', *load, '-d', '300ms')
            self.check(outcome, 0)
            self.assertEqual(list(figures)[:len(KEYS)], KEYS)
            self.assertGreater(figures['calls'], 10)
            self.assertEqual((figures['errors'], figures['mismatches']), (0, 0))
            self.assertLessEqual(figures['p50_us'], figures['p99_us'])
            self.assertLessEqual(figures['p99_us'], figures['p999_us'])

    def test_number_of_calls(self):
        ledger = self.path('ledger')
        server = self.serve('--ledger', ledger)
        for load in (['-t', '3'], ['-w', '7']):
            outcome, figures = self.bench(server.address, 'echo', *load, '-n', '500', '-z',
                                          '0..4KiB')
            self.check(outcome, 0)
            self.assertEqual(figures['calls'], 500)
        with open(ledger, encoding='utf-8') as file:
            lines = [line.split() for line in file]
        self.assertEqual(len(lines), 1000)
        self.assertEqual(len({line[0] for line in lines}), 1000)
        sizes = [int(line[3]) for line in lines]
        self.assertTrue(min(sizes) < 400 and 3600 < max(sizes) <= 4096, sizes)

    def test_body(self):
        server = self.serve()
        outcome, figures = self.bench(server.address, 'sum', '--body', '1 2', '-n', '20')
        self.check(outcome, 0)
        self.assertEqual(figures['calls'], 20)
        self.check(self.bench(server.address, 'echo', '--body', 'hello', '-n', '20')[0], 0)

    def test_large_bodies(self):
        server = self.serve()
        outcome, figures = self.bench(server.address, 'echo', '-z', '8MiB', '-n', '6', '-w', '3')
        self.check(outcome, 0)
        self.assertEqual(figures['calls'], 6)

    def test_mismatches_are_found(self):
        server = self.serve('echo=tr a b')
        outcome, figures = self.bench(server.address, 'echo', '--body', 'abc', '-n', '4')
        self.check(outcome, 1, None, '4 replies did not match')
        self.assertEqual((figures['mismatches'], figures['errors']), (4, 0))
        self.check(self.bench(server.address, 'echo', '--body', 'xyz', '-n', '4')[0], 0)
        short = self.serve('echo=head -c 3', name='t')
        self.assertEqual(self.bench(short.address, 'echo', '-n', '4')[1]['mismatches'], 4)

    def test_errors(self):
        server = self.serve()
        outcome, figures = self.bench(server.address, 'fail', '--body', '3 no', '-n', '10')
        self.check(outcome, 1, None, 'the first of 10 errors', 'fail', 'no')
        self.assertEqual((figures['errors'], figures['failures']), (10, 10))
        outcome, figures = self.bench(server.address, 'nix', '-n', '10', '-w', '2')
        self.check(outcome, 1, None, 'no such method')
        self.assertEqual(figures['not_executed'], 10)

    def test_one_call(self):
        server = self.serve()
        outcome = semel('bench', server.address, 'echo', '-n', '1')
        self.assertIn(b'\n1 call in ', b'\n' + outcome.out)

    def test_no_connection(self):
        outcome = semel('bench', 'unix:' + self.path('none'), 'echo', '--connect-timeout', '100ms')
        self.check(outcome, 3, b'', self.path('none'))

    def test_interrupt_ends_it_with_its_figures(self):
        server = self.serve()
        for load in (['-t', '2'], ['-w', '2']):
            bench = self.background('bench', server.address, 'echo', '-d', '1h', '-o', 'json',
                                    '-v', *load)
            bench.await_line('calling')
            time.sleep(0.3)
            outcome = bench.end(signal.SIGINT)
            self.check(outcome, 0)
            self.assertGreater(outcome.json()['calls'], 0)


if __name__ == '__main__':
    main()
