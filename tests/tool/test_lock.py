#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""semel lock, at a server with locks."""

import os
import signal
import time

from toolkit import ToolCase, alive, main, semel

FENCE = 'echo $SEMEL_LOCK_FENCE'
LEASE_S = 1.5  # long enough for a slow machine, short enough to wait for
LOCKS = '--locks=1500ms'
DRAIN = '--drain=1s'  # clients that were killed are waited for


class LockCase(ToolCase):
    def lock(self, *args, name='n'):
        return semel('lock', self.address, name, *args)

    def holding(self, *args, script='echo $$ > $PIDS; exec sleep 100', address=None):
        """One that has the lock, and whose command runs; its process id is written to pids."""
        env = dict(os.environ, PIDS=self.path('pids'))
        process = self.background('lock', address or self.address, 'n', *args, '--', 'sh', '-c',
                                  script, env=env, start_new_session=True)
        self.wait_until(lambda: os.path.exists(self.path('pids')) and self.pids(),
                        'the command never ran')
        return process

    def queued(self, *args):
        process = self.background('lock', self.address, 'n', '-v', *args)
        process.await_line('waiting for the lock')
        time.sleep(0.1)  # until it is in line
        return process

    def fence(self):
        outcome = self.lock('--', 'sh', '-c', FENCE)
        self.check(outcome, 0)
        return int(outcome.out)


class Lock(LockCase):
    def setUp(self):
        super().setUp()
        self.address = self.serve('--locks', '--workers', '2', DRAIN).address

    def test_exit_codes_are_the_commands(self):
        self.check(self.lock('--', 'true'), 0, b'')
        self.check(self.lock('--', 'sh', '-c', 'echo out; echo err >&2; exit 7'), 7, b'out\n',
                   'err')
        self.check(self.lock('sh', '-c', 'kill -9 $$'), 137)
        self.check(self.lock('--', self.path('none')), 127, b'', 'cannot run')
        self.check(self.lock('--', self.directory), 126, b'', 'cannot run')
        self.check(self.lock('--', 'true'), 0)

    def test_options_of_the_command_are_its_own(self):
        self.check(self.lock('echo', '--timeout', '-v'), 0, b'--timeout -v\n')
        self.check(self.lock('--timeout', '9s', '--', 'printf', '%s', '--help'),
                   0, b'--help')

    def test_fencing_numbers_rise(self):
        fences = [self.fence() for _ in range(5)]
        self.assertEqual(fences, sorted(set(fences)))

    def test_first_come_first_served(self):
        holder = self.holding()
        line = [self.queued('--', 'sh', '-c', f'echo {i} >> {self.path("order")}')
                for i in range(6)]
        self.assertFalse(os.path.exists(self.path('order')))
        self.check(holder.end(signal.SIGTERM), 143)
        for process in line:
            self.check(process.end(), 0)
        with open(self.path('order'), encoding='utf-8') as file:
            self.assertEqual(file.read().split(), ['0', '1', '2', '3', '4', '5'])

    def test_never_two_at_once(self):
        # mkdir fails where there is one already.
        script = f'mkdir {self.path("in")} && sleep 0.02 && rmdir {self.path("in")}'
        crowd = [self.background('lock', self.address, 'n', '--', 'sh', '-c', script)
                 for _ in range(12)]
        for process in crowd:
            self.check(process.end(), 0)

    def test_names_are_apart(self):
        self.holding()
        self.check(self.lock('--', 'echo', 'x', name='other'), 0, b'x\n')

    def test_those_in_line_hold_no_thread(self):
        holder = self.holding()
        line = [self.queued('--', 'true') for _ in range(6)]  # there are two workers
        self.check(semel('call', self.address, 'echo', 'x'), 0, b'x')
        holder.end(signal.SIGTERM)
        for process in line:
            self.check(process.end(), 0)

    def test_not_in_time(self):
        holder = self.holding()
        self.check(self.lock('--timeout', '100ms', '--', 'echo', 'x'), 4, b'', 'not had in time')
        behind = self.queued('--', 'true')
        holder.end(signal.SIGTERM)
        self.check(behind.end(), 0)

    def test_interrupted_in_line(self):
        holder = self.holding()
        first, second = self.queued('--', 'echo', 'x'), self.queued('--', 'echo', 'y')
        self.check(first.end(signal.SIGINT), 9, b'', 'interrupted')
        holder.end(signal.SIGTERM)
        self.check(second.end(), 0, b'y\n')

    def test_signals_go_to_the_command(self):
        holder = self.holding(script='trap "exit 5" INT; echo $$ > $PIDS; '
                              'while :; do sleep 0.05; done')
        self.check(holder.end(signal.SIGINT), 5)

    def test_the_standard_descriptors_are_the_commands(self):
        outcome = semel('lock', self.address, 'n', '--', 'tr', 'a-z', 'A-Z', stdin=b'hello')
        self.check(outcome, 0, b'HELLO')
        outcome = self.lock('--', 'sh', '-c', 'ls /proc/self/fd; '
                            'grep -E "^Sig(Blk|Ign)" /proc/self/status >&2')
        self.assertEqual(outcome.out.split(), [b'0', b'1', b'2', b'3'])
        for line in outcome.err.split('\n')[:-1]:
            self.assertEqual(int(line.split()[1], 16) & 0x15002, 0, line)

    def test_without_locks(self):
        server = self.serve(name='none')
        self.check(semel('lock', server.address, 'n', '--', 'echo', 'x'), 8, b'', '--locks')
        self.check(semel('lock', 'unix:' + self.path('x'), 'n', '--', 'echo', 'x'), 3, b'')

    def test_an_exchange_has_locks_too(self):
        server = self.serve('--exchange', name='both')
        self.check(semel('lock', server.address, 'n', '--', 'echo', 'x'), 0, b'x\n')


class Leases(LockCase):
    def setUp(self):
        super().setUp()
        self.server = self.serve(LOCKS, DRAIN)
        self.address = self.server.address

    def call(self, method, body):
        return semel('call', self.address, method, '--', body)

    def test_kept_for_longer_than_a_lease(self):
        # A machine that stands still for a lease has the lock lost, and rightly: a longer one.
        self.address = self.serve('--locks=4s', DRAIN, name='long').address
        holder = self.holding()
        behind = self.queued('--', 'echo', 'x')
        time.sleep(1.5 * 4)
        self.assertIsNone(behind.popen.poll(), holder.lines)
        self.check(holder.end(signal.SIGTERM), 143)
        self.check(behind.end(), 0, b'x\n')

    def test_a_holder_that_dies(self):
        holder = self.holding()
        pid = self.pids()[0]
        begin = time.monotonic()
        holder.popen.kill()
        self.check(self.lock('--', 'echo', 'x'), 0, b'x\n')
        self.assertLess(time.monotonic() - begin, 60)
        self.wait_until(lambda: not alive(pid), 'its command lives on')
        self.server.await_line('not heard of')

    def test_one_that_dies_in_line(self):
        holder = self.holding()
        dying, behind = self.queued('--', 'echo', 'x'), self.queued('--', 'echo', 'y')
        dying.popen.kill()
        holder.end(signal.SIGTERM)
        self.check(behind.end(), 0, b'y\n')

    def stopped(self, *args, **more):
        """A holder that was stopped until the lock was another's, and what that one's number is."""
        holder = self.holding(*args, **more)
        holder.signal(signal.SIGSTOP)
        self.fence()
        holder.signal(signal.SIGCONT)
        return holder

    def test_a_lost_lock_kills_the_command(self):
        holder = self.stopped()
        self.check(holder.end(), 143, b'', 'is lost')

    def test_a_lost_lock_kills_the_commands_of_the_command(self):
        holder = self.stopped(script='sleep 100 & echo $! > $PIDS; wait')
        self.check(holder.end(), 143, b'', 'is lost')
        pid = self.pids()[0]
        self.wait_until(lambda: not alive(pid), 'a part of it lives on')

    def test_a_command_that_ignores_sigterm(self):
        holder = self.stopped('--kill-after', '200ms',
                              script='trap "" TERM; echo $$ > $PIDS; while :; do sleep 0.05; done')
        self.check(holder.end(), 137, b'', 'is lost')

    def test_keep_running(self):
        go = self.path('go')
        holder = self.stopped('--keep-running',
                              script=f'echo $$ > $PIDS; until [ -e {go} ]; do sleep 0.05; done; '
                              'exit 6')
        holder.await_line('is lost')
        with open(go, 'w', encoding='utf-8'):
            pass
        self.check(holder.end(), 6)

    def test_broken_connections_lose_no_lock(self):
        server = self.serve('--locks=30s', name='patient')
        proxy = self.proxy(server.address, '--cut-every', '50ms')
        self.address = proxy.address
        outcome = self.lock('--connect-timeout', '60s', '--', 'sh', '-c', 'sleep 1; echo x')
        self.check(outcome, 0, b'x\n')

    def test_a_server_that_dies(self):
        server = self.serve(LOCKS, name='dying', clean=False)
        holder = self.holding(address=server.address)
        server.popen.kill()
        self.check(holder.end(), 143, b'', 'is lost')

    def test_a_server_that_grants_and_falls_silent(self):
        server = self.serve('lock.take=echo 7 500', 'lock.keep=exec sleep 100', 'lock.release=true',
                            '--idempotent=lock.take', '--idempotent=lock.release', '--drain=1ms',
                            name='silent', clean=False)
        self.address = server.address
        self.check(self.lock('--', 'echo', 'x'), 4, b'', 'is lost')

    def test_a_server_that_comes_back(self):
        server = self.serve(LOCKS, name='back', clean=False)
        self.address = server.address
        before = self.fence()
        self.holding()
        behind = self.queued('--', 'sh', '-c', FENCE)
        server.popen.kill()
        server.end()
        self.serve(LOCKS, name='back')
        outcome = behind.end()
        self.check(outcome, 0)
        self.assertGreater(int(outcome.out), before)

    def test_a_drain_ends_the_line(self):
        server = self.serve(LOCKS, '--drain', '100s', name='draining')
        self.address = server.address
        holder, behind = self.holding(), self.queued('--', 'echo', 'x')
        self.check(server.end(signal.SIGTERM), 0)
        self.check(behind.end(), 4, b'')
        self.check(holder.end(), 143, b'', 'is lost')

    def test_what_is_no_holders(self):
        self.address = self.serve('--locks=50s', name='patient').address
        grant = self.call('lock.take', 'n')
        self.check(grant, 0)
        fence, lease = grant.out.split()
        self.assertEqual(lease, b'50000')
        wrong = str(int(fence) - 1)
        self.check(self.call('lock.release', wrong + ' n'), 1, b'', 'not held')
        self.check(self.call('lock.keep', wrong + ' n'), 1, b'', 'not held')
        self.check(self.call('lock.release', fence.decode() + ' other'), 1, b'', 'not held')
        for body in ('', 'n', ' n', '1', '1 ', '-1 n', '1x n', '9' * 40 + ' n', '1 ' + 'n' * 256):
            self.check(self.call('lock.release', body), 1, b'')
            self.check(self.call('lock.keep', body), 1, b'')
        self.check(self.call('lock.take', ''), 1, b'', 'invalid')
        self.check(self.call('lock.take', 'n' * 256), 1, b'', 'invalid')
        self.check(self.call('lock.keep', fence.decode() + ' n'), 0, b'')
        self.check(self.call('lock.release', fence.decode() + ' n'), 0, b'')
        self.check(self.call('lock.release', fence.decode() + ' n'), 1, b'', 'not held')

    def test_a_holder_that_never_says_so(self):
        begin = time.monotonic()
        self.check(self.call('lock.take', 'n'), 0)
        self.check(self.lock('--', 'echo', 'x'), 0, b'x\n')
        self.assertGreater(time.monotonic() - begin, LEASE_S)


if __name__ == '__main__':
    main()
