#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Check the walls between folders: layers.py [--root DIR] [--build DIR]

Fails on an include that tools/layers.txt does not allow, on one that is not rooted at src/, on
`../`, on an included .c file and on cycles (of folders and of files). With --build also on a
symbol that the pure folders must not use, read from the archives of that build.
"""

import argparse
import os
import re
import subprocess
import sys

import tree

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include\s*([<"])([^>"]+)[>"]', re.M)


class Rules:
    def __init__(self, text):
        self.may = {}      # folder -> folders it may include
        self.system = {}   # folder -> kind of system headers
        self.headers = {}  # kind -> names; 'any' is absent
        self.only = {}     # (folder, folder it may include) -> the headers it may
        self.pure, self.symbols = [], set()
        for line in text.splitlines():
            words = line.split()
            if not words or words[0].startswith('#'):
                continue
            if words[0] == 'headers':
                self.headers[words[1]] = set(words[2:])
            elif words[0] == 'only':
                self.only[words[1], words[2].split('/')[0]] = set(words[2:])
            elif words[0] == 'pure':
                self.pure = words[1:]
            elif words[0] == 'symbols':
                self.symbols = set(words[1:])
            else:
                self.may[words[0]] = [] if words[1] == '-' else words[1].split(',')
                self.system[words[0]] = words[2]
        self.layers = [folder for folder in self.may if folder not in OUTSIDE]


OUTSIDE = ('include', 'adapters', 'tool', 'bench', 'examples')


def folder_of(path):
    """'src/io/unix.c' -> 'io', 'tool/main.c' -> 'tool'; None: no walls (src/semel.c, tests)."""
    parts = path.split('/')
    if parts[0] == 'src':
        return parts[1] if len(parts) > 2 else None
    return parts[0] if parts[0] in OUTSIDE else None


def check_quoted(rules, root, path, folder, name):
    """Why `#include "name"` in `path` is wrong, or None; for tests and src/*.c folder is None."""
    if folder in OUTSIDE:
        here = os.path.join(root, os.path.dirname(path), name)
        top = os.path.join(root, folder, name)
        if name.split('/')[0] in rules.layers and not os.path.exists(here):
            return f'{folder} may include only <semel/...>'
        if not os.path.exists(here) and not os.path.exists(top):
            return 'no such file in its own folder'
        return None
    if folder is None:
        return None
    target = name.split('/')[0]
    if '/' not in name or target not in rules.layers:
        return 'not rooted at src/'
    if target != folder and target not in rules.may[folder]:
        return f'{folder} may not include {target}'
    if name not in rules.only.get((folder, target), {name}):
        return f'{folder} may not include this header of {target}'
    if not os.path.exists(os.path.join(root, 'src', name)):
        return 'no such file'
    return None


def check_angled(rules, folder, name):
    if name.startswith('semel/'):
        return None
    if '/' in name and name.split('/')[0] in rules.layers and folder is not None:
        return 'project headers are included with quotes'
    allowed = rules.headers.get(rules.system[folder]) if folder else None
    if allowed is not None and name not in allowed:
        return f'{folder} may not include this system header'
    return None


def check_includes(rules, root):
    problems, graph = [], {}
    for path in tree.c_files(root):
        folder = folder_of(path)
        if path.startswith('src/') and folder is not None and folder not in rules.may:
            problems.append(f'{path}: folder {folder} is not in tools/layers.txt')
            continue
        text = re.sub(r'/\*.*?\*/', lambda m: '\n' * m.group().count('\n'),
                      tree.read(root, path), flags=re.S)
        graph[path] = []
        for match in INCLUDE.finditer(text):
            kind, name = match.groups()
            if '..' in name.split('/'):
                why = '../ is not allowed'
            elif name.endswith('.c'):
                why = 'a .c file is not included'
            elif kind == '"':
                why = check_quoted(rules, root, path, folder, name)
                graph[path].append('src/' + name)
            else:
                why = check_angled(rules, folder, name)
                graph[path].append('include/' + name)
            if why:
                line = text.count('\n', 0, match.start()) + 1
                problems.append(f'{path}:{line}: #include {name}: {why}')
    return problems, graph


def find_cycles(graph, what):
    """Each cycle once, as a problem; depth first with three colours."""
    problems, colour = [], {}

    def visit(node, trail):
        colour[node] = 'open'
        for target in graph.get(node, []):
            if colour.get(target) == 'open':
                ring = trail[trail.index(target):] + [target]
                problems.append(f'cycle of {what}: ' + ' -> '.join(ring))
            elif target not in colour and target in graph:
                visit(target, trail + [target])
        colour[node] = 'done'

    for node in sorted(graph):
        if node not in colour:
            visit(node, [node])
    return problems


def symbols_of(archive):
    """Object file -> (defined, undefined) of an archive, thin or not."""
    out = subprocess.run(['nm', '-A', '--format=posix', archive], check=True, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    objects = {}
    for line in out.splitlines():
        where, name, kind = line.split()[:3]
        defined, undefined = objects.setdefault(where, (set(), set()))
        if kind in 'Uwv':
            undefined.add(name)
        elif kind.isupper():
            defined.add(name)
    return objects


def pure_symbols(objects, allowed):
    """What may be used of `objects`: symbols of those that themselves use nothing else."""
    good = dict(objects)
    while True:
        have = allowed.union(*(defined for defined, _ in good.values())) if good else set(allowed)
        bad = [name for name, (_, undefined) in good.items() if undefined - have]
        if not bad:
            return have
        for name in bad:
            del good[name]


def check_purity(rules, build):
    problems = []
    allowed = rules.symbols | {'_GLOBAL_OFFSET_TABLE_', '__stack_chk_fail'}
    for layer in rules.pure:
        have, own = set(allowed), {}
        for below in rules.may[layer] + [layer]:
            archive = os.path.join(build, 'src', f'libsml_{below}.a')
            if not os.path.exists(archive):
                problems.append(f'{archive}: not built')
                continue
            objects = symbols_of(archive)
            if below == layer:
                own = objects
                have = have.union(*(defined for defined, _ in objects.values()))
            else:
                have |= pure_symbols(objects, have)
        for name, (_, undefined) in sorted(own.items()):
            for symbol in sorted(undefined - have):
                problems.append(f'{name} {layer} is pure and may not use {symbol}')
    return problems


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--root', default=os.path.dirname(os.path.dirname(__file__)) or '.')
    parser.add_argument('--build', help='a build directory: check the purity of its objects too')
    options = parser.parse_args()
    root = os.path.abspath(options.root)
    rules = Rules(tree.read(root, 'tools/layers.txt'))
    problems, graph = check_includes(rules, root)
    problems += find_cycles(graph, 'files')
    problems += find_cycles(rules.may, 'folders')
    if options.build:
        problems += check_purity(rules, options.build)
    for problem in problems:
        print(problem)
    print(f'layers: {len(graph)} files, {len(problems)} problems')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
