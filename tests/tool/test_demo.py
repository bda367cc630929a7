#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The demo, run small; and its audit, which must find what is wrong with doctored ledgers."""

import os
import subprocess
import unittest

from toolkit import HANG, ROOT, TOOL, ToolCase, main

AUDIT = os.environ.get('SEMEL_AUDIT')
CALLS = 2000


@unittest.skipUnless(AUDIT, 'built without the examples')
class Audit(ToolCase):
    """Ledgers written by this file; each test spoils one thing."""

    def setUp(self):
        super().setUp()
        self.server, self.client = [], []
        for i in range(1, CALLS + 1):
            kind, code = ('F', 7) if i % 5 == 0 else ('V', 0)
            self.client.append(f'S 1.{i % 3}.{i} echo {i} {i * 77:x}')
            self.server.append(f'R 1.{i % 3}.{i} echo {i} {i * 77:x} {kind} {code} 9 {i * 5:x} '
                               f'{i:032x}')
            self.client.append(f'D 1.{i % 3}.{i} {kind} {code} 9 {i * 5:x}')
        self.counters = {
            'client-1.json': f'{{"calls":{CALLS},"completed":{CALLS},"threads":3}}',
            'server.json': f'{{"calls_started":{CALLS},"replayed":50,"reattached":60}}',
            'proxy-1.json': '{"connections":99,"cuts":98,"cuts_mid_frame":40,"bytes":1}',
        }

    def audit(self, *options):
        files = dict(self.counters)
        files['server.ledger'] = '\n'.join(self.server)
        files['client-1.ledger'] = '\n'.join(self.client)
        for name, text in files.items():
            with open(self.path(name), 'w', encoding='utf-8') as file:
                file.write(text + '\n')
        done = subprocess.run([AUDIT, *options, self.directory], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=HANG, text=True, check=False)
        words = {}
        for line in done.stdout.splitlines():
            name, _, value = line.rpartition('  ')
            words[name.strip()] = value.strip()
        return done.returncode, words, done.stdout + done.stderr

    def fails(self, **expected):
        code, words, text = self.audit()
        self.assertEqual(code, 1, text)
        self.assertIn('FAILED', text)
        for name in ('lost', 'run twice', 'mismatched', 'unknown', 'not executed'):
            self.assertEqual(int(words[name]), expected.get(name.replace(' ', '_'), 0), text)
        return text

    def test_clean(self):
        code, words, text = self.audit()
        self.assertEqual(code, 0, text)
        self.assertIn('PASSED', text)
        self.assertEqual(words['calls'], str(CALLS))
        self.assertEqual(words['connections broken'], '98 (40 in the middle of a frame)')
        self.assertEqual(words['stored replies replayed'], '50')
        self.assertEqual(words['running calls re-attached'], '60')

    def count(self, name, counter, change):
        """The program that wrote the ledger counted the same."""
        self.counters[name] = self.counters[name].replace(f'"{counter}":{CALLS}',
                                                          f'"{counter}":{CALLS + change}')

    def test_doubled_execution(self):
        self.server.append(self.server[70])
        self.count('server.json', 'calls_started', 1)
        self.assertIn('run twice', self.fails(run_twice=1))

    def test_missing_execution(self):
        del self.server[70]
        self.count('server.json', 'calls_started', -1)
        self.assertIn('never run', self.fails(lost=1))

    def test_missing_outcome(self):
        self.client.remove([line for line in self.client if line.startswith('D')][70])
        self.count('client-1.json', 'completed', -1)
        self.assertIn('no outcome', self.fails(lost=1))

    def test_missing_call(self):
        del self.client[70]
        self.count('client-1.json', 'calls', -1)
        self.fails(mismatched=1)

    def test_doubled_outcome(self):
        self.client.append([line for line in self.client if line.startswith('D')][70])
        self.count('client-1.json', 'completed', 1)
        self.fails(mismatched=1)

    def test_lines_that_nobody_counted(self):
        for counter in (('client-1.json', 'calls'), ('client-1.json', 'completed'),
                        ('server.json', 'calls_started')):
            with self.subTest(counter):
                self.setUp()
                self.count(*counter, 1)
                self.fails(mismatched=1)

    def spoil(self, lines, index, field, value):
        words = lines[index].split()
        words[field] = value
        lines[index] = ' '.join(words)

    def test_changed_fields(self):
        for name, field, value in (('server', 2, 'fast'), ('server', 3, '999999'),
                                   ('server', 4, 'abc'), ('server', 5, 'F'), ('server', 6, '55'),
                                   ('server', 7, '77'), ('server', 8, 'def')):
            with self.subTest(field=field):
                self.setUp()
                self.spoil(getattr(self, name), 70, field, value)
                self.fails(mismatched=1)

    def test_changed_hash_at_the_client(self):
        self.spoil(self.client, 71, 5, 'abc')
        self.assertTrue(self.client[71].startswith('D'))
        self.fails(mismatched=1)

    def test_shared_key(self):
        self.spoil(self.server, 70, 9, self.server[71].split()[9])
        self.assertIn('same key', self.fails(mismatched=1))

    def test_unknown(self):
        self.spoil(self.client, 71, 2, 'U')
        self.fails(unknown=1)

    def test_not_executed_but_it_ran(self):
        self.spoil(self.client, 71, 2, 'N')
        self.fails(mismatched=1, not_executed=1)

    def test_too_little_happened(self):
        for name, old, new in (('proxy-1.json', '"cuts":98', '"cuts":3'),
                               ('proxy-1.json', '"cuts_mid_frame":40', '"cuts_mid_frame":0'),
                               ('server.json', '"replayed":50', '"replayed":0'),
                               ('server.json', '"reattached":60', '"reattached":1')):
            with self.subTest(old):
                self.setUp()
                self.counters[name] = self.counters[name].replace(old, new)
                self.assertIn('too little happened', self.fails())
        self.setUp()
        code, _, text = self.audit('--min-calls', '100000')
        self.assertEqual(code, 1)
        self.assertIn('too little happened', text)

    def test_what_it_cannot_read(self):
        self.server[70] = self.server[70][:20]
        code, _, text = self.audit()
        self.assertEqual(code, 2, text)
        self.assertIn('server.ledger:71', text)
        self.setUp()
        self.counters['server.json'] = '{}'
        self.assertEqual(self.audit()[0], 2)


@unittest.skipUnless(AUDIT, 'built without the examples')
class Demo(ToolCase):
    def test_a_small_run(self):
        build = os.path.dirname(os.path.dirname(TOOL))
        env = dict(os.environ, DEMO_SECONDS='4', DEMO_CLIENTS='3', DEMO_THREADS='8',
                   DEMO_DIR=self.path('ledgers'),
                   DEMO_AUDIT='--min-calls 200 --min-cuts 5 --min-mid-frame 2 --min-replayed 1 '
                              '--min-reattached 1')
        done = subprocess.run([os.path.join(ROOT, 'examples', 'demo', 'run.sh'), build], env=env,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=2 * HANG, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn('PASSED', done.stdout)


if __name__ == '__main__':
    main()
