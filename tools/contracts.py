#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Check that docs/CONTRACTS.md and the tests agree: contracts.py [--root DIR] [--write]

Each contract of the list below has a row in the page; each row names at least one test whose name
begins with the contract; each test that it names exists, in the file that it names.
"""

import argparse
import os
import re
import sys

import tree

CONTRACTS = [f'M{n}' for n in range(1, 15)] + \
            [f'S{n}' for n in range(1, 18) if n not in (7, 14)] + \
            [f'D{n}' for n in range(1, 17)] + [f'E{n}' for n in range(1, 15)] + \
            [f'R{n}' for n in range(1, 20)]
ROW = re.compile(r'^\| *([A-Z]\d+) *\|(.*)\|([^|\n]*)\|[ ]*$', re.M)
NAMED = re.compile(r'`([^`]+)` \(`?([\w./-]+)`?\)')
TEST = re.compile(r'(["\'])([DEMRS]\d+ (?:(?!\1).)+)\1')


def tests_of(root):
    """Name -> files of tests/ in which a test of that name stands."""
    found = {}
    for path in tree.walk(root, 'tests', ('.c', '.h', '.py', '.sh', 'meson.build')):
        if path.startswith('tests/house/'):
            continue
        for _, name in TEST.findall(tree.read(root, path)):
            found.setdefault(name, set()).add(path)
    return found


def check(root):
    tests = tests_of(root)
    rows = {row: cells for row, *cells in ROW.findall(tree.read(root, 'docs/CONTRACTS.md'))}
    for contract in CONTRACTS:
        if contract not in rows:
            yield f'docs/CONTRACTS.md: no row {contract}'
        if not any(name.startswith(contract + ' ') for name in tests):
            yield f'{contract}: no test has a name that begins with it'
    for row, (_, cell) in rows.items():
        named = NAMED.findall(cell)
        if not any(name.startswith(row + ' ') for name, _ in named):
            yield f'docs/CONTRACTS.md: {row} names no test of its own'
        for name, path in named:
            if path not in tests.get(name, set()):
                yield f'docs/CONTRACTS.md: {row}: there is no test "{name}" in {path}'


def write(root):
    """Fill the last column of each row with the tests that there are."""
    tests = tests_of(root)

    def fill(match):
        row, promise, _ = match.groups()
        cell = ', '.join(f'`{name}` (`{path}`)' for name in sorted(tests) for path in
                         sorted(tests[name]) if name.startswith(row + ' '))
        return f'| {row} |{promise}| {cell} |' if cell else f'| {row} |{promise}| |'

    page = ROW.sub(fill, tree.read(root, 'docs/CONTRACTS.md'))
    with open(os.path.join(root, 'docs/CONTRACTS.md'), 'w', encoding='utf-8') as file:
        file.write(page)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--root', default=os.path.dirname(os.path.dirname(__file__)) or '.')
    parser.add_argument('--write', action='store_true', help='fill in the tests first')
    options = parser.parse_args()
    root = os.path.abspath(options.root)
    if options.write:
        write(root)
    problems = list(check(root))
    for problem in problems:
        print(problem)
    print(f'contracts: {len(CONTRACTS)} rows, {len(problems)} problems')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
