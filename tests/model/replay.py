#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Does the model have a run that shows what this trace shows? replay.py FILE...

Prints for each file that it is accepted, or the line up to which it can be followed and no further.
The status is 0 when all are accepted, 1 when one is not, 2 when one cannot be read.

A trace is what somebody saw of one client's session with one server: at most three calls, one
event on a line, in the order in which they happened. Empty lines, and what follows a #, are not
looked at. It begins with what the world is like:

    calls KIND...        of call 1, 2, 3: once, transactional, idempotent, or rerun (once, and
                         on_crash RERUN)
    window N             granted; as many as there are calls unless said
    memory               the server has no store; it has one unless said
    hides EVENT [N]      these events are not in the trace. What goes wrong (marked *) happens at
                         most N times then, 0 unless said

and goes on with events. N is a call's number, SET numbers with commas, or -; VERDICT is value,
not-executed or unknown (handlers that fail are not part of it). All events that are not hidden must
be in the trace when they happen; what happens without any is the model's own affair.

The client:
    hello CONN next N list SET   it connects: HELLO (its conn_no and next) and LIST are written
    up                   WELCOME and all states are read
    call N               a CALL is written, whole, also again
    ack SET              an ACK is written
    cancel N             a CANCEL is written
    end                  BYE END is written
    read-busy N          a BUSY is read
    want N *             its application cancels the call, or its deadline passes
    give-up N *          its grace is over, too: no verdict is waited for
    done N VERDICT       its application has the verdict, the server's or the client's own
    leave *              it stops; what is open ends
The server:
    got-hello CONN       a HELLO is read and accepted
    got-list SET         ... and its LIST, not empty: the session is lined up with it
    got-call N, got-ack SET, got-cancel N, got-end
    welcome CONN         WELCOME and states are written
    reply N VERDICT      a REPLY is written, also one that is lost
    busy N               a BUSY is written
    bye WHY              a BYE is written: lost, overtaken, protocol
    full N *             a call is refused: it will be answered BUSY
    late N *             its deadline passes at the server
    run N                its handler is called; of a transactional one: each time
    effect N             its handler has its effect; of a transactional one: with stored
    finish N VERDICT     its handler has returned; unknown: without a word; not-executed: its work
                         was undone
    outrun N *           it ran longer than it may: its verdict is unknown from now on
    idle *               the session expires
The store, what a transaction changed and then stored, in any order; and nothing if it was not:
    put CONN base N open SET     the session's record, with base and stragglers
    delete               the session's record is gone
    start N, again N, ended N VERDICT, forget N     what became of a call's record
    stored               this was a transaction
    not-stored *         it was not, and never will be
    unknown *            nobody knows, and the server restarts; no changes are listed
The world:
    cut-client *         the client learns that its connection is broken
    cut-server *         the server learns that a connection is broken; the client does not yet
    eof                  the client learns that the server closed the connection
    lost                 the server learns that the client has gone, or what was left of an old
                         connection is lost
    crash *              the server dies; restore follows
    stop *               the server is told to stop; restore follows
    restore              it is there again, with what it finds in the store
    quiet                (at the end) nothing more can happen, every call has its verdict, and all
                         is forgotten

Events of one step may stand in any order among themselves: "crash" and "restore"; "done" of
several calls; "put", "start", ..., "effect" of a transaction, and "stored"; "bye" of the connection
that is overtaken, and "got-hello".
"""

import os
import re
import sys
import tempfile

import model

KINDS = {'once': 0, 'transactional': 1, 'idempotent': 2, 'rerun': 3}
KINDS_OF_EVENTS = 64


class Unreadable(Exception):
    pass


def head_of(flags):
    """The first lines of a trace of what the model does with these flags."""
    values = dict((flag.split('=') + ['1'])[:2] for flag in flags.split())
    names = {'ONCE': 'once', 'TRANS': 'transactional', 'IDEM': 'idempotent', 'RERUN': 'rerun'}
    first = values.get('KIND1', 'ONCE')
    kinds = [first, values.get('KIND2', first), values.get('KIND3', first)]
    calls = int(values.get('K', 1))
    lines = ['calls ' + ' '.join(names[kind] for kind in kinds[:calls]),
             f'window {values.get("W", calls)}']
    return lines + (['memory'] if values.get('STORE') == '0' else [])


def event_numbers():
    return {name: number for number, name in model.events().items()}


def small(text, top=15):
    if not re.fullmatch(r'\d+', text) or int(text) > top:
        raise Unreadable(f'not a number from 0 to {top}: {text}')
    return int(text)


def bits_of(text):
    bits = 0
    for word in [] if text == '-' else text.split(','):
        if not 1 <= small(word, 3) <= 3:
            raise Unreadable(f'not a call: {word}')
        bits |= 1 << int(word) - 1
    return bits


def verdict_of(text):
    if text not in model.VERDICTS[1:]:
        raise Unreadable(f'not a verdict: {text}')
    return model.VERDICTS.index(text)


def bye_of(text):
    for number, name in model.BYES.items():
        if name == text:
            return number
    raise Unreadable(f'not a reason: {text}')


# Words of an event's line: what stands for itself, and how the rest is read, as two numbers.
SHAPES = {
    'hello': (('N', 'next', 'N', 'list', 'SET'), lambda n, m, s: (n, m | s << 4)),
    'put': (('N', 'base', 'N', 'open', 'SET'), lambda n, m, s: (n, m | s << 4)),
    'ack': (('SET',), lambda s: (s, 0)),
    'bye': (('WHY',), lambda w: (w, 0)),
    'done': (('N', 'VERDICT'), lambda n, v: (n, v)),
    '': ((), lambda: (0, 0)),
    'call': (('N',), lambda n: (n, 0)),
}
LIKE = {'got-ack': 'ack', 'got-list': 'ack', 'reply': 'done', 'finish': 'done', 'ended': 'done'}
READERS = {'N': small, 'SET': bits_of, 'VERDICT': verdict_of, 'WHY': bye_of}
BARE = set('up end got-end leave idle delete stored not-stored unknown cut-client cut-server eof '
           'lost crash stop restore quiet'.split())


def parse_event(words, numbers):
    name = words[0]
    if name not in numbers:
        raise Unreadable(f'no such event: {name}')
    like = name if name in SHAPES else LIKE.get(name, '' if name in BARE else 'call')
    shape, make = SHAPES[like]
    if len(words) - 1 != len(shape):
        raise Unreadable(f'{name} is followed by {len(shape)} words')
    values = []
    for word, kind in zip(words[1:], shape):
        if kind in READERS:
            values.append(READERS[kind](word))
        elif word != kind:
            raise Unreadable(f'not "{kind}": {word}')
    return (numbers[name],) + make(*values)


class Trace:
    """One file: what the world is like, and its events with their lines."""

    def __init__(self, text):
        self.numbers = event_numbers()
        self.kinds, self.window, self.store = None, None, 1
        self.hidden = [-1] * KINDS_OF_EVENTS
        self.events, self.lines = [], []
        for line, words in enumerate(text.splitlines(), 1):
            words = words.split('#')[0].split()
            try:
                if words:
                    self.take(line, words)
            except Unreadable as error:
                raise Unreadable(f'line {line}: {error}') from None
        if not self.kinds:
            raise Unreadable('it does not say which calls there are')

    def take(self, line, words):
        if words[0] == 'calls':
            if not 1 <= len(words[1:]) <= 3 or set(words[1:]) - set(KINDS):
                raise Unreadable('one to three kinds of calls')
            self.kinds = [KINDS[word] for word in words[1:]]
        elif words[0] == 'window' and len(words) == 2:
            self.window = small(words[1], 3)
        elif words == ['memory']:
            self.store = 0
        elif words[0] == 'hides' and 2 <= len(words) <= 3 and words[1] in self.numbers:
            self.hidden[self.numbers[words[1]]] = small(words[2], 255) if len(words) > 2 else 0
        else:
            event = parse_event(words, self.numbers)
            if self.hidden[event[0]] < 0:
                self.events.append(event)
                self.lines.append(line)

    def numbers_for_pan(self):
        count = len(self.kinds)
        head = [count, self.window or count, self.store] + (self.kinds + [0, 0])[:3] + self.hidden
        return head + [len(self.events)] + [n for event in self.events for n in event]


def check(builds, text):
    """None: accepted. Else (the number of the line that cannot be followed, the line)."""
    trace = Trace(text)
    pan = builds.get('TRACE', model.SAFETY)
    with tempfile.TemporaryDirectory(prefix='replay-') as folder:
        with open(os.path.join(folder, 'trace.txt'), 'w', encoding='utf-8') as file:
            file.write('\n'.join(map(str, trace.numbers_for_pan())) + '\n')
        out = model.run([pan, '-m20000', '-w16'], folder).out
    found = re.search(r'^furthest (\d+) of (\d+)$', out, re.M)
    if not found or re.search(r'^pan:\d+: ', out, re.M):
        raise RuntimeError(f'the search failed:\n{out[-2000:]}')
    furthest, count = int(found.group(1)), int(found.group(2))
    if furthest == count:
        return None
    line = trace.lines[furthest]
    return line, text.splitlines()[line - 1].strip()


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith('-'):
        sys.exit(__doc__)
    if model.missing():
        sys.exit(model.missing())
    builds, status = model.Builds(), 0
    for path in sys.argv[1:]:
        try:
            with open(path, encoding='utf-8') as file:
                stopped = check(builds, file.read())
        except (Unreadable, OSError) as error:
            print(f'{path}: cannot be read: {error}')
            status = 2
            continue
        if stopped:
            print(f'{path}:{stopped[0]}: the model cannot do this here: {stopped[1]}')
            status = max(status, 1)
        else:
            print(f'{path}: accepted')
    builds.close()
    return status


if __name__ == '__main__':
    sys.exit(main())
