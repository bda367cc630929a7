#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Check the rules of docs/STYLE.md that a machine can check: tidy.py [--root DIR]"""

import argparse
import os
import re
import sys

import tree

COLUMNS, FILE_LINES, FUNCTION_LINES = 100, 900, 70
TOKEN = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|//[^\n]*|/\*.*?\*/', re.S)
SPDX = 'SPDX-License-Identifier: MIT'
LATER = re.compile(r'\b(TODO|FIXME|XXX|HACK)\b')
EXPORT = re.compile(r'^SEMEL_API\b[^;{]*?\b(semel_\w+)\s*\(', re.M)


def line_of(text, offset):
    return text.count('\n', 0, offset) + 1


def without_words(text):
    """The text with comments and literals blanked, lines kept."""
    def blank(match):
        return re.sub(r'[^\n]', ' ', match.group())
    return TOKEN.sub(blank, text)


def check_text(path, text):
    """What holds for every text file of ours."""
    lines = text.split('\n')
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS and path.endswith(('.c', '.h', '.py', '.sh')):
            yield f'{path}:{number}: {len(line)} columns, more than {COLUMNS}'
        if line != line.rstrip():
            yield f'{path}:{number}: blanks at the end of the line'
        if '\t' in line and not path.endswith('Makefile'):
            yield f'{path}:{number}: a tab'
        if LATER.search(line) and not path.startswith(('tools/', 'tests/house/', 'docs/')):
            yield f'{path}:{number}: {LATER.search(line).group()}'
    if text and not text.endswith('\n'):
        yield f'{path}: no newline at the end'
    first = lines[1] if lines[0].startswith('#!') and len(lines) > 1 else lines[0]
    if SPDX not in first:
        yield f'{path}: the first line is not the {SPDX} line'


def check_c(path, text):
    for match in TOKEN.finditer(text):
        if match.group().startswith('//'):
            yield f'{path}:{line_of(text, match.start())}: a // comment'
    if text.count('\n') > FILE_LINES:
        yield f'{path}: {text.count(chr(10))} lines, more than {FILE_LINES}'
    start = 0
    for number, line in enumerate(without_words(text).split('\n'), 1):
        if line.rstrip() == '{':
            start = number
        elif line.startswith('}') and start:
            if number - start - 1 > FUNCTION_LINES:
                yield f'{path}:{start}: a function of {number - start - 1} lines, ' \
                      f'more than {FUNCTION_LINES}'
            start = 0


def check_mirror(root):
    """Each src/X/Y.c has tests/X/test_Y.c or stands in tools/untested.txt with a reason."""
    excused = {}
    if os.path.exists(os.path.join(root, 'tools/untested.txt')):
        for line in tree.read(root, 'tools/untested.txt').splitlines():
            if line.strip() and not line.startswith('#'):
                path, _, reason = line.partition(' ')
                excused[path] = reason.strip()
    for path in tree.walk(root, 'src', ('.c',)):
        folder, name = os.path.split(path)
        test = os.path.join('tests', os.path.relpath(folder, 'src'), 'test_' + name)
        if os.path.exists(os.path.join(root, test)):
            if path in excused:
                yield f'tools/untested.txt: {path} has a test, {os.path.normpath(test)}'
        elif not excused.get(path):
            yield f'{path}: no {os.path.normpath(test)}, and no reason in tools/untested.txt'
        excused.pop(path, None)
    for path in excused:
        yield f'tools/untested.txt: there is no {path}'


def check_registered(root):
    """A source or test that its meson.build does not list would silently not exist."""
    for path in tree.walk(root, 'src', ('.c',)) + tree.walk(root, 'tests', ('.c',)):
        folder, name = os.path.split(path)
        if path.startswith('tests/') and not name.startswith('test_'):
            continue
        build = os.path.join(folder, 'meson.build')
        word = name if path.startswith('src/') else name[:-2]
        if not os.path.exists(os.path.join(root, build)) or \
                not re.search(r"'" + re.escape(word) + r"(\.c)?'", tree.read(root, build)):
            yield f'{path}: not in {build}'


def documented(text):
    """(function, the comment above its group of declarations) of a public header."""
    for match in EXPORT.finditer(text):
        above = text[:match.start()]
        group = above.rsplit('\n\n', 1)[-1]
        comments = re.findall(r'/\*.*?\*/', group, re.S)
        yield match.group(1), line_of(text, match.start()), comments[-1] if comments else None


def check_public(root):
    pages = ''.join(tree.read(root, path) for path in tree.walk(root, 'docs/man', ('.3.scd',)))
    for path in tree.walk(root, 'include', ('.h',)):
        for name, line, comment in documented(tree.read(root, path)):
            if comment is None:
                yield f'{path}:{line}: {name} has no comment'
                continue
            for word in ('Thread', 'Since:'):
                if word not in comment:
                    yield f'{path}:{line}: the comment of {name} has no {word}'
            if pages and not re.search(r'\b' + name + r'\b', pages):
                yield f'{path}:{line}: {name} is in no page of docs/man'


def problems_of(root):
    for path in tree.c_files(root):
        text = tree.read(root, path)
        yield from check_text(path, text)
        yield from check_c(path, text)
    for folder in ('tools', 'tests', 'tool', 'bench', 'examples', 'src', 'adapters', '.ci'):
        for path in tree.walk(root, folder, ('.py', '.sh', 'meson.build', '.cmake', '.in', '.map')):
            yield from check_text(path, tree.read(root, path))
    yield from check_mirror(root)
    yield from check_registered(root)
    yield from check_public(root)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--root', default=os.path.dirname(os.path.dirname(__file__)) or '.')
    options = parser.parse_args()
    root = os.path.abspath(options.root)
    problems = list(problems_of(root))
    for problem in problems:
        print(problem)
    print(f'tidy: {len(tree.c_files(root))} C files, {len(problems)} problems')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
