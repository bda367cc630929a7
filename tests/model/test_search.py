# SPDX-License-Identifier: MIT
"""Complete searches of the model: within its bounds nothing goes wrong, whatever happens in which
order, and every run comes to a good end."""

import unittest

import model


class Searches(model.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.start(model.search_named, model.SEARCHES)

    def search(self, name):
        result = self.result(name)
        print(model.line_of(name, result), flush=True)
        way = '\n'.join('; '.join(step) or '.' for step in result.steps)
        self.assertIsNone(result.error, f'{result.error}\n{way}')


def add_tests():
    for name in model.SEARCHES:
        def test(self, name=name):
            self.search(name)
        test.__doc__ = f'search: {name}'
        setattr(Searches, 'test_' + name.replace(', ', '_').replace(' ', '_'), test)


add_tests()

if __name__ == '__main__':
    unittest.main()
