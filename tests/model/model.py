#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the tests of the model share: what is searched, which guards there are, how SPIN is run.

By hand:  model.py search [NAME...]   complete searches, of all without a name
          model.py guard [NAME...]    the shortest way to go wrong without a guard, step by step
          model.py table              the searches, as rows for README.md
"""

import collections
import concurrent.futures
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
MEGABYTES_MAX = 1200

# --- what is searched ----------------------------------------------------------------------------

# Each is complete within its bounds (bounds.pml): every order of events and every choice.
# "ends": besides, no run goes on for ever (SPIN's search for non-progress cycles, with no step
# called progress: there is no cycle at all). It costs three times as much.
Search = collections.namedtuple('Search', 'ends flags')
SEARCHES = {
    'once': Search(True, 'K=2 CUTS=2 CRASHES=1'),
    'once, cancelled': Search(False, 'K=2 CUTS=1 CRASHES=1 CANCELS=1 GIVEUPS=1'),
    'once, often': Search(False, 'K=2 CUTS=2 CRASHES=2'),
    'once, the store refuses': Search(False, 'K=2 CUTS=1 CRASHES=1 NOTS=1 CANCELS=1 GIVEUPS=1'),
    'one call': Search(True, 'CUTS=3 CRASHES=2 NOTS=1'),
    'one call, too late': Search(
        True, 'CUTS=1 CRASHES=1 NOTS=1 CANCELS=1 GIVEUPS=1 EXPIRES=1 MAXRUNS=1 DROPS=1'),
    'three calls': Search(False, 'K=3 W=2 CUTS=2 CRASHES=1'),
    'three kinds': Search(True, 'K=3 W=2 KIND2=TRANS KIND3=IDEM CUTS=1 CRASHES=1'),
    'transactional': Search(
        False, 'K=2 KIND1=TRANS CUTS=1 CRASHES=1 NOTS=1 CANCELS=1 GIVEUPS=1'),
    'transactional, often': Search(
        False, 'K=2 KIND1=TRANS CUTS=2 CRASHES=1 NOTS=1 CANCELS=1'),
    'transactional, one call': Search(
        True, 'KIND1=TRANS CUTS=2 CRASHES=1 NOTS=2 CANCELS=1 GIVEUPS=1 DROPS=1'),
    'transactional, deadly': Search(
        True, 'KIND1=TRANS CUTS=1 CRASHES=3 DEATHS_MAX=2 CANCELS=1 GIVEUPS=1'),
    'unknown': Search(
        True, 'K=2 KIND2=TRANS CUTS=1 UNKNOWNS=1 CANCELS=1 GIVEUPS=1'),
    'idempotent': Search(
        False, 'K=2 KIND1=IDEM KIND2=RERUN CUTS=1 CRASHES=1 CANCELS=1 GIVEUPS=1 BUSIES=1'),
    'long replies': Search(
        True, 'KIND1=IDEM PARTS CUTS=2 CRASHES=2 CANCELS=1 GIVEUPS=1'),
    'takeover': Search(False, 'P=3 CUTS=3 CRASHES=2'),
    'in memory': Search(
        True, 'K=2 STORE=0 CUTS=1 CRASHES=1 CANCELS=1 GIVEUPS=1 BUSIES=1'),
    'in memory, often': Search(
        False, 'STORE=0 P=3 CUTS=3 CRASHES=2 IDLES=1 CANCELS=1 GIVEUPS=1 BUSIES=1'),
    'expiry': Search(True, 'IDLES=1 CUTS=2 CRASHES=1 CANCELS=1 GIVEUPS=1'),
    'stopped': Search(True, 'K=2 KIND2=TRANS STOPS=1 CUTS=1 CANCELS=1 GIVEUPS=1'),
    'a key twice': Search(True, 'K=2 KEYED CUTS=1 CRASHES=1 CANCELS=1 GIVEUPS=1'),
    'a key in two sessions': Search(False, 'S=2 KEYED CUTS=1 CRASHES=1 CANCELS=1'),
    'a key in two transactions': Search(True, 'S=2 KEYED KIND1=TRANS CUTS=1 NOTS=1'),
    'a key, and its client leaves': Search(True, 'S=2 KEYED LEAVES=1 CRASHES=1'),
    'a key made again': Search(
        True, 'S=2 KEYED RESUBMIT CUTS=2 IDLES=1 CRASHES=1 CANCELS=1 GIVEUPS=1'),
    'a key made again, transactional': Search(
        True, 'S=2 KEYED RESUBMIT KIND1=TRANS CUTS=2 IDLES=1 NOTS=1 CANCELS=1'),
    'calls repeated': Search(True, 'CUTS=2 CRASHES=1 REPEATS=2 CANCELS=1'),
    'a copied client': Search(True, 'CUTS=2 CRASHES=1 CLONES=1 EFFECTS_ONLY'),
}

# --- guards --------------------------------------------------------------------------------------

# Taken away, with its partners where it has some, there must be a way to go wrong within these
# bounds; with "ends", one that goes on for ever. With its partners kept nothing happens.
Guard = collections.namedtuple('Guard', 'flags partners ends', defaults=((), False))
GUARDS = {
    'CONN_NO': Guard('CUTS=1'),
    'HELD_WELCOME': Guard('CRASHES=1'),
    'HELD_NEWEST': Guard('CUTS=1'),
    'CONN_STORED': Guard('CUTS=1 CRASHES=1'),
    'CURRENT': Guard('CUTS=1'),
    'RESUME_ONLY': Guard('CUTS=2 IDLES=1 EFFECTS_ONLY'),
    'SERVER_ID': Guard('STORE=0 CUTS=2 CRASHES=1'),
    'CREATE_AGE': Guard('CUTS=2 IDLES=1 EFFECTS_ONLY'),
    'DURABLE_HI': Guard('CUTS=1 CRASHES=1 CLONES=1 EFFECTS_ONLY', ('BASE_RISES',)),
    'NEXT_HI': Guard('CUTS=3 EFFECTS_ONLY', ('CONN_NO',)),
    'LISTED_RELEASED': Guard('CUTS=1 CLONES=1 EFFECTS_ONLY'),
    'KNOWN_TO': Guard('K=2 CUTS=1 CRASHES=1'),
    'UNLISTED': Guard('CUTS=1'),
    'HI_NEXT': Guard('K=2 CUTS=1 CANCELS=1 GIVEUPS=1'),
    'STANDS': Guard('CUTS=1', ('ATTACH',)),
    'RESEND_DONE': Guard('CUTS=1'),
    'PARTS_SEEN': Guard('KIND1=IDEM PARTS CRASHES=1 EFFECTS_ONLY', ('PARTS_DROPPED',)),
    'PARTS_DROPPED': Guard('KIND1=IDEM PARTS CRASHES=1'),
    'KEPT': Guard(''),
    'DEDUP': Guard('REPEATS=1'),
    'ATTACH': Guard('REPEATS=1'),
    'DOOMED': Guard('CANCELS=1'),
    'BEGIN_WANTED': Guard('CANCELS=1 GIVEUPS=1'),
    'FIRST_VERDICT': Guard('MAXRUNS=1'),
    'START_FIRST': Guard('CRASHES=1'),
    'END_FIRST': Guard('CRASHES=1'),
    'CANCEL_STORED': Guard('CANCELS=1'),
    'ROW_KEPT': Guard('KIND1=TRANS CRASHES=1 CANCELS=1'),
    'BATCH_HOLDS': Guard('CANCELS=1 GIVEUPS=1'),
    'TXN_ATOMIC': Guard('KIND1=TRANS CRASHES=1 EFFECTS_ONLY'),
    'UNDO': Guard('KIND1=TRANS CANCELS=1 EFFECTS_ONLY'),
    'COMMITTED': Guard('NOTS=1'),
    'UNKNOWN_NOT': Guard('KIND1=TRANS UNKNOWNS=1'),
    'UNKNOWN_IS': Guard('UNKNOWNS=1'),
    'BASE_RISES': Guard(''),
    'BASE_ATOMIC': Guard(''),
    'STRAGGLERS': Guard('K=2'),
    'STRAGGLER_KEYED': Guard('K=2 KEYED CRASHES=1'),
    'DELETE_FIRST': Guard('IDLES=1 CUTS=2 CRASHES=1 EFFECTS_ONLY'),
    'DHI_RESTORED': Guard('K=2 CRASHES=1'),
    'ONCE_UNKNOWN': Guard('CRASHES=1'),
    'BEGUN': Guard('KIND1=RERUN CRASHES=1 CANCELS=1'),
    'DOUBTFUL': Guard('KIND1=IDEM CRASHES=1 CANCELS=1 GIVEUPS=1 BUSIES=1'),
    'BEGUN_SAID': Guard('KIND1=RERUN CRASHES=1 CANCELS=1 GIVEUPS=1 BUSIES=1'),
    'IN_DOUBT': Guard('KIND1=IDEM CRASHES=1 CANCELS=1'),
    'IN_DOUBT_OPEN': Guard('K=2 KIND1=IDEM KIND2=ONCE CRASHES=1 CANCELS=1'),
    'IN_DOUBT_KEPT': Guard('KIND1=IDEM CRASHES=1 CANCELS=1'),
    'KEEPS_RECORDS': Guard('CRASHES=1 CANCELS=1'),
    'CANCEL_WAITS': Guard('CRASHES=1 CANCELS=1'),
    'SENT_IN_DOUBT': Guard('CRASHES=1 CANCELS=1'),
    'SUSPECT': Guard('KIND1=TRANS CRASHES=2 DEATHS_MAX=2'),
    'UNSTART': Guard('STOPS=1'),
    'KEY_ASKED': Guard('K=2 KEYED'),
    'KEY_STARTED': Guard('K=2 KEYED'),
    'KEY_SAME': Guard('KEYED STOPS=1', (), True),
    'KEY_FREED': Guard('K=2 KEYED CANCELS=1'),
    'KEY_OWN': Guard('K=3 KEYED KIND1=TRANS CRASHES=1 CANCELS=1'),
    'KEEP_KEYED': Guard('S=2 KEYED CANCELS=1 GIVEUPS=1'),
    'LEAVE_STORED': Guard('S=2 KEYED CANCELS=1 GIVEUPS=1'),
    'KEY_FORGOTTEN': Guard('S=2 KEYED LEAVES=1'),
    'KEY_GONE': Guard('S=2 KEYED LEAVES=1 CRASHES=1'),
    'PROVEN_ONLY': Guard('S=2 KEYED RESUBMIT IDLES=1 CUTS=2 CANCELS=1'),
    'PROVEN_UNDONE': Guard('K=2 KEYED KIND1=TRANS NOTS=1'),
    'LISTED_ACK': Guard('CUTS=1 CANCELS=1 GIVEUPS=1'),
    'ACK_FIRST': Guard('K=2 W=1', ('ACK_COUNTED',)),
    'ACK_COUNTED': Guard('K=2 W=1', ('ACK_FIRST',)),
    'BUSY_ONLY': Guard('CANCELS=1 GIVEUPS=1'),
    'LOST_UNKNOWN': Guard('IDLES=1 CUTS=2'),
    'EXPECTED_AGAIN': Guard('CUTS=1'),
    'CANCEL_AGAIN': Guard('CUTS=1 CANCELS=1'),
}

# --- running -------------------------------------------------------------------------------------

Result = collections.namedtuple('Result', 'states depth seconds megabytes error steps')


def compiler():
    """The words of the C compiler, None if there is none."""
    for words in (os.environ.get('CC', ''), 'cc', 'gcc', 'clang'):
        words = shlex.split(words)
        if words and shutil.which(words[0]):
            return words
    return None


def missing():
    """Why nothing can be searched here; None: it can."""
    if not shutil.which('spin'):
        return 'spin is not installed (tools/deps.sh installs it)'
    return None if compiler() else 'there is no C compiler'


# What the model is built with; all else is said to what was built (settings.h).
SIZES = set('K S W P N STORE KIND1 KIND2 KIND3 KEYED RESUBMIT PARTS TRACE'.split())


def split(flags):
    """(what to build with, what to say to it)"""
    words = flags.split()
    built = [word for word in words if word.split('=')[0] in SIZES]
    return ' '.join(built), ' '.join(word for word in words if word not in built)


Done = collections.namedtuple('Done', 'status out seconds')  # seconds of a processor


def run(command, folder, settings=''):
    with tempfile.TemporaryFile() as out:
        child = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out,
                                 stderr=subprocess.STDOUT, env=dict(
                                     os.environ, MODEL=settings, MALLOC_PERTURB_='0'))
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = status
        out.seek(0)
        return Done(status, out.read().decode(errors='replace'), used.ru_utime + used.ru_stime)


def must(command, folder):
    done = run(command, folder)
    if done.status:
        raise RuntimeError(f'{" ".join(command)}\nended with {done.status}:\n{done.out[-4000:]}')
    return done.seconds


class Builds:
    """Programs that search, each built when it is first asked for, and gone with this."""

    def __init__(self):
        self.lock = threading.Lock()
        self.folder = tempfile.TemporaryDirectory(prefix='model-')
        self.locks, self.built = {}, {}
        self.seconds = 0.0  # of a processor

    def close(self):
        self.folder.cleanup()

    def get(self, sizes, options):
        """The `pan` that was built so."""
        with self.lock:
            one = self.locks.setdefault((sizes, options), threading.Lock())
        with one:
            if (sizes, options) not in self.built:
                folder = tempfile.mkdtemp(dir=self.folder.name)
                self.seconds += build(folder, sizes, options)
                self.built[sizes, options] = os.path.join(folder, 'pan')
            return self.built[sizes, options]


def build(folder, sizes, options):
    """Make `pan`, which searches the model of these sizes, in `folder`. Seconds of a processor."""
    preprocess = ' '.join(compiler() + ['-std=gnu99', '-E', '-x', 'c'])
    seconds = must(['spin', '-P' + preprocess] + [f'-D{size}' for size in sizes.split()] +
                   ['-a', os.path.join(HERE, 'session.pml')], folder)
    header = os.path.join(folder, 'pan.h')
    with open(header, encoding='utf-8') as file:
        text = file.read()
    # What is hidden here is set at the beginning, or used within one step only, so that a
    # breadth-first search may have it.
    text = re.sub(r'#error cannot use BFS on models with variables.*', '', text)
    with open(header, 'w', encoding='utf-8') as file:
        file.write(text)
    return seconds + must(compiler() + ['-w', '-DNOREDUCE', '-DVECTORSZ=1024',
                                        f'-DMEMLIM={MEGABYTES_MAX}', '-I' + HERE] +
                          options.split() + ['-o', 'pan', 'pan.c'], folder)


def number(pattern, out):
    found = re.search(pattern, out)
    return float(found.group(1)) if found else 0.0


def read(pan, work, done, settings):
    out = done.out
    error = re.search(r'^pan:\d+: (.*) \(at depth \d+\)', out, re.M)
    error, steps = error.group(1) if error else None, []
    if os.path.exists(os.path.join(work, 'session.pml.trail')):
        error, steps = trail(pan, work, error, settings)
    elif not error and re.search(r'Search not completed|max search depth|out of memory', out):
        error = 'the search was not complete'
    return Result(int(number(r'([\d.e+]+) states, stored', out)),
                  int(number(r'depth reached (\d+)', out)), done.seconds,
                  number(r'([\d.]+)\ttotal actual memory', out), error, steps)


ALL_RUNS_END, SAFETY, SHORTEST = '-Og -DNP', '-Og -DSAFETY', '-O0 -DSAFETY -DBFS'


def search(builds, flags, how=SAFETY):
    """Search all that there is with these flags. `error` is None when nothing goes wrong."""
    sizes, settings = split(flags)
    pan = builds.get(sizes, how)
    words = [pan, '-m200000', '-w20' if how == SHORTEST else '-w23']
    with tempfile.TemporaryDirectory(prefix='search-') as work:
        done = run(words + (['-l'] if how == ALL_RUNS_END else []), work, settings)
        result = read(pan, work, done, settings)
    if result.states == 0:
        raise RuntimeError(f'{flags}: nothing was searched:\n{done.out[-4000:]}')
    return result


# --- trails --------------------------------------------------------------------------------------

VERDICTS = ('none', 'value', 'not-executed', 'unknown')
SETS = {'ack', 'got-ack', 'got-list'}
BYES = {1: 'lost', 2: 'overtaken', 3: 'protocol'}


def hooks():
    with open(os.path.join(HERE, 'hooks.pml'), encoding='utf-8') as file:
        return file.read()


def events():
    """Number: name, of the events that steps show."""
    found = re.findall(r'^#define E_(\w+) (\d+)', hooks(), re.M)
    return {int(n): name.lower().replace('_', '-') for name, n in found}


def laws():
    """Number: what must hold."""
    found = re.findall(r'^#define M_\w+ (\d+) +/\* (.*) \*/$', hooks(), re.M)
    return {int(n): words for n, words in found}


def words_of_set(bits):
    return ','.join(str(i + 1) for i in range(8) if bits >> i & 1) or '-'


def say(name, a, b):
    """An event as a line of a trace (TRACES in replay.py)."""
    if name == 'hello':
        return f'hello {a} next {b & 7} list {words_of_set(b >> 4)}'
    if name == 'put':
        return f'put {a} base {b & 15} open {words_of_set(b >> 4)}'
    if name in SETS:
        return f'{name} {words_of_set(a)}'
    if name == 'bye':
        return f'bye {BYES[a]}'
    if name in ('done', 'reply', 'finish', 'ended'):
        return f'{name} {a} {VERDICTS[b]}'
    return f'{name} {a}' if a else name


def trail(pan, folder, error, settings):
    """(what is wrong, the events of each step) of the trail that is in `folder`."""
    names, steps, shown = events(), [], []
    for line in run([pan, '-r', 'session.pml.trail'], folder, settings).out.splitlines():
        event = re.match(r'= (\d+) (\d+) (\d+)$', line)
        step = re.match(r'\s*\d+:\s+proc\s+\d+ \((:?\w+:?)\).*\[D_STEP', line)
        broken = re.match(r'! (\d+)$', line)
        if broken:
            error = 'broken: ' + laws()[int(broken.group(1))]
        if event:
            shown.append(say(names[int(event.group(1))], int(event.group(2)), int(event.group(3))))
        elif step and step.group(1) not in (':init:', 'Quiet'):
            steps.append(shown)
            shown = []
        elif 'START OF CYCLE' in line:
            steps.append(['(from here on for ever)'])
    if shown:
        steps.append(shown)
    return error, steps


def search_without(builds, name):
    """The shortest trail without the guard and its partners."""
    guard = GUARDS[name]
    without = ' '.join(f'NO_GUARD_{g}' for g in (name,) + guard.partners)
    return search(builds, f'{guard.flags} {without}', ALL_RUNS_END if guard.ends else SHORTEST)


def search_named(builds, name):
    found = SEARCHES[name]
    return search(builds, found.flags, ALL_RUNS_END if found.ends else SAFETY)


# --- tests ---------------------------------------------------------------------------------------


class Case(unittest.TestCase):
    """Tests that search, two at a time. Without the means to search they fail."""
    builds = None

    @classmethod
    def setUpClass(cls):
        if missing():
            raise RuntimeError(f'the model cannot be searched: {missing()}')
        cls.builds = Builds()
        cls.workers = concurrent.futures.ThreadPoolExecutor(2)

    @classmethod
    def start(cls, search_it, names):
        """search_it(builds, name) of each; in the order of names."""
        cls.results = {name: cls.workers.submit(search_it, cls.builds, name) for name in names}

    @classmethod
    def tearDownClass(cls):
        for one in cls.results.values():
            one.cancel()
        cls.workers.shutdown()
        done = [one.result() for one in cls.results.values()
                if not one.cancelled() and not one.exception()]
        print(f'{len(done)} searches, {sum(one.states for one in done)} states, '
              f'{sum(one.seconds for one in done):.0f} s of a processor and '
              f'{cls.builds.seconds:.0f} s to build them, '
              f'{max(one.megabytes for one in done):.0f} MB the largest')
        cls.builds.close()

    def result(self, name):
        return self.results[name].result()


# --- by hand -------------------------------------------------------------------------------------

def line_of(name, result):
    return f'{name}: {result.states} states, depth {result.depth}, {result.seconds:.1f} s, ' \
           f'{result.megabytes:.0f} MB, {result.error or "complete"}   ({SEARCHES[name].flags})'


def row_of(name, result):
    return f'| {name} | `{SEARCHES[name].flags}` | {"yes" if SEARCHES[name].ends else ""} | ' \
           f'{result.states:,} | {result.seconds:.1f} | {result.megabytes:.0f} |'


def main():
    what, names = (sys.argv[1:2] or [''])[0], sys.argv[2:]
    if what not in ('search', 'guard', 'table') or missing():
        sys.exit(missing() or __doc__)
    builds = Builds()
    for name in names or (GUARDS if what == 'guard' else SEARCHES):
        if what == 'guard':
            result = search_without(builds, name)
            print(f'{name}: {len(result.steps)} steps: {result.error}', flush=True)
            for step in result.steps:
                print('    ' + ('; '.join(step) or '.'))
        else:
            line = line_of if what == 'search' else row_of
            print(line(name, search_named(builds, name)), flush=True)
    builds.close()


if __name__ == '__main__':
    main()
