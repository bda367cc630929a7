#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""semel serve --sql: mistakes, parameters, replies, errors, and exactly once through kills."""

import json
import os
import resource
import signal
import sqlite3

from toolkit import ToolCase, alive, main, needs_stores, semel

SCHEMA = '''CREATE TABLE stock (item TEXT PRIMARY KEY, n INTEGER CHECK (n >= 0));
            INSERT INTO stock VALUES ('nail', 10), ('screw', 20);
            CREATE TABLE thing (id INTEGER PRIMARY KEY, value)'''


class SqlCase(ToolCase):
    def setUp(self):
        super().setUp()
        self.sql(SCHEMA)

    def serve_sql(self, *methods, options=(), **more):
        words = [word for method in methods for word in ('--sql', method)]
        server = self.serve('--store', self.store(), *words, *options, **more)
        self.address = server.address
        return server

    def call(self, method, body=None, *args):
        if body is not None and not isinstance(body, str):
            body = json.dumps(body)
        return semel('call', self.address, method, *([] if body is None else [body]), *args)

    def value(self, method, body=None):
        outcome = self.call(method, body)
        self.check(outcome, 0)
        return outcome.json()

    def failure(self, code, method, body, *words):
        outcome = self.call(method, body, '-o', 'json')
        self.check(outcome, 1, None, *words)
        self.assertEqual(outcome.json()['code'], code, outcome)


@needs_stores
class Mistakes(SqlCase):
    def refused(self, method, *words):
        outcome = semel('serve', 'unix:' + self.path('t'), '--store', self.store(), '--sql', method)
        self.check(outcome, 2, b'', *words)
        self.assertFalse(os.path.exists(self.path('t')))

    def test_they_are_found_at_the_start(self):
        self.refused('SELECT 1', 'NAME=SQL')
        self.refused('=SELECT 1', 'NAME=SQL')
        self.refused('a=SELEKT 1', '--sql a', 'syntax error')
        self.refused('a=SELECT 1; SELECT x FROM nowhere', '--sql a', 'no such table: nowhere',
                     'before the server starts')
        self.refused('a=SELECT nix FROM stock', 'no such column')
        self.refused('a= ; -- nothing', 'no statement')
        self.refused('a=SELECT ?', 'has no name', ':name')
        self.refused('a=SELECT ?7', 'has no name', ':name')
        self.refused('a=SELECT 1 AS x, 2 AS x', "two columns are named 'x'", 'AS')
        self.refused('a=' + 'SELECT 1;' * 65, '64 statements')
        self.refused('semel.x=SELECT 1', 'semel.x')

    def test_what_is_the_servers_is_refused(self):
        for text in ('BEGIN', 'COMMIT', 'SAVEPOINT x', 'PRAGMA user_version=7',
                     "ATTACH 'x.db' AS x", 'DELETE FROM semel_call', 'DROP TABLE semel_store'):
            self.refused('a=' + text, 'not authorized')

    def test_a_mistake_is_found_before_programs_are_ended(self):
        server = self.serve('--store', self.store(),
                            f'late=echo $$ >> {self.path("pids")}; exec sleep 1000')
        call = self.calling(server.address, 'late', '--timeout', '500s')
        pid, = self.pids()
        server.end(signal.SIGKILL)
        self.refused('a=SELEKT 1', 'syntax error')
        self.assertTrue(alive(pid))
        call.end(signal.SIGKILL)


@needs_stores
class Calls(SqlCase):
    def test_changes(self):
        self.serve_sql('take=UPDATE stock SET n = n - :n WHERE item = :item',
                       'all=UPDATE stock SET n = n + 1; SELECT 1 WHERE 0; '
                       'UPDATE stock SET n = 0 WHERE n < 0',
                       'two=UPDATE stock SET n = n + 1; DELETE FROM stock WHERE item = $item',
                       'make=CREATE TABLE IF NOT EXISTS more (x)')
        self.assertEqual(self.value('take', {'item': 'nail', 'n': 3}), {'changes': 1})
        self.assertEqual(self.value('take', {'item': 'none', 'n': 3}), {'changes': 0})
        self.assertEqual(self.value('two', {'item': 'nail'}), {'changes': 3})
        self.assertEqual(self.value('two', {'item': 'nail'}), {'changes': 1})
        self.assertEqual(self.value('make'), {'changes': 0})
        self.assertEqual(self.value('all'), [])
        self.assertEqual(self.look('SELECT item, n FROM stock'), [('screw', 23)])

    def test_values_there_and_back(self):
        self.serve_sql('put=INSERT INTO thing VALUES (:id, @value)',
                       'get=SELECT value, typeof(value) AS type FROM thing WHERE id = $id',
                       'both=SELECT :a AS x, @a AS y, $a AS z')
        values = [('text', 'text'), ('', 'text'), ('a"b\\\x01\u00e4\U0001f600', 'text'),
                  ('nul\x00inside', 'text'), (0, 'integer'), (2 ** 63 - 1, 'integer'),
                  (-2 ** 63, 'integer'), (0.1, 'real'), (1e300, 'real'), (5e-324, 'real'),
                  (-0.30000000000000004, 'real'), (3.0, 'real'), (None, 'null'),
                  ({'base64': 'AP8='}, 'blob'), ({'base64': ''}, 'blob')]
        for number, (value, kind) in enumerate(values):
            self.assertEqual(self.value('put', {'id': number, 'value': value}), {'changes': 1})
            self.assertEqual(self.value('get', {'id': number}), [{'value': value, 'type': kind}])
        self.value('put', {'id': 90, 'value': True})
        self.value('put', {'id': 91, 'value': False})
        self.assertEqual(self.value('get', {'id': 90}), [{'value': 1, 'type': 'integer'}])
        self.assertEqual(self.value('get', {'id': 91}), [{'value': 0, 'type': 'integer'}])
        self.assertEqual(self.value('both', {'a': 'q'}), [{'x': 'q', 'y': 'q', 'z': 'q'}])
        self.assertEqual(self.call('get', {'id': 7}).out, b'[{"value":0.1,"type":"real"}]')

    def test_values_that_json_has_not(self):
        self.serve_sql("odd=SELECT CAST(x'ff41' AS TEXT) AS t", 'far=SELECT 9e999 AS far')
        self.assertEqual(self.value('odd'), [{'t': {'base64': '/0E='}}])
        self.failure(33, 'far', {}, "'far' is infinite")

    def test_a_table_of_full_text(self):
        """Its module asks SQLite for things itself, and so does ALTER TABLE."""
        try:
            self.sql('CREATE VIRTUAL TABLE words USING fts5(text)')
        except sqlite3.OperationalError as error:
            self.skipTest(str(error))
        self.sql('CREATE TABLE page (id INTEGER PRIMARY KEY AUTOINCREMENT, text)')
        with sqlite3.connect(self.path('store.db')) as database:
            database.execute('''CREATE TRIGGER fill AFTER INSERT ON page BEGIN
                INSERT INTO words (rowid, text) VALUES (new.id, new.text); END''')
        database.close()
        self.serve_sql('add=INSERT INTO page (text) VALUES (:text)',
                       'find=SELECT rowid AS id FROM words WHERE words MATCH :word',
                       "columns=SELECT count(*) AS n FROM pragma_table_info('page')",
                       'drop=DROP TABLE page')
        for text in ('one nail', 'two screws', 'one screw'):
            self.value('add', {'text': text})
        self.assertEqual(self.value('find', {'word': 'one'}), [{'id': 1}, {'id': 3}])
        self.assertEqual(self.value('columns'), [{'n': 2}])
        self.value('drop')

    def test_rows(self):
        self.serve_sql('all=SELECT * FROM stock ORDER BY item',
                       'last=SELECT 1 AS a; SELECT item FROM stock WHERE n > 15; '
                       'UPDATE stock SET n = n + 1',
                       'add=INSERT INTO thing (value) VALUES (:v), (:v) RETURNING id, value',
                       'none=SELECT item FROM stock WHERE 0', 'äöü=SELECT 1 AS "ä""b"')
        self.assertEqual(self.value('all'), [{'item': 'nail', 'n': 10}, {'item': 'screw', 'n': 20}])
        self.assertEqual(self.value('all', ''), self.value('all', '{}'))
        self.assertEqual(self.value('last'), [{'item': 'screw'}])
        self.assertEqual(self.value('add', {'v': 'x'}),
                         [{'id': 1, 'value': 'x'}, {'id': 2, 'value': 'x'}])
        self.assertEqual(self.value('none'), [])
        self.assertEqual(self.value('äöü'), [{'ä"b': 1}])
        self.assertEqual(self.look('SELECT n FROM stock ORDER BY n'), [(11,), (21,)])

    def test_bodies_that_are_wrong(self):
        self.serve_sql('take=UPDATE stock SET n = n - :n; UPDATE stock SET n = 0 WHERE item=@item')
        good = {'n': 1, 'item': 'nail'}
        for body, words in (
                ({'n': 1}, "'item' is missing"), ({'item': 'nail'}, "'n' is missing"),
                ('', "is missing"), (dict(good, m=1), "no parameter 'm'"),
                (dict(good, n=[1]), "'n' is an array"),
                (dict(good, n={'a': 1}), "'n' is an object"),
                (dict(good, n={'base64': 'AA==', 'x': 1}), "'n' is an object"),
                (dict(good, n={'base64': 'A'}), "'n' is an object"),
                ('[1]', 'not a JSON object'), ('7', 'not a JSON object'), ('null', 'not a JSON'),
                ('{"n":1,', 'not a JSON object'), ('{"n":1}x', 'not a JSON object'),
                ('{"n":1,"n":2,"item":"nail"}', 'duplicate'),
                ('{"n":9223372036854775808,"item":"nail"}', 'not a JSON object')):
            self.failure(22, 'take', body, words)
        binary = semel('call', self.address, 'take', '-', stdin=b'{"n":1,"item":"\xff"}')
        self.check(binary, 1, b'', 'not a JSON object')
        self.assertEqual(self.look('SELECT n FROM stock ORDER BY n'), [(10,), (20,)])

    def test_errors_undo_everything(self):
        self.serve_sql('take=UPDATE stock SET n = n + 1; UPDATE stock SET n = n - :n',
                       'put=INSERT INTO stock VALUES (:item, 1)',
                       'part=INSERT OR FAIL INTO stock VALUES (:item, 1), (\'nail\', 1)',
                       'wide=SELECT zeroblob(:n) AS z')
        self.failure(275, 'take', {'n': 15}, 'CHECK constraint failed: n >= 0')
        self.failure(1555, 'put', {'item': 'nail'}, 'UNIQUE constraint failed: stock.item')
        self.failure(1555, 'part', {'item': 'new'}, 'UNIQUE constraint failed')
        self.failure(18, 'wide', {'n': 10 ** 10}, 'too big')
        self.assertEqual(self.look('SELECT item, n FROM stock ORDER BY n'),
                         [('nail', 10), ('screw', 20)])

    def test_a_statement_that_ends_the_transaction(self):
        self.serve_sql('put=INSERT OR ROLLBACK INTO stock VALUES (:item, 1)')
        outcome = self.call('put', {'item': 'nail'}, '-o', 'json')
        self.check(outcome, 4)
        self.assertEqual(outcome.json()['status'], 'ROLLED_BACK')
        self.assertEqual(self.value('put', {'item': 'new'}), {'changes': 1})

    def test_replies_have_a_limit(self):
        self.serve_sql('many=WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c '
                       'WHERE n < :n) SELECT n FROM c',
                       'before=WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c '
                       'WHERE n < 100000) SELECT n FROM c; SELECT 1 AS one',
                       'blob=INSERT INTO thing (value) VALUES (1); SELECT zeroblob(:n) AS z',
                       options=['--body-limit', '64KiB'])
        self.assertEqual(len(self.value('many', {'n': 1000})), 1000)
        self.failure(-1, 'many', {'n': 100000}, 'limit of 65536 bytes')
        self.assertEqual(self.value('before'), [{'one': 1}])
        self.assertEqual(len(self.value('blob', {'n': 40000})[0]['z']['base64']), 53336)
        self.failure(-1, 'blob', {'n': 60000}, 'limit')
        self.assertEqual(self.look('SELECT count(*) FROM thing'), [(1,)])

    def test_deadlines_interrupt(self):
        self.serve_sql('forever=WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) '
                       'SELECT count(*) AS n FROM c', 'one=SELECT 1 AS one',
                       options=['--max-run', 'forever=100ms'])
        outcome = self.call('forever', '', '-o', 'json')
        self.check(outcome, 4)
        self.assertEqual(outcome.json()['status'], 'MAX_RUN')
        self.assertEqual(self.value('one'), [{'one': 1}])

    def test_a_call_may_not_run_for_ever(self):
        """Whether or not it has a deadline: meanwhile nothing else is stored."""
        server = self.serve_sql('one=SELECT 1 AS one', 'two=SELECT 2 AS two',
                                options=['--max-run', 'two=50ms', '-v'])
        server.await_line('one: a call may run for 30000 ms')
        server.await_line('two: a call may run for 50 ms')

    def test_foreign_keys(self):
        self.sql('CREATE TABLE part (item TEXT REFERENCES stock (item))')
        server = self.serve_sql('put=INSERT INTO part VALUES (:item)')
        self.assertEqual(self.value('put', {'item': 'none'}), {'changes': 1})
        self.check(server.end(signal.SIGTERM), 0)
        self.sql('DELETE FROM part')
        self.serve_sql('put=INSERT INTO part VALUES (:item)', options=['--foreign-keys'])
        self.failure(787, 'put', {'item': 'none'}, 'FOREIGN KEY constraint failed')
        self.assertEqual(self.value('put', {'item': 'nail'}), {'changes': 1})

    def test_the_schema_changes_meanwhile(self):
        self.serve_sql('all=SELECT * FROM thing', 'put=INSERT INTO thing (value) VALUES (1)',
                       'grow=ALTER TABLE thing ADD COLUMN more DEFAULT 7', 'drop=DROP TABLE thing')
        self.value('put')
        self.assertEqual(self.value('all'), [{'id': 1, 'value': 1}])
        self.assertEqual(self.value('grow'), {'changes': 0})
        self.assertEqual(self.value('all'), [{'id': 1, 'value': 1, 'more': 7}])
        self.value('drop')
        self.failure(1, 'put', {}, 'no such table')

    def test_beside_commands_and_keys(self):
        self.serve_sql('take=UPDATE stock SET n = n - 1 RETURNING n', options=['say=echo hi'])
        first = self.call('take', '', '--key', 'k')
        self.check(first, 0)
        self.check(self.call('take', '', '--key', 'k'), 0, first.out)
        self.check(self.call('take', '{}', '--key', 'k'), 4, b'', 'other contents')
        self.check(self.call('say'), 0, b'hi\n')
        self.assertEqual(self.look('SELECT n FROM stock ORDER BY n'), [(9,), (19,)])

    def test_a_draining_server_finishes_what_runs(self):
        server = self.serve_sql('take=UPDATE stock SET n = n - 1')
        bench = self.background('bench', server.address, 'take', '-w', '64', '-n', '5', '--body',
                                '{}', '-o', 'json')
        figures = bench.end().json()
        self.assertEqual(figures['errors'], 0)
        self.check(server.end(signal.SIGTERM), 0)
        self.assertEqual(self.sql('SELECT n FROM stock ORDER BY n'), [(5,), (15,)])


@needs_stores
class ThroughKills(SqlCase):
    def test_exactly_once(self):
        """A server that is killed four times counts each call once, and no outcome is unknown."""
        methods = ['count=UPDATE stock SET n = n + 1 WHERE item = :item']
        server = self.serve_sql(*methods, clean=False)
        bench = self.background('bench', server.address, 'count', '-t', '8', '-d', '1h', '--body',
                                '{"item":"nail"}', '--timeout', '500s', '-o', 'json')

        def counted():
            return self.look("SELECT n FROM stock WHERE item = 'nail'")[0][0] - 10

        for _ in range(4):
            before = counted()
            self.wait_until(lambda b=before: counted() > b + 50, 'it stands still')
            server.end(signal.SIGKILL)
            server = self.serve_sql(*methods, clean=False)
        outcome = bench.end(signal.SIGINT)
        self.check(outcome, 0)
        figures = outcome.json()
        self.assertEqual((figures['errors'], figures['unknown']), (0, 0))
        self.assertGreaterEqual(figures['reconnects'], 4)
        self.check(server.end(signal.SIGTERM), 0)
        self.assertEqual(self.sql("SELECT n - 10 FROM stock WHERE item = 'nail'"),
                         [(figures['calls'],)])
        self.assertEqual(self.sql('PRAGMA integrity_check'), [('ok',)])

    def test_a_disk_that_fails(self):
        """The server ends; when there is room again, everything is found as it was left."""
        methods = ['--sql', 'add=INSERT INTO thing (value) VALUES (zeroblob(:n)) RETURNING id']

        def shrink():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (400000, 400000))

        server = self.background('serve', 'unix:' + self.path('s'), '--store', self.store(),
                                 *methods, preexec_fn=shrink)
        server.await_line('listening at')
        bench = self.background('bench', 'unix:' + self.path('s'), 'add', '-n', '20', '--body',
                                '{"n":30000}', '--timeout', '500s', '-o', 'json')
        self.check(server.end(), 3, b'', 'the store is of no more use', 'not all could be stored',
                   'when it starts again')
        self.serve('--store', self.store(), *methods)
        outcome = bench.end()
        self.check(outcome, 0)
        self.assertEqual((outcome.json()['calls'], outcome.json()['errors']), (20, 0))
        self.assertEqual(self.look('SELECT count(*) FROM thing'), [(20,)])


if __name__ == '__main__':
    main()
