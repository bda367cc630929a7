#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The demo's audit, over directories written by this file; each test spoils one thing."""

import os
import sqlite3
import subprocess
import unittest

from toolkit import HANG, ToolCase, main

AUDIT = os.environ.get('SEMEL_AUDIT')
OPENING = 1000
ACCOUNTS = 5
SECOND = 10**9
KINDS = ('lost', 'doubled', 'mismatched', 'unknown', 'unexplained')


@unittest.skipUnless(AUDIT, 'built without stores')
class AuditCase(ToolCase):
    """A clean run: transfers that worked and failed, notices, and one that a kill hit."""

    def setUp(self):
        super().setUp()
        self.ledgers = {1: [], 2: []}
        self.moves, self.notices = [], []
        self.kills = [[1, 50 * SECOND, 1], [2, 70 * SECOND, 0]]
        self.balances = None
        for i in range(1, 41):
            client = 1 + i % 2
            self.call(client, f'{client}.1.{i}', 'transfer', (1 + i % ACCOUNTS,
                                                              1 + (i + 1) % ACCOUNTS, i), i,
                      'failure FAILED' if i % 10 == 0 else 'value OK')
        for i in range(41, 61):
            self.call(1, f'1.2.{i}', 'notify', (0, 0, 0), i,
                      'unknown SERVER_DIED' if i == 50 else 'value OK')
        self.notices.remove('end 1.2.50')

    def call(self, client, name, method, what, second, outcome):
        at = second * SECOND
        self.ledgers[client].append('call %s %s %d %d %d %d' % (name, method, *what,
                                                                at - SECOND // 2))
        self.ledgers[client].append(f'reply {name} {outcome} {at + SECOND // 2}')
        if method == 'notify':
            self.notices += ['begin ' + name, 'end ' + name]
        elif outcome.startswith('value'):
            self.moves.append([name, *what])

    def write(self, name, lines):
        with open(self.path(name), 'w', encoding='utf-8') as file:
            file.write(''.join(line + '\n' for line in lines))

    def make(self):
        for client, lines in self.ledgers.items():
            self.write(f'client-{client}.ledger', lines)
        self.write('notices', self.notices)
        self.write('kills', ['kill %d %d %d' % tuple(kill) for kill in self.kills])
        if os.path.exists(self.path('bank.db')):
            os.remove(self.path('bank.db'))
        balances = dict.fromkeys(range(1, ACCOUNTS + 1), OPENING)
        for _, debit, credit, amount in self.moves:
            balances[debit] -= amount
            balances[credit] += amount
        database = sqlite3.connect(self.path('bank.db'))
        database.execute('CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER)')
        database.execute('CREATE TABLE moves (id TEXT, debit INTEGER, credit INTEGER, '
                         'amount INTEGER)')
        database.executemany('INSERT INTO accounts VALUES (?, ?)',
                             (self.balances or balances).items())
        database.executemany('INSERT INTO moves VALUES (?, ?, ?, ?)', self.moves)
        database.commit()
        database.close()

    def audit(self):
        done = subprocess.run([AUDIT, self.directory], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=HANG, text=True, check=False)
        numbers = {}
        for line in done.stdout.splitlines():
            words = line.split()
            if len(words) == 2 and words[1].isdigit():
                numbers[words[0]] = int(words[1])
        return done.returncode, numbers, done.stdout + done.stderr

    def finds(self, *words, **expected):
        """What is made now has just these faults, and they are said in these words."""
        self.make()
        code, numbers, text = self.audit()
        self.assertEqual({kind: numbers[kind] for kind in KINDS},
                         {kind: expected.get(kind, 0) for kind in KINDS}, text)
        self.assertEqual(code, 1 if expected else 0, text)
        self.assertIn('NOT CLEAN' if expected else '\nclean', text)
        for word in words:
            self.assertIn(word, text)
        return numbers

    def ledger_index(self, client, start):
        return [i for i, line in enumerate(self.ledgers[client]) if line.startswith(start)][0]

    def change(self, client, start, old, new):
        at = self.ledger_index(client, start)
        self.assertIn(old, self.ledgers[client][at])
        self.ledgers[client][at] = self.ledgers[client][at].replace(old, new)

    def move_of(self, name):
        return [move for move in self.moves if move[0] == name][0]


class Clean(AuditCase):
    def test_clean(self):
        numbers = self.finds()
        self.assertEqual(numbers['calls'], 60)
        self.assertEqual(numbers['values'], 36 + 19)
        self.assertEqual(numbers['failures'], 4)
        self.assertEqual(numbers['notify-unknown'], 1)

    def test_an_unknown_notice_may_have_ended_or_not_begun(self):
        self.notices.append('end 1.2.50')
        self.finds()
        self.notices = [line for line in self.notices if not line.endswith('1.2.50')]
        self.finds()

    def test_an_outcome_that_is_written_down_twice(self):
        at = self.ledger_index(2, 'reply 2.1.7 ')
        self.ledgers[2].append(self.ledgers[2][at])
        self.finds()

    def test_not_executed(self):
        self.change(2, 'reply 2.1.7 ', 'value OK', 'not-executed POISONED')
        self.moves.remove(self.move_of('2.1.7'))
        self.assertEqual(self.finds()['not-executed'], 1)


class Lost(AuditCase):
    def test_no_outcome(self):
        del self.ledgers[2][self.ledger_index(2, 'reply 2.1.7 ')]
        self.finds('2.1.7: it has no outcome', lost=1)

    def test_a_value_without_its_row(self):
        self.moves.remove(self.move_of('2.1.7'))
        self.finds('2.1.7: answered, but never transferred', lost=1)

    def test_a_value_without_its_notice(self):
        self.notices.remove('begin 1.2.45')
        self.notices.remove('end 1.2.46')
        self.finds('1.2.45: answered', '1.2.46: answered', lost=2)


class Doubled(AuditCase):
    def test_rows(self):
        self.moves += [self.move_of('2.1.7'), self.move_of('2.1.7'), self.move_of('1.1.8')]
        self.finds('2.1.7: transferred again', '1.1.8: transferred again', doubled=3)

    def test_notices(self):
        self.notices += ['begin 1.2.45', 'begin 1.2.46', 'end 1.2.46']
        self.finds('1.2.45: its notice began again', '1.2.46: its notice ended again', doubled=3)

    def test_a_notice_that_ran_again_after_the_kill(self):
        self.notices += ['begin 1.2.50', 'end 1.2.50']
        self.finds('1.2.50: its notice began again', doubled=1)

    def test_two_outcomes(self):
        self.ledgers[2].append(f'reply 2.1.7 failure FAILED {99 * SECOND}')
        self.finds('2.1.7: it has two outcomes', doubled=1)


class Mismatched(AuditCase):
    def test_another_transfer(self):
        for column in (1, 2, 3):
            with self.subTest(column=column):
                self.setUp()
                move = self.move_of('2.1.7')
                move[column] = move[column] % ACCOUNTS + 1
                self.finds('2.1.7: another transfer', mismatched=1)

    def test_it_happened_but_was_denied(self):
        self.change(2, 'reply 2.1.7 ', 'value OK', 'failure FAILED')
        self.change(1, 'reply 1.1.8 ', 'value OK', 'not-executed POISONED')
        self.change(1, 'reply 1.2.45 ', 'value OK', 'failure FAILED')
        self.change(1, 'reply 1.2.46 ', 'value OK', 'not-executed EXPIRED')
        self.finds('2.1.7: it happened', '1.1.8: it happened', '1.2.45: it happened',
                   '1.2.46: it happened', mismatched=4)

    def test_nobody_asked(self):
        self.moves.append(['3.1.1', 1, 2, 5])
        self.moves.append(['a transfer', 1, 2, 5])
        self.notices += ['begin 3.1.2', 'end 3.1.2']
        self.finds('3.1.1: nobody made', "'a transfer'", '3.1.2: nobody made', mismatched=3)

    def test_the_other_method(self):
        self.moves.append(['1.2.45', 1, 2, 5])
        self.notices.append('begin 2.1.7')
        self.finds('1.2.45: a trace of the other', '2.1.7: a trace of the other', mismatched=2)

    def test_made_twice(self):
        self.ledgers[2].insert(0, self.ledgers[2][self.ledger_index(2, 'call 2.1.7 ')])
        self.finds('2.1.7: made twice', mismatched=1)

    def test_money(self):
        self.make()
        database = sqlite3.connect(self.path('bank.db'))
        balances = dict(database.execute('SELECT * FROM accounts').fetchall())
        database.close()
        self.balances = dict(balances)
        self.balances[2] += 1  # made
        self.finds('account 2 has', 'in the bank', mismatched=2)
        self.balances[3] -= 1  # moved without a row
        self.finds('account 2 has', 'account 3 has', mismatched=2)

    def test_a_balance_below_nothing(self):
        self.ledgers[2].insert(0, f'call 2.1.999 transfer 1 2 5000 {SECOND}')
        self.ledgers[2].append(f'reply 2.1.999 value OK {2 * SECOND}')
        self.moves.append(['2.1.999', 1, 2, 5000])
        self.finds('account 1 has -', mismatched=1)


class Unknown(AuditCase):
    def test_of_a_transfer(self):
        self.change(2, 'reply 2.1.7 ', 'value OK', 'unknown SERVER_DIED')
        self.finds('2.1.7: unknown (SERVER_DIED), of a transfer', unknown=1)

    def test_of_a_notice_although_the_server_lived(self):
        self.kills[0][1] = 40 * SECOND
        self.finds('1.2.50: unknown (SERVER_DIED), and the server was not killed', unexplained=1)

    def test_more_than_the_kills_hit(self):
        self.kills[0][2] = 0
        self.finds('1 calls of notify are unknown; kills hit 0', unexplained=1)

    def test_fewer_than_the_kills_hit(self):
        self.kills[1][2] = 3
        self.finds('1 calls of notify are unknown; kills hit 4', unexplained=3)


class CannotJudge(AuditCase):
    def judged(self, *words):
        code, _, text = self.audit()
        self.assertEqual(code, 2, text)
        for word in words:
            self.assertIn(word, text)

    def test_a_line_that_is_none(self):
        for name, line in (('client-1.ledger', 'call 1.1.1 transfer'),
                           ('client-1.ledger', 'reply 1.1.2 perhaps OK 5'),
                           ('client-1.ledger', 'call 1.1.3 sleep 0 0 0 5'),
                           ('notices', 'begin 1.1'), ('notices', 'middle 1.1.1'),
                           ('kills', 'kill 1 2')):
            with self.subTest(line):
                self.make()
                with open(self.path(name), 'a', encoding='utf-8') as file:
                    file.write(line + '\n')
                self.judged(name, 'no line of such a file')

    def test_half_a_line(self):
        self.make()
        with open(self.path('notices'), 'a', encoding='utf-8') as file:
            file.write('begin 1.2')
        self.judged('notices', 'not whole')

    def test_missing_files(self):
        for name in ('notices', 'kills', 'bank.db', 'client-*.ledger'):
            with self.subTest(name):
                self.make()
                for path in os.listdir(self.directory):
                    if path == name or ('*' in name and path.startswith('client-')):
                        os.remove(self.path(path))
                self.judged(name.replace('*', '*'))

    def test_no_bank(self):
        self.make()
        with open(self.path('bank.db'), 'wb') as file:
            file.write(b'no database at all ' * 1000)
        self.judged('bank.db')

    def test_usage(self):
        done = subprocess.run([AUDIT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=HANG,
                              text=True, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn('usage', done.stderr)


if __name__ == '__main__':
    main()
