#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compare the C files with what clang-format makes of them: format.py [--fix] [FILE...]

One thing is kept from it, which version 14 lays out as if it were a function: a macro that is an
initialiser on one line. Another version than 14 formats differently, so it is not asked.
"""

import argparse
import difflib
import os
import re
import shutil
import subprocess
import sys

import tree

INITIALISER = re.compile(r'^(#define \w+(?:\([\w, ]*\))?) (\{.*\})$', re.M)


def find_formatter():
    for name in ('clang-format-14', 'clang-format'):
        if shutil.which(name):
            said = subprocess.run([name, '--version'], text=True, stdout=subprocess.PIPE).stdout
            if re.search(r'version 14\.', said):
                return name
    return None


def formatted(formatter, root, path, text):
    kept = []

    def hide(match):
        kept.append(match.group(2))
        return f'{match.group(1)} KEPT_{len(kept) - 1}_'

    out = subprocess.run([formatter, '--assume-filename', os.path.join(root, path)], check=True,
                         input=INITIALISER.sub(hide, text), text=True,
                         stdout=subprocess.PIPE).stdout
    return re.sub(r'\bKEPT_(\d+)_', lambda match: kept[int(match.group(1))], out)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--root', default=os.path.dirname(os.path.dirname(__file__)) or '.')
    parser.add_argument('--fix', action='store_true', help='write the files')
    parser.add_argument('files', nargs='*', help='relative to the root; all unless given')
    options = parser.parse_args()
    root = os.path.abspath(options.root)
    formatter = find_formatter()
    if not formatter:
        print('format: skipped, there is no clang-format 14')
        return 0
    files = options.files or tree.c_files(root)
    different = 0
    for path in files:
        text = tree.read(root, path)
        wanted = formatted(formatter, root, path, text)
        if text == wanted:
            continue
        different += 1
        if options.fix:
            with open(os.path.join(root, path), 'w', encoding='utf-8') as file:
                file.write(wanted)
        else:
            sys.stdout.writelines(difflib.unified_diff(
                text.splitlines(True), wanted.splitlines(True), path, path + ' (formatted)', n=1))
    print(f'format: {len(files)} C files, {different} ' +
          ('rewritten' if options.fix else 'differ (make format)' if different else 'differ'))
    return 1 if different and not options.fix else 0


if __name__ == '__main__':
    sys.exit(main())
