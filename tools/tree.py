# SPDX-License-Identifier: MIT
"""The files of the tree that the checkers look at."""

import os

# bench/peers holds programs that are compared with as they are.
SKIPPED = {'.git', 'build', '.cache', '__pycache__', 'bench/peers'}
C_FOLDERS = ('include', 'src', 'adapters', 'tool', 'bench', 'examples', 'tests')


def walk(root, folder, endings):
    """Paths below root/folder, relative to root and sorted, that end in one of `endings`."""
    found = []
    for path, folders, files in os.walk(os.path.join(root, folder)):
        here = os.path.relpath(path, root)
        folders[:] = [f for f in folders if f not in SKIPPED
                      and os.path.normpath(os.path.join(here, f)) not in SKIPPED]
        found += [os.path.normpath(os.path.join(here, f)) for f in files if f.endswith(endings)]
    return sorted(found)


def c_files(root, endings=('.c', '.h')):
    return [path for folder in C_FOLDERS for path in walk(root, folder, endings)]


def read(root, path):
    with open(os.path.join(root, path), encoding='utf-8') as file:
        return file.read()
