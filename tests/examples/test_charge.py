#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The example that charges through a payment provider: its server is killed again and again, and
the provider's books have each order once."""
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

TOOL = os.environ['SEMEL_TOOL']
SERVER = os.environ['CHARGE_SERVER']
PROVIDER = os.environ['CHARGE_PROVIDER']


class Charge(unittest.TestCase):
    def setUp(self):
        self.at = tempfile.mkdtemp(prefix='semel-charge-', dir='/tmp')
        self.addCleanup(shutil.rmtree, self.at)
        self.books, self.address = self.path('books'), 'unix:' + self.path('s')
        self.processes = []
        self.addCleanup(self.end)

    def path(self, name):
        return os.path.join(self.at, name)

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()

    def start(self, *command):
        process = subprocess.Popen(command)
        self.processes.append(process)
        return process

    def wait_for(self, name):
        while not os.path.exists(self.path(name)):
            time.sleep(0.01)

    def provide(self, delay_ms):
        provider = self.start(PROVIDER, self.path('p'), self.books, str(delay_ms))
        self.wait_for('p')
        return provider

    def serve(self):
        return self.start(SERVER, self.address, self.path('db'), self.path('p'))

    def call(self, order, amount='12.50'):
        return subprocess.Popen([TOOL, 'call', self.address, 'charge', amount, '--key', order,
                                 '--timeout', '60s', '--connect-timeout', '60s'],
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def charges(self):
        with open(self.books, encoding='ascii') as file:
            return file.read().split('\n')[:-1]

    def test_one_order(self):
        self.provide(0)
        self.serve()
        for _ in range(3):
            call = self.call('order-1')
            self.assertEqual(call.communicate()[0].strip(), 'receipt 1')
        self.assertEqual(len(self.charges()), 1)
        call = self.call('order-2', 'much')
        call.communicate()
        self.assertNotEqual(call.returncode, 0)
        self.assertEqual(len(self.charges()), 1)

    def test_killed_between_the_charge_and_its_record(self):
        self.provide(300)
        server = self.serve()
        call = self.call('order-1')
        self.wait_for('books')
        while not self.charges():
            time.sleep(0.01)
        server.send_signal(signal.SIGKILL)  # it has charged, and has no answer yet
        server.wait()
        self.serve()
        self.assertEqual(call.communicate()[0].strip(), 'receipt 1')
        self.assertEqual(call.returncode, 0)
        self.assertEqual(len(self.charges()), 1)

    def test_killed_at_any_time(self):
        dice = random.Random(7)
        self.provide(2)
        server = self.serve()
        calls = [self.call(f'order-{i}', f'{i}.00') for i in range(30)]
        for _ in range(12):
            time.sleep(dice.uniform(0.01, 0.12))
            server.send_signal(signal.SIGKILL)
            server.wait()
            server = self.serve()
        receipts = set()
        for call in calls:
            receipts.add(call.communicate()[0].strip())
            self.assertEqual(call.returncode, 0)
        self.assertEqual(len(receipts), 30)
        amounts = [line.split()[1] for line in self.charges()]
        self.assertEqual(sorted(amounts, key=float), [f'{i}.00' for i in range(30)])


if __name__ == '__main__':
    unittest.main(verbosity=2)
