# SPDX-License-Identifier: MIT
"""Each guard is needed: without it, alone or together with those that do the same, the model goes
wrong. And the table of README.md is true."""

import os
import re
import unittest

import model


def table():
    """Guard: the steps that README.md says."""
    with open(os.path.join(model.HERE, 'README.md'), encoding='utf-8') as file:
        rows = re.findall(r'^\| `(\w+)` \|.*\| (\d+) \|$', file.read(), re.M)
    return {name: int(steps) for name, steps in rows}


def sources():
    text = ''
    for name in sorted(os.listdir(model.HERE)):
        if name.endswith('.pml'):
            with open(os.path.join(model.HERE, name), encoding='utf-8') as file:
                text += file.read()
    return text


def partly(builds, name):
    """Without the guard, but with those that do the same."""
    return model.search(builds, f'{model.GUARDS[name].flags} NO_GUARD_{name}')


def work(builds, job):
    return job[0](builds, job[1])


class Guards(model.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.start(work, [(model.search_without, name) for name in model.GUARDS] +
                  [(partly, name) for name, guard in model.GUARDS.items() if guard.partners])

    def refute(self, name):
        result = self.result((model.search_without, name))
        print(f'{name}: {len(result.steps)} steps: {result.error}', flush=True)
        self.assertIsNotNone(result.error, f'nothing goes wrong without {name}')
        self.assertEqual(len(result.steps), table().get(name),
                         f'README.md does not say so: model.py guard {name}')

    def keep(self, name):
        result = self.result((partly, name))
        self.assertIsNone(result.error, f'without {name} alone: it needs no partner')

    def test_every_guard_is_in_the_table(self):
        self.assertEqual(sorted(table()), sorted(model.GUARDS))

    def test_every_guard_is_in_the_model(self):
        text = sources()
        self.assertEqual(set(re.findall(r'\bG\(([A-Z_]+)\)', text)), set(model.GUARDS))
        self.assertEqual(set(re.findall(r'\bG_([A-Z_]+)\b', text)), set(model.GUARDS))


def add_tests():
    for name, guard in model.GUARDS.items():
        def refute(self, name=name):
            self.refute(name)
        setattr(Guards, 'test_without_' + name.lower(), refute)
        if guard.partners:
            def keep(self, name=name):
                self.keep(name)
            setattr(Guards, 'test_with_a_partner_of_' + name.lower(), keep)


add_tests()

if __name__ == '__main__':
    unittest.main()
