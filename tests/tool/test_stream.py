#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Streams at the command line: semel call --stream, --send and --progress, semel serve --stream."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import threading
import time

from toolkit import HANG, TOOL, Outcome, ToolCase, alive, main, semel

GIB = 1 << 30
RSS_KIB = 64 * 1024  # far below what flows


def sanitized():
    """A tool built with a sanitizer: slower, and with memory of its own."""
    with open(TOOL, 'rb') as file:
        return re.search(rb'__(asan|tsan)_init', file.read()) is not None


def peak_kib(pid):
    with open(f'/proc/{pid}/status', encoding='utf-8') as file:
        return int(re.search(r'VmHWM:\s+(\d+)', file.read()).group(1))


class Streams(ToolCase):
    def start(self, *methods, options=(), **more):
        args = list(methods)
        for method in methods:
            args += ['--stream', method.split('=')[0]]
        server = self.serve(*args, *options, **more)
        self.address = server.address
        return server

    def call(self, *args, **more):
        return semel('call', self.address, *args, **more)

    def lines(self, call, count):
        return [call.popen.stdout.readline() for _ in range(count)]


class Items(Streams):
    def test_lines_come_as_they_are_written(self):
        go = self.path('go')
        os.mkfifo(go)
        self.start(f'm=echo one; cat {go} >&2; echo two')
        call = self.background('call', self.address, 'm', '--stream')
        self.assertEqual(self.lines(call, 1), [b'one\n'])  # while the method waits
        with open(go, 'wb'):
            pass
        self.check(call.end(), 0, b'two\n')

    def test_raw_and_json(self):
        self.start('m=printf "a\\nb\\n\\nc"')
        self.check(self.call('m', '--stream'), 0, b'a\nb\n\nc\n')
        self.check(self.call('m', '--stream', '--raw'), 0, b'abc')
        objects = [json.loads(line) for line in
                   self.call('m', '--stream', '-o', 'json').out.splitlines()]
        self.assertEqual([o['item'] for o in objects[:-1]], ['a', 'b', '', 'c'])
        self.assertEqual((objects[-1]['outcome'], objects[-1]['body']), ('value', ''))

    def test_without_a_stream_the_output_is_the_reply(self):
        self.start('m=printf "a\\nb"; echo 1/2 >&4')
        self.check(self.call('m'), 0, b'a\nb')
        self.check(self.call('m', '--send', stdin=b'x\n'), 0, b'a\nb')

    def test_failures_after_items(self):
        self.start('m=echo a; echo why >&2; exit 7', 'k=echo a; kill -9 $$')
        self.check(self.call('m', '--stream'), 1, b'a\n', 'why', 'code 7')
        self.check(self.call('k', '--stream'), 5, b'a\n', 'killed by signal 9')

    def test_other_methods(self):
        server = self.serve('plain=cat', name='o')
        self.check(semel('call', server.address, 'plain', 'x', '--stream'), 0, b'x')
        self.check(semel('call', server.address, 'plain', 'x', '--send', stdin=b'y'), 4, b'',
                   'stream')
        self.check(semel('call', server.address, 'nix', '--stream'), 8, b'')

    def test_pieces(self):
        every = os.urandom(300000)
        with open(self.path('data'), 'wb') as file:
            file.write(every)
        server = self.serve('m=cat ' + self.path('data'), 'echo=cat', '--stream', 'm=10KiB',
                            '--stream', 'echo=64KiB')
        outcome = semel('call', server.address, 'm', '--stream', '--raw')
        self.check(outcome, 0, every)
        sizes = [len(json.loads(line).get('item_base64', '')) for line in
                 semel('call', server.address, 'm', '--stream', '-o', 'json').out.splitlines()]
        self.assertLessEqual(max(sizes), 10240 * 4 // 3 + 4)
        self.check(semel('call', server.address, 'echo', '--chunk', '7KiB', '--stream', '--raw',
                         stdin=every), 0, every)

    def test_a_line_that_is_too_long(self):
        self.start('m=head -c 100000 /dev/zero | tr "\\0" x; echo; echo b', 'echo=cat',
                   options=('--body-limit', '64KiB'))
        self.check(self.call('m', '--stream'), 1, b'', 'longer than the body limit')
        outcome = self.call('echo', '--send', '--stream', '--body-limit', '1KiB',
                            stdin=b'ok\n' + b'x' * 2000 + b'\n')
        self.assertIn('--chunk', outcome.err)
        self.assertIn(outcome.code, (1, 4, 5, 9), outcome)

    def test_a_value_of_a_part_is_none(self):
        """The command ends well when it is cancelled; it had not all of the input."""
        self.start('m=trap "exit 0" TERM; echo $$ > ' + self.path('pids') +
                   '; while :; do sleep 0.05; done', 'enough=head -n 1')
        call = self.background('call', self.address, 'm', '--send', '--body-limit', '1KiB',
                               stdin=subprocess.PIPE)
        self.pids()
        call.popen.stdin.write(b'ok\n' + b'x' * 2000 + b'\n')
        call.popen.stdin.close()
        self.check(call.end(), 5, b'', 'longer than the body limit', 'not all of standard input')
        self.check(self.call('enough', '--send', stdin=b'one\n' * 1000000), 0, b'one\n')

    def test_closed_descriptors(self):
        """Nothing of the client's own is taken for standard input or output."""
        self.start('m=cat')

        def closed(redirection, *args):
            done = subprocess.run(['sh', '-c', f'exec "$0" "$@" {redirection}', TOOL, 'call',
                                   self.address, 'm', *args], stdin=subprocess.DEVNULL,
                                  capture_output=True, timeout=HANG, check=False)
            return Outcome(done.returncode, done.stdout, done.stderr.decode())

        outcome = closed('<&-', '--send', '--stream')
        self.assertIn(outcome.code, (5, 9), outcome)  # it may have begun
        self.assertIn('cannot read standard input', outcome.err)
        self.check(closed('<&-', '-'), 4, b'', 'cannot read the body from standard input')
        self.check(closed('<&-', 'x'), 0, b'x')
        self.check(closed('>&-', 'x'), 5, b'', 'standard output')
        self.check(closed('>&-', 'x', '--stream'), 5, b'', 'standard output')
        self.check(closed('2>&-', 'x'), 0, b'x')

    def test_usage(self):
        for args in (['--raw'], ['--stream', '--key', 'k'], ['--send', '-'], ['--chunk', '0'],
                     ['--chunk', 'x'], ['--stream', '--raw', '-o', 'json'],
                     ['--stream', '--outbox', self.path('o')]):
            self.check(semel('call', 'unix:/nowhere', 'm', *args), 2, b'')
        for args in (['--stream', 'nix'], ['--stream', 'm=0'], ['--stream', 'm=x']):
            self.check(semel('serve', 'unix:/nowhere', 'm=true', *args), 2, b'')
        self.check(semel('serve', 'unix:/nowhere', '--stream', 'echo'), 2, b'',
                   'echo is built in; only commands')


class Sending(Streams):
    def test_lines_and_a_body(self):
        self.start('m=cat')
        self.check(self.call('m', '--send', '--stream', stdin=b'a\n\nb'), 0, b'a\n\nb\n')
        self.check(self.call('m', 'body;', '--send', stdin=b'a\nb\n'), 0, b'body;a\nb\n')

    def test_both_ways_at_once(self):
        self.start('m=while read -r line; do echo "got $line"; done')
        call = self.background('call', self.address, 'm', '--send', '--stream',
                               stdin=subprocess.PIPE)
        for word in (b'a', b'b', b'c'):
            call.popen.stdin.write(word + b'\n')
            call.popen.stdin.flush()
            self.assertEqual(self.lines(call, 1), [b'got ' + word + b'\n'])
        call.popen.stdin.close()
        self.check(call.end(), 0, b'')

    def test_a_command_that_does_not_want_it(self):
        self.start('m=echo enough', 'k=exec <&-; sleep 0.3; exit 3')
        call = self.background('call', self.address, 'm', '--send', '--stream',
                               stdin=subprocess.PIPE)  # which never ends
        call.popen.wait(HANG)
        self.check(call.end(), 0, b'enough\n')
        call.popen.stdin.close()
        self.check(self.call('k', '--send', stdin=b'x\n' * 100000), 1, b'', 'code 3')

    def test_the_caller_is_killed(self):
        self.start('m=echo $$ > ' + self.path('pids') + '; cat',
                   options=['--drain=1s'])  # the client, which was killed, is waited for
        call = self.background('call', self.address, 'm', '--send', '--stream', '--timeout', '2s',
                               stdin=subprocess.PIPE)
        call.popen.stdin.write(b'a\n')
        call.popen.stdin.flush()
        self.assertEqual(self.lines(call, 1), [b'a\n'])
        pid, = self.pids()
        call.end(signal.SIGKILL)
        call.popen.stdin.close()
        # Its session might come back; the call's deadline ends the wait.
        self.wait_until(lambda: not alive(pid), 'the command waits for nobody')


class Progress(Streams):
    """Its commands go on when what they said has been seen: only the latest of it counts."""

    def gate(self, number):
        return f'until [ -e {self.path("go")}{number} ]; do sleep 0.02; done'

    def go(self, number):
        with open(f'{self.path("go")}{number}', 'w', encoding='utf-8'):
            pass

    def method(self):
        return f'm=echo 1/3 >&4; {self.gate(1)}; echo 3/3 >&4; {self.gate(2)}; echo done'

    def lines_of(self, method, *words):
        for number in (1, 2):
            if os.path.exists(f'{self.path("go")}{number}'):
                os.remove(f'{self.path("go")}{number}')
        call = self.background('call', self.address, method, '--progress')
        for number, word in enumerate(words, 1):
            call.await_line(word)
            self.go(number)
        return call.end()

    def test_lines(self):
        self.start(self.method(), f'w=echo 40 % >&4; {self.gate(1)}; echo "\\033[31mwords" >&4; '
                   f'{self.gate(2)}')
        outcome = self.lines_of('m', 'progress: 1/3', 'progress: 3/3')
        self.check(outcome, 0, b'done\n')
        self.assertNotIn('#', outcome.err)
        self.check(self.lines_of('w', '40 %', '\\x1b[31mwords'), 0, b'')
        outcome = self.call('m', '--progress', '-q')
        self.check(outcome, 0, b'done\n')
        self.assertEqual(outcome.err, '')
        outcome = self.call('m', '--stream')
        self.assertEqual((outcome.code, outcome.err), (0, ''))

    def test_with_a_store(self):
        if os.environ.get('SEMEL_STORES', '1') != '1':
            self.skipTest('built without stores')
        self.start(self.method(), options=('--store', self.store()))
        self.check(self.lines_of('m', 'progress: 1/3', 'progress: 3/3'), 0, b'done\n')

    def on_terminal(self, words, *args):
        """What a call writes to a terminal that is its standard error."""
        ours, theirs = pty.openpty()
        with subprocess.Popen([TOOL, 'call', self.address, *args], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=theirs) as call:
            os.close(theirs)
            shown = b''
            while select.select([ours], [], [], HANG)[0]:
                try:
                    shown += os.read(ours, 4096)
                except OSError:
                    break
                for number, word in enumerate(words, 1):
                    if word in shown:
                        self.go(number)
            out = call.stdout.read()
            call.wait(HANG)
        os.close(ours)
        return call.returncode, out, shown

    def test_a_bar(self):
        self.start(self.method(), f'w=echo words >&4; {self.gate(3)}')
        code, out, shown = self.on_terminal((b'1/3', b'3/3'), 'm', '--progress')
        self.assertEqual((code, out), (0, b'done\n'))
        self.assertRegex(shown, rb'\[#{10} {20}\]  33 % 1/3')
        self.assertRegex(shown, rb'\[#{30}\] 100 % 3/3')
        self.assertTrue(shown.endswith(b'\r\x1b[K'), shown)  # nothing of it is left
        code, out, shown = self.on_terminal((b'-', b'-', b'words'), 'w', '--progress')
        self.assertEqual(code, 0)
        self.assertIn(b'words', shown)
        self.assertNotIn(b'[#', shown)


class Ends(Streams):
    def test_interrupt(self):
        self.start('m=echo one; sleep 100', options=('--kill-after', '1s'))
        call = self.background('call', self.address, 'm', '--stream', '--timeout', '100s')
        self.assertEqual(self.lines(call, 1), [b'one\n'])
        outcome = call.end(signal.SIGINT)
        self.check(outcome, 5, b'', 'cancelling', 'killed by signal 15')

    def test_interrupt_with_a_last_word(self):
        self.start('m=trap "echo last; exit 0" TERM; echo one; while true; do sleep 0.05; done')
        call = self.background('call', self.address, 'm', '--stream', '--timeout', '100s')
        self.assertEqual(self.lines(call, 1), [b'one\n'])
        outcome = call.end(signal.SIGINT)
        self.assertEqual(outcome.code, 0, outcome)
        # What came after the cancellation may be missing, and then that is said.
        self.assertTrue(outcome.out == b'last\n' or 'missing' in outcome.err, outcome)

    def test_interrupted_twice(self):
        self.start('m=trap "" TERM; echo one; sleep 100 & wait; sleep 100',
                   options=('--kill-after', '3s'), clean=False)
        call = self.background('call', self.address, 'm', '--stream', '--timeout', '100s')
        self.assertEqual(self.lines(call, 1), [b'one\n'])
        call.signal(signal.SIGINT)
        call.await_line('cancelling')
        self.check(call.end(signal.SIGINT), 5, b'', 'gave up')

    def test_deadline(self):
        self.start('m=echo one; sleep 100', 'm2=kill $$', options=('--kill-after', '100ms'))
        self.check(self.call('m', '--stream', '--timeout', '500ms'), 5, b'one\n',
                   "the call's deadline, 500ms, has passed; see --timeout")
        self.check(self.call('m', '--timeout', '500ms'), 5, b'', 'deadline, 500ms, has passed')
        outcome = self.call('m2', '--timeout', '500s')
        self.check(outcome, 5, b'', 'killed by signal')
        self.assertNotIn('deadline', outcome.err)

    def test_nobody_reads(self):
        self.start('m=echo $$ > ' + self.path('pids') + '; exec seq 100000000')
        call = subprocess.Popen([TOOL, 'call', self.address, 'm', '--stream', '--timeout', '100s'],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual(call.stdout.readline(), b'1\n')
        call.stdout.close()
        err = call.stderr.read().decode()
        call.stderr.close()
        self.assertEqual(call.wait(HANG), 5, err)
        self.assertIn('standard output was closed', err)
        pid, = self.pids()
        self.wait_until(lambda: not alive(pid), 'the command went on for nobody')

    def test_output_that_is_full(self):
        self.start('m=seq 100000')
        with open('/dev/full', 'wb') as full:
            done = subprocess.run([TOOL, 'call', self.address, 'm', '--stream'], stdout=full,
                                  stderr=subprocess.PIPE, timeout=HANG, check=False)
        self.assertEqual(done.returncode, 5, done.stderr)
        self.assertIn(b'No space left', done.stderr)

    def test_the_server_dies(self):
        server = self.start('m=echo one; sleep 100', clean=False)
        call = self.background('call', self.address, 'm', '--stream', '--timeout', '5s')
        self.assertEqual(self.lines(call, 1), [b'one\n'])
        server.end(signal.SIGKILL)
        self.check(call.end(), 5, b'')

    def test_cuts(self):
        count = 60000 if sanitized() else 300000
        self.start(f'down=seq {count}', 'up=cksum', 'both=cat')
        data = b''.join(b'%d\n' % i for i in range(1, count + 1))
        want = subprocess.run(['cksum'], input=data, stdout=subprocess.PIPE, check=True).stdout
        proxy = self.proxy(self.address, '--cut-every', '15ms', '--mid-frame', '--seed', '7')
        args = ('--timeout', '100s', '-v')
        outcome = semel('call', proxy.address, 'down', '--stream', *args)
        self.assertEqual((outcome.code, outcome.out == data), (0, True), outcome.err)
        self.check(semel('call', proxy.address, 'up', '--send', *args, stdin=data), 0, want)
        outcome = semel('call', proxy.address, 'both', '--send', '--stream', *args, stdin=data)
        self.assertEqual((outcome.code, outcome.out == data), (0, True), outcome.err)
        self.assertGreater(json.loads(proxy.end(signal.SIGTERM).out.splitlines()[-1])['cuts'], 3)


class Bounds(Streams):
    def flow(self, args, feed):
        size = GIB // 16 if sanitized() else GIB
        server = self.serve(f'down=head -c {size} /dev/zero', 'both=cat', '--stream', 'down=64KiB',
                            '--stream', 'both=64KiB')
        call = subprocess.Popen([TOOL, 'call', server.address, *args, '--timeout', '100s'],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)

        def write():
            with call.stdin:
                for _ in range(size >> 20 if feed else 0):
                    call.stdin.write(bytes(1 << 20))

        writer = threading.Thread(target=write)
        writer.start()
        got = peak = 0
        while True:
            data = call.stdout.read1(1 << 20)
            if not data:
                break
            got += len(data)
            if got > size // 2 and not peak:
                time.sleep(0.5)  # all that may wait has come by then
                peak = max(peak_kib(call.pid), peak_kib(server.popen.pid))
        writer.join()
        call.stdout.close()
        self.assertEqual((call.wait(HANG), got), (0, size))
        if not sanitized():
            self.assertLess(peak, RSS_KIB)

    def test_a_gib_from_the_method(self):
        self.flow(['down', '--stream', '--raw'], False)

    def test_a_gib_there_and_back(self):
        self.flow(['both', '--chunk', '64KiB', '--stream', '--raw'], True)


if __name__ == '__main__':
    main()
