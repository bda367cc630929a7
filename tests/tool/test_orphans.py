#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Programs that outlive a killed server with a store: nothing is said of their calls before they
are gone."""

import os
import shutil
import signal
import subprocess

from toolkit import HANG, ToolCase, alive, main, needs_stores, semel


@needs_stores
class Orphans(ToolCase):
    """A command writes its process id to `pids`, and what it does late to `effect`."""

    def serve_store(self, *args, **more):
        return self.serve('--store', self.store(), *args, **more)

    def start(self, command, *args, count=1):
        """A server that is killed while `command` runs: the call, and the command's pids."""
        command = command.replace('PIDS', self.path('pids')).replace('EFFECT', self.path('effect'))
        server = self.serve_store('late=' + command, *args)
        call = self.calling(server.address, 'late', '--timeout', '500s')
        pids = self.pids(count=count)
        server.end(signal.SIGKILL)
        for pid in pids:
            self.assertTrue(alive(pid))
        return call, pids

    def restart(self, *args):
        server = self.background('serve', 'unix:' + self.path('s'), '--store', self.store(),
                                 'late=true', *args)
        server.await_line('listening at')
        return server

    def ended(self, pids, server=None):
        for pid in pids:
            self.assertFalse(alive(pid), 'it still runs' + repr(server and server.lines))

    def test_they_are_ended_first(self):
        call, pids = self.start('echo $$ >> PIDS; sleep 1000; echo late >> EFFECT')
        server = self.restart('-v')
        self.ended(pids, server)
        server.await_line('of the previous server still run')
        server.await_line('have ended, after')
        self.check(call.end(), 5, b'', 'the server died while it ran')
        self.assertFalse(os.path.exists(self.path('effect')))
        self.check(server.end(signal.SIGTERM), 0)

    def test_they_have_time_to_clean_up(self):
        call, pids = self.start('trap "echo undone >> EFFECT; exit 1" TERM; echo $$ >> PIDS; '
                                'sleep 1000 & wait')
        server = self.restart('--kill-after', f'{HANG}s')
        self.ended(pids, server)
        self.assertEqual(self.executions('effect'), 1)
        self.check(call.end(), 5)

    def test_the_deaf_are_killed(self):
        call, pids = self.start('trap "" TERM; sh -c "echo \\$\\$ >> PIDS; exec sleep 1000" & '
                                'echo $$ >> PIDS; wait', count=2)
        server = self.restart('--kill-after', '200ms')
        self.ended(pids, server)
        server.await_line('SIGTERM, and SIGKILL after 200ms')
        self.check(call.end(), 5)

    def test_wait(self):
        go = self.path('go')
        call, pids = self.start(f'echo $$ >> PIDS; while [ ! -e {go} ]; do sleep 0.05; done; '
                                'echo late >> EFFECT')
        server = self.background('serve', 'unix:' + self.path('s'), '--store', self.store(),
                                 'late=true', '--orphans', 'wait')
        server.await_line(f'{pids[0]}')
        self.assertFalse([line for line in server.lines if 'listening' in line], server.lines)
        self.assertIsNone(call.popen.poll(), 'it ended too early')
        self.assertTrue(alive(pids[0]))
        with open(go, 'w', encoding='utf-8'):
            pass
        self.check(call.end(), 5, b'', 'the server died while it ran')
        self.assertEqual(self.executions('effect'), 1)  # it happened before
        server.await_line('listening at')

    def test_a_signal_ends_the_waiting(self):
        self.start('echo $$ >> PIDS; exec sleep 1000')
        server = self.background('serve', 'unix:' + self.path('s'), '--store', self.store(),
                                 'late=true', '--orphans', 'wait')
        server.await_line('waiting')
        self.assertEqual(server.end(signal.SIGTERM).code, -signal.SIGTERM)
        self.assertTrue(alive(self.pids()[0]))

    def test_signs_that_are_lost(self):
        """Each hides from two of the three signs: mark, descriptor, process group."""
        call, pids = self.start(
            'env -u SEMEL_STORE setsid sh -c "echo \\$\\$ >> PIDS; exec sleep 1000" & '
            'setsid sh -c "echo \\$\\$ >> PIDS; exec sleep 1000" 3>&- & '
            'env -i /bin/sh -c "echo \\$\\$ >> PIDS; exec sleep 1000" 3>&- & '
            'wait', count=3)
        server = self.restart()
        self.ended(pids, server)
        self.check(call.end(), 5)

    def test_who_gives_up_all_three_goes_on(self):
        server = self.serve_store('bg=env -u SEMEL_STORE setsid sh -c '
                                  f'"echo \\$\\$ >> {self.path("pids")}; exec sleep 1000" '
                                  '3>&- >/dev/null 2>&1 &')
        self.check(semel('call', server.address, 'bg'), 0)
        pids = self.pids()
        server.end(signal.SIGKILL)
        server = self.restart('-v')
        self.assertTrue(alive(pids[0]))
        self.assertFalse([line for line in server.lines if 'previous' in line], server.lines)

    def test_what_a_server_left_when_it_ended_well(self):
        server = self.serve_store(f'bg=sh -c "echo \\$\\$ >> {self.path("pids")}; '
                                  'exec sleep 1000" >/dev/null 2>&1 &')
        self.check(semel('call', server.address, 'bg'), 0)
        pids = self.pids()
        self.check(server.end(signal.SIGTERM), 0)
        self.assertTrue(alive(pids[0]))
        self.ended(pids, self.restart())

    def test_others_are_left_alone(self):
        """A copy of the store has programs of its own; and looking at the file is no crime."""
        self.serve_store().end(signal.SIGTERM)
        shutil.copy(self.path('store.db'), self.path('copy.db'))
        copy = self.serve('--store', self.store('copy.db'), name='c', clean=False)
        copy.end(signal.SIGTERM)
        copy = self.serve('--store', self.store('copy.db'), 'late=echo $$ >> '
                          f'{self.path("others")}; exec sleep 1000', name='c', clean=False)
        call = self.calling(copy.address, 'late', '--timeout', '500s')
        others = self.pids('others')
        with open(self.path('store.db-semel-run'), encoding='utf-8') as file:
            reader = subprocess.Popen(['sleep', '1000'], stdin=file, start_new_session=True)
            self.addCleanup(lambda: (reader.kill(), reader.wait()))
        _, pids = self.start('echo $$ >> PIDS; exec sleep 1000')
        self.ended(pids, self.restart())
        self.assertTrue(alive(others[0]))
        self.assertIsNone(reader.poll())
        call.end(signal.SIGKILL)
        copy.end(signal.SIGKILL)

    def test_a_server_that_one_of_them_starts(self):
        """It inherits the lock, and the mark; it must not wait for itself."""
        start = self.path('start.sh')
        pids = self.path('pids')
        with open(start, 'w', encoding='utf-8') as file:
            file.write(f'echo $$ >> {pids}\nwhile [ ! -e {self.path("go")} ]; do sleep 0.05; done\n'
                       f'exec "$TOOL" serve unix:{self.path("s")} --store {self.store()} late=true '
                       f'2> {self.path("said")}\n')
        environment = dict(os.environ)
        environment['TOOL'] = os.environ.get('SEMEL_TOOL') or semel.__globals__['TOOL']
        server = self.background('serve', 'unix:' + self.path('s'), '--store', self.store(),
                                 f'late=setsid sh {start}', env=environment)
        server.await_line('listening at')
        call = self.calling('unix:' + self.path('s'), 'late', '--timeout', '500s')
        self.pids()
        server.end(signal.SIGKILL)
        with open(self.path('go'), 'w', encoding='utf-8'):
            pass
        self.check(call.end(), 5)
        with open(self.path('said'), encoding='utf-8') as file:
            self.assertIn('listening at', file.read())


if __name__ == '__main__':
    main()
