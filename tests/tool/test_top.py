#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""semel top: one sample as JSON, and the screen in a terminal of 80 columns and 24 rows."""

import os
import re
import signal
import time

from terminal import Terminal
from toolkit import NCURSES, TOOL, ToolCase, main, needs_jansson, semel, unittest


class Loaded(ToolCase):
    def load(self, server, method='echo', **more):
        bench = self.background('bench', server.address, method, '-t', '4', '-d', '500s', '-o',
                                'json', **more)
        self.wait_until(lambda: self.total(server, method) > 100, 'no load')
        return bench

    def total(self, server, method):
        outcome = semel('top', server.address, '-o', 'json', '--interval', '10ms')
        self.check(outcome, 0)
        return next(m['calls'] for m in outcome.json()['methods'] if m['name'] == method)


@needs_jansson
class Sample(Loaded):
    def test_one_sample(self):
        server = self.serve('--workers', '3', clean=False)
        load = self.load(server)
        outcome = semel('top', server.address, '-o', 'json', '--interval', '300ms')
        self.check(outcome, 0)
        sample = outcome.json()
        self.assertEqual(sample['address'], server.address)
        self.assertEqual(sample['server']['pid'], server.popen.pid)
        self.assertGreaterEqual(sample['span_s'], 0.3)
        self.assertGreater(sample['rate'], 0)
        self.assertGreater(sample['p50_ns'], 0)
        self.assertGreaterEqual(sample['p99_ns'], sample['p50_ns'])
        first = sample['methods'][0]
        self.assertEqual(first['name'], 'echo')
        self.assertGreater(first['rate'], 0)
        self.assertEqual({m['rate'] for m in sample['methods'][1:]}, {0.0})
        self.assertEqual({m['p50_ns'] for m in sample['methods'][1:]}, {0})
        self.assertEqual(len(sample['workers']), 4)
        self.assertGreater(sample['counters']['calls_started'], 100)
        load.end(signal.SIGINT)
        server.end(signal.SIGTERM)

    def test_quantiles_are_of_the_interval(self):
        server = self.serve('quick=true', 'slow=sleep 0.3')
        self.check(semel('call', server.address, 'slow'), 0)
        self.check(semel('call', server.address, 'quick'), 0)
        sample = semel('top', server.address, '-o', 'json', '--interval', '10ms').json()
        self.assertEqual({m['p99_ns'] for m in sample['methods']}, {0})
        self.assertEqual({m['name']: m['calls'] for m in sample['methods']},
                         {'quick': 1, 'slow': 1})

    def test_what_cannot_be_sampled(self):
        self.check(semel('top', 'unix:' + self.path('none'), '-o', 'json'), 3, b'', 'not sent')
        closed = self.serve('--inspect', 'none')
        self.check(semel('top', closed.address, '-o', 'json'), 8, b'', '--inspect none')

    def test_no_terminal(self):
        server = self.serve()
        self.check(semel('top', server.address), 2, b'', 'no terminal', '-o json')
        words = b' '.join(semel('top', '--help').out.split())
        self.assertIn(b'or once, of one interval, with -o json', words)


@needs_jansson
@unittest.skipUnless(NCURSES, 'built without ncurses')
class Screen(Loaded):
    def top(self, server, *args, **more):
        terminal = Terminal(TOOL, 'top', server.address, '--interval', '100ms', *args, **more)
        self.addCleanup(terminal.close)
        terminal.wait_for('pid %d' % server.popen.pid)
        return terminal

    def ends_well(self, terminal, code=0):
        found, said = terminal.end()
        self.assertEqual(found, code, said)
        self.assertEqual(terminal.modes_now(), terminal.modes)
        return said

    def rate(self, text):
        match = re.search(r'^echo +([\d.]+)([kM]?) ', text, re.M)
        return float(match.group(1)) if match else 0

    def test_methods_under_load(self):
        server = self.serve(clean=False)
        load = self.load(server)
        terminal = self.top(server)
        text = terminal.wait_for(lambda text: self.rate(text) > 0, 'a rate of echo')
        lines = text.split('\n')
        self.assertEqual(len(lines), 24)
        self.assertIn(server.address, lines[0])
        self.assertIn('serving', lines[0])
        for words in ('rate ', 'p50 ', 'p99 ', 'in flight', 'backlog', 'sessions', 'cuts',
                      'replays', 'workers', 'METHOD'):
            self.assertIn(words, text)
        self.assertTrue(lines[8].startswith('echo '), text)  # it has the highest rate
        self.assertIn('q quit', lines[-1])
        terminal.type(b's')
        terminal.wait_for('sort: p99')
        terminal.type(b'ss')
        terminal.wait_for('sort: name')
        terminal.wait_for(lambda text: text.split('\n')[8].startswith('burn '), 'burn first')
        terminal.type(b'3')
        terminal.wait_for('SLOT')
        terminal.wait_for('reading')
        terminal.type(b'\t')
        terminal.wait_for('METHOD')
        terminal.type(b'q')
        self.ends_well(terminal)
        load.end(signal.SIGINT)
        server.end(signal.SIGTERM)

    def test_worker_processes(self):
        server = self.serve('--procs', '2', 'nap=exec sleep 500', '--kill-after', '0s')
        call = self.calling(server.address, 'nap', '--timeout', '500s')
        terminal = self.top(server)
        terminal.wait_for(lambda text: re.search(r'^workers +(#\.|\.#) *$', text, re.M),
                          'one that has a call')
        terminal.type(b'3')
        terminal.wait_for(lambda text: re.search(r'^PID +STATE +RUNNING +CALLS +RESTARTS', text,
                                                 re.M), 'the page of processes')
        terminal.wait_for(lambda text: sorted(re.findall(r'^\d+ +ready +(\d)', text, re.M)) ==
                          ['0', '1'], 'two processes, one with a call')
        terminal.type(b'q')
        self.ends_well(terminal)
        call.end(signal.SIGINT)

    def test_terminals_are_given_back(self):
        server = self.serve()
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            terminal = self.top(server, term='xterm-256color')
            terminal.popen.send_signal(number)
            self.ends_well(terminal, code)
            # The other screen is left, and the cursor is there.
            self.assertGreater(terminal.output.rfind(b'\x1b[?1049l'),
                               terminal.output.rfind(b'\x1b[?1049h'))
            self.assertGreater(terminal.output.rfind(b'\x1b[?25h'),
                               terminal.output.rfind(b'\x1b[?25l'))
        terminal = self.top(server)
        terminal.type(b'\x03')  # Ctrl-C
        self.ends_well(terminal, 130)

    def test_a_server_that_goes_and_comes_back(self):
        server = self.serve(clean=False)
        terminal = self.top(server)
        server.end(signal.SIGKILL)
        terminal.wait_for('no connection for')
        again = self.serve(clean=False)
        text = terminal.wait_for('the server was restarted: pid %d' % again.popen.pid)
        self.assertIn('pid %d' % again.popen.pid, text.split('\n')[0])
        terminal.wait_for(lambda text: 'no connection' not in text, 'a connection')
        terminal.type(b'q')
        self.ends_well(terminal)
        again.end(signal.SIGTERM)

    def test_calls_are_chosen_and_cancelled(self):
        server = self.serve('--workers', '1', clean=False)
        first = self.calling(server.address, 'sleep', '500s', '--timeout', '600s')
        self.wait_until(lambda: 'running' in semel('ps', server.address).out.decode(), 'no call')
        second = self.calling(server.address, 'sum', '1 2', '--timeout', '600s')
        self.wait_until(lambda: 'waiting' in semel('ps', server.address).out.decode(), 'no call')
        terminal = self.top(server)
        terminal.type(b'k')
        terminal.wait_for('choose a call first')
        terminal.type(b'2')
        terminal.wait_for(lambda text: 'running' in text and 'waiting' in text, 'two calls')
        terminal.type(b'\x1bOB')  # down
        terminal.type(b'k')
        terminal.wait_for('of sum?')
        terminal.type(b'n')
        terminal.wait_for('q quit')
        self.assertIsNone(second.popen.poll())
        terminal.type(b'k')
        terminal.wait_for('of sum?')
        terminal.type(b'y')
        terminal.wait_for('not executed')
        self.check(second.end(), 9, b'')
        terminal.wait_for(lambda text: 'waiting' not in text, 'one call')
        terminal.type(b'k')
        terminal.wait_for('of sleep?')
        terminal.type(b'f')
        terminal.wait_for('cannot be forced')
        self.check(first.end(), 1, b'', 'cancelled')
        terminal.type(b'q')
        self.ends_well(terminal)
        server.end(signal.SIGTERM)

    def test_sizes(self):
        server = self.serve()
        terminal = self.top(server)
        terminal.wait_for('q quit')
        for rows, columns in ((10, 40), (3, 12), (50, 132), (24, 80)):
            terminal.resize(rows, columns)
            terminal.wait_for(lambda text: 'semel top' in text.split('\n')[0], 'the title')
        terminal.wait_for('q quit')
        terminal.type(b'q')
        self.ends_well(terminal)

    def test_words_of_others_do_not_move_the_cursor(self):
        server = self.serve('a\u00e9\u4e16b=true', 'esc\\=true')
        terminal = self.top(server)
        terminal.wait_for('a\u00e9')
        terminal.type(b'q')
        self.ends_well(terminal)

    def test_terminals_that_cannot(self):
        server = self.serve()
        terminal = Terminal(TOOL, 'top', server.address, term='no-such-terminal')
        self.addCleanup(terminal.close)
        code, said = terminal.end()
        self.assertEqual(code, 2, said)
        self.assertIn('-o json', said)
        self.assertEqual(terminal.modes_now(), terminal.modes)

    def test_a_terminal_that_goes_away(self):
        server = self.serve('--drain=1s')  # the client, which was killed, is waited for
        terminal = self.top(server)
        os.kill(terminal.popen.pid, signal.SIGHUP)
        end = time.monotonic() + 60
        while terminal.popen.poll() is None and time.monotonic() < end:
            terminal.read(0.05)
        self.assertIsNotNone(terminal.popen.poll())


if __name__ == '__main__':
    main()
