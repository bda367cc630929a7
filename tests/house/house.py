# SPDX-License-Identifier: MIT
"""What the tests of the house share."""

import glob
import os
import re
import subprocess

ROOT = os.environ.get('SEMEL_ROOT') or os.path.abspath(os.path.join(os.path.dirname(__file__),
                                                                    '..', '..'))
BUILD = os.environ.get('SEMEL_BUILD') or os.path.join(ROOT, 'build', 'test')
SQLITE_LIBRARY = os.environ.get('SEMEL_SQLITE_LIBRARY') or ''  # empty: it is not built
UV_LIBRARY = os.environ.get('SEMEL_UV_LIBRARY') or ''
GLIB_LIBRARY = os.environ.get('SEMEL_GLIB_LIBRARY') or ''
# Headers of libraries of their own: the library's name, and where it was built.
OTHERS = {'sqlite.h': ('semel_sqlite', SQLITE_LIBRARY), 'uv.h': ('semel_uv', UV_LIBRARY),
          'glib.h': ('semel_glib', GLIB_LIBRARY)}
LIBRARY = os.environ.get('SEMEL_LIBRARY') or os.path.join(BUILD, 'src', 'libsemel.so.0')


def run(command, **more):
    """(status, everything it printed)."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, **more)
    return done.returncode, done.stdout


def must(command, **more):
    status, out = run(command, **more)
    if status:
        raise AssertionError(f'{" ".join(command)}\nended with {status}:\n{out}')
    return out


def read(path):
    with open(os.path.join(ROOT, path), encoding='utf-8') as file:
        return file.read()


def installed_headers():
    found = [os.path.basename(h) for h in headers('include')]
    return [h for h in found if h not in OTHERS or OTHERS[h][1]]


def headers(folder):
    found = glob.glob(os.path.join(ROOT, folder, '**', '*.h'), recursive=True)
    return sorted(os.path.relpath(path, os.path.join(ROOT, folder)) for path in found)


def declared(library='semel'):
    """The functions that the public headers of a library declare as exported."""
    names = set()
    for header in headers('include'):
        if OTHERS.get(os.path.basename(header), ('semel', ''))[0] != library:
            continue
        text = re.sub(r'/\*.*?\*/', '', read(os.path.join('include', header)), flags=re.S)
        names.update(re.findall(r'^SEMEL_API\b[^;{]*?\b(\w+)\s*\(', text, re.M))
    return names
