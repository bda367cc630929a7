# SPDX-License-Identifier: MIT
"""The checker of traces accepts what can happen, and says from where on something else cannot; and
what the simulator does, which runs the shipped code, can happen in the model."""

import collections
import concurrent.futures
import os
import subprocess
import tempfile
import unittest

import model
import replay

TRACES = os.path.join(model.HERE, 'traces')

# --- what the simulator is told ------------------------------------------------------------------

FAULTS = 'cut,cut-mid-frame,half-open-server,half-open-client,silence-up,silence-down,late-bytes,' \
         'late-hello,slow-handler,hanging-handler,dropped-request,max-run,full-queue,' \
         'reordered-queue,cancel,short-deadline,store-slow,once,transactional,crash-rerun,'
CRASHES = 'restart,power-cut,crash-point,deadly-handler'
STORES = 'restart,shutdown,crash-point,store-unknown,store-refuses,store-full,spoiler'

# Name: the options, and events that must be in these traces.
WORLDS = {
    'everything': ('--mode store --seeds 1..100', 'up done ack got-list busy cancel quiet'),
    'no call is lost': ('--mode steady --seeds 1..60', 'up done ack got-list quiet'),
    'crashes': (f'--mode store --seeds 1..120 --only {FAULTS}{CRASHES} --with {CRASHES}',
                'crash restore got-list quiet'),
    'stores': (f'--mode store --seeds 1..120 --only {FAULTS}{STORES} --with {STORES}',
               'crash stop restore unknown not-stored quiet'),
    'in memory': ('--mode calm --seeds 1..40', 'bye got-list quiet'),
}

HEAD = ('calls', 'window', 'memory', 'hides', '#')

# Seeded on purpose (src/base/bug.h), and seen in the trace of one of these seeds.
BUGS = 'BASE_NOT_RAISED BASE_IN_MEMORY CONN_NO_NOT_COMPARED LOST_TXN_TOLD NOT_EXECUTED_UNPROVEN ' \
       'REPLY_BEFORE_COMMIT RESENDS_ON_TIMER WELCOME_EARLY'
BUG_SEEDS = '--mode store --seeds 1..60'


def read(folder):
    for name in sorted(os.listdir(os.path.join(TRACES, folder))):
        with open(os.path.join(TRACES, folder, name), encoding='utf-8') as file:
            yield name, file.read()


class Traces(unittest.TestCase):
    builds = None

    @classmethod
    def setUpClass(cls):
        if model.missing():
            raise RuntimeError(f'no trace can be followed: {model.missing()}')
        cls.builds = model.Builds()

    @classmethod
    def tearDownClass(cls):
        if cls.builds:
            cls.builds.close()

    def check(self, text):
        return replay.check(self.builds, text)

    def test_legal_traces_are_accepted(self):
        for name, text in read('legal'):
            with self.subTest(name):
                self.assertIsNone(self.check(text))

    def test_every_beginning_of_a_legal_trace_is_accepted(self):
        for name, text in read('legal'):
            lines = text.splitlines()
            for end, line in enumerate(lines):
                if line.split(' ')[0] not in ('call', 'got-call', 'run', 'up', 'reply'):
                    continue  # others may be of the same step as the line before
                with self.subTest(name, end=end):
                    self.assertIsNone(self.check('\n'.join(lines[:end])))

    def test_illegal_traces_are_refused_where_they_are_wrong(self):
        for name, text in read('illegal'):
            with self.subTest(name):
                stopped = self.check(text)
                self.assertIsNotNone(stopped, 'it is accepted')
                self.assertEqual(text.splitlines()[stopped[0] - 2].strip(), '# here')

    def test_what_the_model_does_it_accepts(self):
        for flags in ('K=3 W=2 KIND2=TRANS KIND3=IDEM CUTS=2 CRASHES=1 CANCELS=1 GIVEUPS=1',
                      'K=2 KIND1=TRANS CUTS=1 CRASHES=1 NOTS=1 CANCELS=1',
                      'K=2 KIND2=RERUN CUTS=1 STOPS=1 BUSIES=1 EXPIRES=1',
                      'K=2 STORE=0 CUTS=1 CANCELS=1 BUSIES=1'):
            with self.subTest(flags):
                steps = model.search(self.builds, flags + ' SHOW_END').steps
                self.assertGreater(len(steps), 30)
                for order in (1, -1):
                    events = [event for step in steps for event in step[::order]]
                    text = '\n'.join(replay.head_of(flags) + events)
                    self.assertIsNone(self.check(text))

    def simulate(self, program, options):
        """(the status, [(seed, trace)]) of worlds with three calls."""
        path = os.environ.get(program)
        self.assertTrue(path, f'{program}, where the simulator is, is not set: see meson.build')
        with tempfile.TemporaryDirectory(prefix='traces-') as folder:
            done = subprocess.run([path] + options + ['--calls', '3', '--trace', folder],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            seeds = sorted(int(name.split('.')[0]) for name in os.listdir(folder))
            traces = []
            for seed in seeds:
                with open(os.path.join(folder, f'{seed}.trace'), encoding='utf-8') as file:
                    traces.append((seed, file.read()))
        return done.returncode, traces

    def test_what_the_simulator_does_the_model_can_do(self):
        for name, (options, must) in WORLDS.items():
            with self.subTest(name):
                first, last = options.split('--seeds ')[1].split()[0].split('..')
                status, done = self.simulate('SEMEL_SIM', options.split())
                with concurrent.futures.ThreadPoolExecutor(2) as workers:
                    stopped = list(workers.map(self.check, [text for _, text in done]))
                words = (line.split()[0] for _, text in done for line in text.splitlines())
                events = collections.Counter(word for word in words if word not in HEAD)
                print(f'{name}: {len(done)} traces, {sum(events.values())} events: ' +
                      ' '.join(f'{event} {events[event]}' for event in must.split()), flush=True)
                self.assertEqual(status, 0)
                self.assertEqual([seed for seed, _ in done],
                                 list(range(int(first), int(last) + 1)))
                for (seed, text), where in zip(done, stopped):
                    self.assertIsNone(where, f'sim {options}: seed {seed}:\n{text}')
                for event in must.split():
                    self.assertGreater(events[event], 0, f'no trace has {event}')

    def test_bugs_of_the_shipped_code_are_seen_in_its_traces(self):
        for bug in BUGS.split():
            with self.subTest(bug):
                _, done = self.simulate('SEMEL_SIM_BUGS', ['--bug', bug] + BUG_SEEDS.split())
                seen = next(((seed, stopped) for seed, stopped in
                             ((seed, self.check(text)) for seed, text in done) if stopped), None)
                self.assertIsNotNone(seen, f'the model can do what {len(done)} traces show')
                print(f'{bug}: seed {seen[0]}, line {seen[1][0]}: {seen[1][1]}', flush=True)

    def test_hidden_events_may_be_there_or_not(self):
        text = 'calls once\nhides call\nhides got-call\nhello 1 next 1 list -\n'
        self.assertIsNone(self.check(text + 'got-hello 1\ncall 1\n'))
        self.assertIsNone(self.check(text + 'got-hello 1\n'))

    def test_what_is_no_trace_is_not_read(self):
        for text, why in (
                ('hello 1 next 1 list -', 'does not say which calls'),
                ('calls twice', 'kinds of calls'),
                ('calls once\nhullo 1', 'line 2: no such event'),
                ('calls once\n\nack 4', 'line 3: not a number from 0 to 3'),
                ('calls once\ndone 1 perhaps', 'not a verdict'),
                ('calls once\nhello 1 next 1', 'followed by 5 words'),
                ('calls once\nhello 1 last 1 list -', 'not "next"'),
                ('calls once\nbye bye', 'not a reason')):
            with self.subTest(text):
                with self.assertRaisesRegex(replay.Unreadable, why):
                    self.check(text)


if __name__ == '__main__':
    unittest.main()
