#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""semel serve with shell commands; starting, limiting and ending a server."""

import collections
import os
import signal
import socket
import threading

from toolkit import ToolCase, alive, main, semel


class Commands(ToolCase):
    def call(self, server, *args, **more):
        return semel('call', server.address, *args, **more)

    def test_body_in_reply_out(self):
        server = self.serve('up=tr a-z A-Z', 'same=cat', 'nothing=true', 'ignore=echo hi')
        self.check(self.call(server, 'up', 'hello'), 0, b'HELLO')
        self.check(self.call(server, 'nothing'), 0, b'')
        large = os.urandom(8 << 20)
        self.check(self.call(server, 'same', '-', stdin=large), 0, large)
        self.check(self.call(server, 'ignore', '-', stdin=large), 0, b'hi\n')
        self.check(self.call(server, 'nothing', '-', stdin=large), 0, b'')

    def test_failure(self):
        server = self.serve('no=echo first >&2; echo out of paper >&2; exit 7', 'mute=exit 3',
                            'lots=yes complaint | head -c 100000 >&2; echo at last >&2; exit 1',
                            'none=exec /nonexistent/program',
                            'odd=printf "\\033[1m\\377" >&2; exit 2')
        outcome = self.call(server, 'no', '-o', 'json')
        self.check(outcome, 1)
        words = outcome.json()
        self.assertEqual((words['code'], words['text']), (7, 'out of paper'))
        self.assertEqual(words['detail'], 'first\nout of paper\n')
        words = self.call(server, 'mute', '-o', 'json').json()
        self.assertEqual((words['code'], words['text']), (3, 'exit status 3'))
        words = self.call(server, 'lots', '-o', 'json').json()
        self.assertEqual((words['code'], words['text']), (1, 'at last'))
        self.assertEqual(len(words['detail']), 4096)
        self.assertTrue(words['detail'].endswith('complaint\nat last\n'))
        self.assertIn(self.call(server, 'none', '-o', 'json').json()['code'], (126, 127))
        self.assertEqual(self.call(server, 'odd', '-o', 'json').json()['text'], '?[1m?')

    def test_death_is_unknown(self):
        server = self.serve('kill=kill -9 $$', 'shell=sh -c "kill -15 \\$\\$"; exit $?',
                            'high=exit 255', 'segv=kill -SEGV $$')
        self.check(self.call(server, 'kill'), 5, b'', 'pid', 'signal 9')
        self.check(self.call(server, 'shell'), 5, b'', '143', 'signal 15')
        self.check(self.call(server, 'high'), 5, b'', '255')
        self.check(self.call(server, 'segv'), 5, b'', 'signal 11')
        outcome = self.call(server, 'kill', '-o', 'json').json()
        self.assertEqual((outcome['outcome'], outcome['status']), ('unknown', 'HANDLER_DIED'))

    def test_environment(self):
        server = self.serve('env=echo $SEMEL_CALL_KEY $SEMEL_DEADLINE $SEMEL_METHOD')
        keys = set()
        for _ in range(3):
            key, deadline, method = self.call(server, 'env', '--timeout', '20s').out.split()
            self.assertRegex(key, b'^[0-9a-f]{32}$')
            self.assertTrue(0 < int(deadline) <= 20000, deadline)
            self.assertEqual(method, b'env')
            keys.add(key)
        self.assertEqual(len(keys), 3)

    def test_nothing_is_inherited(self):
        server = self.serve('fds=ls /proc/self/fd', 'signals=grep -E "^Sig(Blk|Ign)" '
                            '/proc/self/status', '--workers', '4')
        threads = [threading.Thread(target=self.call, args=(server, 'fds')) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # ls has its own descriptor for the directory: 3.
        self.assertEqual(self.call(server, 'fds').out.split(), [b'0', b'1', b'2', b'3'])
        for line in self.call(server, 'signals').out.split(b'\n')[:-1]:
            self.assertEqual(int(line.split()[1], 16) & 0x5002, 0, line)  # INT, PIPE, TERM

    def test_no_descriptor_and_no_process_is_left(self):
        server = self.serve('x=cat; exit 1', '--workers', '4')
        pid = server.popen.pid

        def descriptors():
            return len(os.listdir(f'/proc/{pid}/fd'))

        def children():
            with open(f'/proc/{pid}/task/{pid}/children', encoding='utf-8') as file:
                return file.read().split()

        for _ in range(5):
            self.call(server, 'x')
        self.wait_until(lambda: not children(), 'a child is left')
        before = descriptors()
        for _ in range(40):
            self.check(self.call(server, 'x', 'body'), 1)
        self.wait_until(lambda: not children(), 'a child is left')
        self.wait_until(lambda: descriptors() <= before, 'descriptors are left')

    def test_background_process_is_not_waited_for(self):
        server = self.serve('bg=sleep 50 & echo $!')
        outcome = self.call(server, 'bg')
        self.check(outcome, 0)
        pid = int(outcome.out)
        self.assertTrue(alive(pid))
        os.kill(pid, signal.SIGKILL)

    def test_reply_beyond_the_limit(self):
        marker = self.path('ended')
        server = self.serve(f'lots=head -c 3000000 /dev/zero; echo > {marker}', '--body-limit',
                            '1MiB')
        self.check(self.call(server, 'lots'), 1, b'', '3000000 bytes', 'limit')
        self.assertTrue(os.path.exists(marker))  # it ran to its end, and that is known

    def test_cancelled_command_gets_sigterm(self):
        marker = self.path('marker')
        ready = self.path('ready')
        server = self.serve(f'polite=trap "echo > {marker}; exit 9" TERM; echo > {ready}; '
                            'sleep 60 & wait')
        call = self.calling(server.address, 'polite', '--timeout', '100s')
        self.wait_until(lambda: os.path.exists(ready), 'it never ran')
        self.check(call.end(signal.SIGINT), 1, b'', 'exit status 9')
        self.assertTrue(os.path.exists(marker))

    def test_cancelled_command_dies_with_its_group(self):
        pids = self.path('pids')
        server = self.serve(f'deaf=trap "" TERM; sh -c \'echo $$ >> {pids}; exec sleep 60\' & '
                            f'echo $$ >> {pids}; wait; wait', '--kill-after', '300ms')
        call = self.calling(server.address, 'deaf', '--timeout', '100s')

        def written():
            if not os.path.exists(pids):
                return []
            with open(pids, encoding='utf-8') as file:
                return [int(pid) for pid in file.read().split()]

        self.wait_until(lambda: len(written()) == 2, 'it never ran')
        found = written()
        self.check(call.end(signal.SIGINT), 5, b'', 'signal 9', 'cancelled')
        for pid in found:
            self.wait_until(lambda p=pid: not alive(p), 'a process is left')

    def test_max_run(self):
        server = self.serve('long=sleep 60', 'short=true', '--max-run', 'long=300ms')
        self.check(self.call(server, 'long', '--timeout', '50s'), 5, b'')
        self.check(self.call(server, 'short'), 0)

    def test_limit_of_a_method(self):
        log = self.path('log')
        server = self.serve(f'one=echo + >> {log}; sleep 0.05; echo - >> {log}', '--limit',
                            'one=1', '--workers', '4')
        threads = [threading.Thread(target=self.call, args=(server, 'one')) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with open(log, encoding='utf-8') as file:
            self.assertEqual(file.read(), '+\n-\n' * 6)


class Servers(ToolCase):
    def test_address_in_use(self):
        server = self.serve()
        outcome = semel('serve', server.address)
        self.check(outcome, 3, b'', server.address, 'address in use')
        tcp = self.background('serve', 'tcp:127.0.0.1:0')
        address = tcp.await_line('listening at').split()[-1]
        self.check(semel('serve', address), 3, b'', address, 'address in use')
        self.check(semel('call', server.address, 'echo', 'x'), 0, b'x')

    def test_a_directory_that_is_not_there(self):
        address = 'unix:' + self.path('none/s')
        outcome = semel('serve', address)
        self.assertEqual((outcome.code, outcome.err.split('\n')), (2, [
            f'semel serve: cannot listen: {address}: no such directory', '']))
        self.check(semel('serve', 'nix:/x'), 2, b'', 'write unix:/path')

    def test_socket_of_a_dead_server_is_replaced(self):
        server = self.serve(clean=False)
        server.end(signal.SIGKILL)
        self.assertTrue(os.path.exists(self.path('s')))
        again = self.serve()
        self.check(semel('call', again.address, 'echo', 'x'), 0, b'x')

    def test_tcp_beyond_this_machine_needs_a_word(self):
        self.check(semel('serve', 'tcp:0.0.0.0:0'), 7, b'', '--insecure')
        server = self.background('serve', 'tcp:0.0.0.0:0', '--insecure')
        server.await_line('listening at')
        self.check(server.end(signal.SIGINT), 0)

    def test_inherited_descriptor(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            server = self.background('serve', f'fd:{theirs.fileno()}', pass_fds=[theirs.fileno()])
            theirs.close()
            outcome = semel('call', f'fd:{ours.fileno()}', 'echo', 'x', pass_fds=[ours.fileno()])
            self.check(outcome, 0, b'x')
        server.end(signal.SIGTERM)

    def test_bad_exports(self):
        self.check(semel('serve', 'unix:' + self.path('s'), 'semel.x=true'), 2, b'', 'semel.x')
        self.check(semel('serve', 'unix:' + self.path('s'), 'a=true', 'a=false'), 2, b'', 'a')

    def test_drain_lets_running_calls_finish(self):
        server = self.serve('slow=sleep 1; echo done', '--ledger', self.path('ledger'),
                            clean=False)
        call = self.calling(server.address, 'slow')
        self.wait_until(lambda: self.executions('ledger') == 1, 'it never ran')
        server.signal(signal.SIGTERM)
        server.await_line('waiting for running calls')
        self.check(call.end(), 0, b'done\n')
        self.check(server.end(), 0)
        self.assertFalse(os.path.exists(self.path('s')))

    def test_second_signal_stops_now(self):
        server = self.serve('slow=sleep 60', '--ledger', self.path('ledger'), clean=False)
        call = self.calling(server.address, 'slow', '--timeout', '5s')
        self.wait_until(lambda: self.executions('ledger') == 1, 'it never ran')
        server.signal(signal.SIGTERM)
        server.await_line('waiting for running calls')
        self.check(server.end(signal.SIGTERM), 0)
        self.check(call.end(), 5)

    def test_ledger_has_a_line_per_execution(self):
        ledger = self.path('ledger')
        server = self.serve('--ledger', ledger)
        for i in range(5):
            self.check(semel('call', server.address, 'echo', 'x' * i), 0)
        with open(ledger, encoding='utf-8') as file:
            lines = [line.split() for line in file]
        self.assertEqual([(line[2], int(line[3])) for line in lines],
                         [('echo', i) for i in range(5)])
        keys = collections.Counter(line[0] for line in lines)
        self.assertEqual(len(keys), 5)
        self.check(semel('serve', 'unix:' + self.path('t'), '--ledger', '/nonexistent/x'), 2, b'',
                   '/nonexistent/x')

    def test_quiet_and_verbose(self):
        quiet = self.background('serve', 'unix:' + self.path('q'), '-q')
        self.wait_until(lambda: os.path.exists(self.path('q')), 'no socket')
        self.check(semel('call', 'unix:' + self.path('q'), 'echo', 'x'), 0, b'x')
        outcome = quiet.end(signal.SIGTERM)
        self.check(outcome, 0, b'')
        self.assertEqual(outcome.err, '')
        loud = self.serve('-v', name='v', clean=False)
        self.check(semel('call', loud.address, 'echo', 'x'), 0, b'x')
        self.check(loud.end(signal.SIGTERM), 0, b'',
                   'calls 1: values 1, failures 0, not executed 0, unknown 0')


if __name__ == '__main__':
    main()
