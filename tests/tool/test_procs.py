# SPDX-License-Identifier: MIT
"""semel serve --procs: calls that run in worker processes."""

import json
import os
import signal
import time
import unittest

from toolkit import HANG, TOOL, ToolCase, alive, semel


def children_of(pid):
    """Those that have not ended."""
    found = []
    for entry in os.listdir('/proc'):
        if not entry.isdigit():
            continue
        try:
            with open(f'/proc/{entry}/stat', encoding='utf-8') as file:
                words = file.read().rsplit(')', 1)[1].split()
        except OSError:
            continue
        if int(words[1]) == pid and words[0] != 'Z':
            found.append(int(entry))
    return found


class Procs(ToolCase):
    def serve(self, *args):
        self.address = 'unix:' + self.path('s')
        server = self.background('serve', self.address, *args)
        server.await_line('listening at ' + self.address)  # a worker says so of descriptor 3
        return server

    def call(self, method, body='', *args):
        return semel('call', self.address, method, body, *args)

    def test_commands(self):
        server = self.serve('--procs', '2', 'parent=echo $PPID', 'up=tr a-z A-Z',
                            'no=echo sorry >&2; exit 7',
                            'key=echo $SEMEL_CALL_KEY $SEMEL_IDEMPOTENCY_KEY $SEMEL_METHOD')
        self.check(self.call('up', 'abc'), 0, b'ABC')
        parent = int(self.call('parent').out)
        self.assertIn(parent, children_of(server.popen.pid))
        outcome = self.call('no')
        self.assertEqual(outcome.code, 1)
        self.assertIn('sorry', outcome.err)
        keys = {self.call('key').out.split()[0] for _ in range(3)}
        self.assertEqual(len(keys), 3)
        self.assertEqual(self.call('none').code, 8)
        self.assertEqual(server.end(signal.SIGTERM).code, 0)
        self.assertFalse(alive(parent))

    def test_builtins_and_recycling(self):
        server = self.serve('--procs', '1', '--recycle-calls', '2', '-v')
        for _ in range(6):
            self.assertEqual(self.call('sum', '1 2 3').out.strip(), b'6')
        server.await_line('has served its time', 3)
        self.assertEqual(server.end(signal.SIGTERM).code, 0)

    def test_ledger(self):
        self.serve('--procs', '2', '--ledger', self.path('ledger'),
                   'key=printf %s $SEMEL_CALL_KEY')
        keys = [self.call('key').out.decode() for _ in range(4)]
        with open(self.path('ledger'), encoding='utf-8') as file:
            self.assertEqual([line.split()[0] for line in file], keys)

    def test_a_death_is_unknown(self):
        server = self.serve('--procs', '2', 'die=kill -9 $PPID', 'end=kill -9 $$',
                            'pid=echo $PPID')
        outcome = self.call('end')
        self.assertEqual(outcome.err.count('what ran the handler died'), 1, outcome)
        for _ in range(3):
            outcome = self.call('die')
            self.assertEqual(outcome.code, 5)
            self.assertIn('was killed by signal 9 (SIGKILL)', outcome.err)
            self.assertEqual(outcome.err.count('what ran the handler died'), 1, outcome)
        self.assertEqual(self.call('pid').code, 0)
        self.assertEqual(server.end(signal.SIGTERM).code, 0)

    def test_none_outlives_a_killed_server(self):
        server = self.serve('--procs', '3', 'pid=echo $PPID')
        workers = children_of(server.popen.pid)
        self.assertEqual(len(workers), 3)
        server.end(signal.SIGKILL)
        end = time.monotonic() + HANG
        while any(alive(pid) for pid in workers):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)

    def test_a_cancelled_call(self):
        server = self.serve('--procs', '1', 'nap=sleep 600; echo late', 'echo=cat')
        outcome = self.call('nap', '', '--timeout', '300ms')
        self.assertEqual(outcome.code, 5)
        self.assertEqual(self.call('echo', 'x').out, b'x')
        self.assertEqual(server.end(signal.SIGTERM).code, 0)

    def running(self):
        lines = semel('ps', self.address, '-o', 'json').out.decode().splitlines()
        return [json.loads(line) for line in lines]

    def states(self):
        return sorted(one['state'] for one in self.running())

    def test_what_waits_has_not_begun(self):
        """A call that no process has room for waits in the server: it can still not be executed."""
        open_ = self.path('open')
        server = self.serve('--procs', '2', '--backlog', '1',
                            f'gate=while ! test -e {open_}; do sleep 0.05; done; echo through')

        def gate(*args):
            return self.background('call', self.address, 'gate', *args)

        began = [gate('--timeout', '500s') for _ in range(2)]
        self.wait_until(lambda: self.states() == ['running'] * 2, 'they never began')
        expires = gate('--timeout', '300ms', '-o', 'json').end()
        self.assertEqual(expires.code, 4, expires)
        self.assertEqual(expires.json()['status'], 'EXPIRED')

        waits = gate('--timeout', '500s', '-o', 'json')
        self.wait_until(lambda: self.states() == ['running', 'running', 'waiting'], 'none waits')
        refused = gate('--refuse-when-full').end()
        self.assertEqual(refused.code, 6, refused)
        patient = gate('--timeout', '500s', '-v')
        patient.await_line('calling')
        name = [one['id'] for one in self.running() if one['state'] == 'waiting'][0]
        self.assertEqual(semel('cancel', self.address, name).code, 0)
        cancelled = waits.end()
        self.assertEqual(cancelled.code, 9, cancelled)
        self.assertEqual(cancelled.json()['outcome'], 'not executed')

        with open(open_, 'w', encoding='utf-8'):
            pass
        for call in [*began, patient]:
            self.check(call.end(), 0, b'through\n')
        self.assertEqual(server.end(signal.SIGTERM).code, 0)

    def test_no_worker_comes_up(self):
        server = self.serve('--program', '/bin/true', '--procs', '1', 'name')
        server.await_line('never said hello on descriptor 3')
        outcome = self.call('name', '', '--timeout', '300ms')
        self.check(outcome, 4, b'', 'not executed: no worker process is left: process ',
                   'exited with code 0, and had never said hello on descriptor 3')

    def test_what_no_worker_began_is_not_executed(self):
        """One dies without having read the call, and none comes after it."""
        program = self.path('program')
        with open(program, 'w', encoding='utf-8') as file:
            file.write(f'#!/bin/sh\ntest -e {self.path("over")} && exit 7\n'
                       f'exec {TOOL} serve fd:3 name=true\n')
        os.chmod(program, 0o755)
        server = self.serve('--program', program, '--procs', '1', 'name', 'other')
        self.check(self.call('name'), 0)
        self.check(self.call('other'), 8, b'', 'not executed: no such method')
        worker, = children_of(server.popen.pid)
        os.kill(worker, signal.SIGSTOP)
        with open(self.path('over'), 'w', encoding='utf-8'):
            pass
        call = self.background('call', self.address, 'name', '--timeout', '2s', '-o', 'json')
        self.wait_until(lambda: self.states() == ['running'], 'it never began')
        os.kill(worker, signal.SIGKILL)
        outcome = call.end()
        self.assertEqual(outcome.json()['outcome'], 'not executed', outcome)
        self.assertEqual(outcome.code, 4, outcome)

    def test_force(self):
        """The worker that has the call is killed, also if it was asked to stop before."""
        server = self.serve('--procs', '1', 'nap=trap "" TERM; while :; do sleep 1; done',
                            'echo=cat')
        for asked in (False, True):
            call = self.background('call', self.address, 'nap', '--timeout', '500s')
            end = time.monotonic() + HANG
            while [one.get('state') for one in self.running()] != ['running']:
                self.assertLess(time.monotonic(), end)
                time.sleep(0.01)
            name = self.running()[0]['id']
            if asked:
                self.assertEqual(semel('cancel', self.address, name).code, 0)
            outcome = semel('cancel', self.address, name, '--force')
            self.assertEqual(outcome.code, 0, outcome.err)
            outcome = call.end()
            self.assertEqual(outcome.code, 5, outcome.err)
            self.assertIn('was killed by signal 9 (SIGKILL)', outcome.err)
            self.assertEqual(self.call('echo', 'x').out, b'x')
        self.assertEqual(server.end(signal.SIGTERM).code, 0)

    def test_a_program(self):
        """Any that speaks the protocol: the tool itself, as a server on descriptor 3."""
        script = self.path('worker')
        with open(script, 'w', encoding='utf-8') as file:
            file.write(f'#!/bin/sh\nexec {TOOL} serve fd:3 "up=tr a-z A-Z" "pid=echo \\$PPID"\n')
        os.chmod(script, 0o755)
        server = self.serve('--program', script, '--procs', '2', 'up', 'pid', 'none')
        self.check(self.call('up', 'abc'), 0, b'ABC')
        self.assertIn(int(self.call('pid').out), children_of(server.popen.pid))
        outcome = self.call('none')
        self.check(outcome, 8, b'', 'not executed: no such method')
        self.assertEqual(server.end(signal.SIGTERM).code, 0)

    def test_there_are_no_streams(self):
        """Whoever sends one is told so, and nothing runs."""
        self.serve('--procs', '1', 'up=tr a-z A-Z')
        outcome = semel('call', self.address, 'up', '--send', '--stream', '-o', 'json',
                        stdin=b'one\n')
        self.assertEqual(outcome.code, 4, outcome)
        self.assertEqual(outcome.json()['status'], 'NO_STREAM')

    def test_a_reserved_name(self):
        self.check(semel('serve', 'unix:' + self.path('x'), 'semel.x=cat'), 2, b'',
                   'names that begin with semel. are reserved')

    def test_refused(self):
        def refused(words, *args):
            outcome = semel('serve', 'unix:' + self.path('x'), *args)
            self.assertEqual(outcome.code, 2, outcome)
            self.assertIn(words, outcome.err)

        refused('--procs', '--procs', '0')
        refused('NAME=COMMAND', '--procs', '2', 'name')
        refused('no path', '--program', 'worker', 'name')
        refused('NAMEs', '--program', './worker')
        refused('NAME alone', '--program', './worker', 'a=b')
        refused('need --procs', '--recycle-calls', '2')
        refused('--stream and --procs exclude', '--procs', '2', 'a=b', '--stream', 'a')
        refused('--stream and --program exclude', '--program', './worker', 'a', '--stream', 'a')
        outcome = semel('serve', 'unix:' + self.path('x'), '--program', './worker', 'name')
        self.assertEqual(outcome.code, 3)


if __name__ == '__main__':
    unittest.main()
