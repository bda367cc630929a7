#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Build and run the tests: lanes.py [LANE...]   (walls release asan tsan; all unless given)

The last line is 'N passed, N failed', summed over the lanes; the status is 0 only without failures.
A test is one case: a cmocka test, a method of a Python test, or else a whole program.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SANITIZED = ['-Doptimization=1', '-Db_lundef=false',
             '-Dc_args=-fno-omit-frame-pointer -fno-sanitize-recover=all']

# name: (compiler, options of meson setup, options of meson test)
LANES = {
    'release': ('gcc', ['-Dbench=true'], []),
    'asan': ('clang', ['-Db_sanitize=address,undefined'] + SANITIZED,
             ['--timeout-multiplier=3', '--no-suite=house']),
    'tsan': ('clang', ['-Db_sanitize=thread'] + SANITIZED,
             ['--timeout-multiplier=3', '--no-suite=house']),
}


class Tally:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.failures = []

    def add(self, lane, name, passed, failed, skipped=0):
        self.passed += passed
        self.failed += failed
        self.skipped += skipped
        if failed:
            self.failures.append(f'{lane}: {name}')

    def text(self):
        return f'{self.passed} passed, {self.failed} failed'


def say(text):
    print(text, flush=True)


def run(command, **more):
    sys.stdout.flush()
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, **more)


def run_quietly(command, env=None):
    """True when it succeeded; otherwise its output is shown."""
    done = run(command, env=env, text=True, errors='replace',
               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        say(' '.join(command))
        say('\n'.join(done.stdout.splitlines()[-80:]))
    return done.returncode == 0


def build_dir(lane):
    return os.path.join('build', 'test' if lane == 'release' else lane)


def build(lane):
    compiler, setup, _ = LANES[lane]
    folder = build_dir(lane)
    command = ['meson', 'setup', folder, '-Dwerror=true'] + setup
    if os.path.exists(os.path.join(ROOT, folder, 'build.ninja')):
        command.insert(2, '--reconfigure')
    env = dict(os.environ, CC=compiler)
    if not run_quietly(command, env):
        shutil.rmtree(os.path.join(ROOT, folder), ignore_errors=True)
        command = [word for word in command if word != '--reconfigure']
        if not run_quietly(command, env):
            return False
    return run_quietly(['ninja', '-C', folder])


def count_cases(entry):
    """(passed, failed, skipped) of one program of meson's log."""
    out = (entry.get('stdout') or '') + '\n' + (entry.get('stderr') or '')
    begun = len(re.findall(r'^\[ RUN      \] ', out, re.M))
    passed = len(re.findall(r'^\[       OK \] ', out, re.M))
    skipped = len(re.findall(r'^\[  SKIPPED \] (?!tests?:|\d)', out, re.M))
    ran = re.search(r'^Ran (\d+) tests? in', out, re.M)
    if ran and not begun:
        # unittest: "FAILED (failures=1, errors=2, skipped=3)" or "OK (skipped=3)"
        bad = sum(int(n) for n in re.findall(r'(?:failures|errors)=(\d+)', out))
        skipped = sum(int(n) for n in re.findall(r'\bskipped=(\d+)', out))
        begun, passed = int(ran.group(1)), int(ran.group(1)) - bad - skipped
    failed = max(begun - passed - skipped, 0)
    if entry['result'] == 'SKIP':
        return 0, 0, max(begun, 1)
    if entry['result'] not in ('OK', 'EXPECTEDFAIL'):
        return passed, max(failed, 1), skipped
    # The program's word decides: a case that was meant to fail is not a failure.
    return max(begun - skipped, 0 if begun else 1), 0, skipped


def skips(entry):
    """What says in one program's output that it, or a test of it, was skipped, and why."""
    out = (entry.get('stdout') or '') + '\n' + (entry.get('stderr') or '')
    if entry['result'] == 'SKIP':
        return [out.strip().split('\n')[-1]]
    found = re.finditer(r'^\[  SKIPPED \] (?!tests?:|\d)(.*)|^(.* \.\.\. skipped .*)', out, re.M)
    return list(dict.fromkeys(match[1] or match[2] for match in found))


def needs_fixed_addresses():
    """Does the thread sanitizer refuse this kernel's address layout, and does setarch help?"""
    if not shutil.which('setarch'):
        return False
    with tempfile.TemporaryDirectory() as scratch:
        source, program = os.path.join(scratch, 'a.c'), os.path.join(scratch, 'a')
        with open(source, 'w', encoding='utf-8') as file:
            file.write('int main(void) { return 0; }\n')
        quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
        if run(['clang', '-fsanitize=thread', '-o', program, source], **quiet).returncode:
            return False
        plain = any(run([program], **quiet).returncode for _ in range(10))
        return plain and not run(['setarch', '-R', program], **quiet).returncode


def run_lane(lane, tally):
    say(f'== {lane}: build')
    if not build(lane):
        tally.add(lane, 'the build', 0, 1)
        return
    say(f'== {lane}: tests')
    log = os.path.join(ROOT, build_dir(lane), 'meson-logs', 'testlog.json')
    if os.path.exists(log):
        os.remove(log)
    command = ['meson', 'test', '-C', build_dir(lane), '--no-rebuild', '--print-errorlogs']
    if lane == 'tsan' and needs_fixed_addresses():
        command.append('--wrapper=setarch -R')
    status = run(command + LANES[lane][2]).returncode
    entries = []
    if os.path.exists(log):
        with open(log, encoding='utf-8', errors='replace') as file:
            entries = [json.loads(line) for line in file if line.strip()]
    for entry in entries:
        tally.add(lane, entry['name'], *count_cases(entry))
        for words in skips(entry):
            say(f"skipped {lane}: {entry['name']}: {words}")
    if status and not tally.failed or not entries:
        tally.add(lane, 'meson test', 0, 1)


def run_walls(tally):
    say('== walls')
    built = os.path.join(ROOT, build_dir('release'))
    commands = [['tools/layers.py'] + (['--build', built] if os.path.exists(built) else []),
                ['tools/tidy.py'], ['tools/contracts.py']]
    for command in commands:
        good = run([sys.executable] + command).returncode == 0
        tally.add('walls', command[0], int(good), int(not good))


def main():
    lanes = sys.argv[1:] or ['release', 'walls', 'asan', 'tsan']
    if set(lanes) - set(LANES) - {'walls'}:
        sys.exit(__doc__)
    total, begin = Tally(), time.monotonic()
    for lane in lanes:
        tally, start = Tally(), time.monotonic()
        if lane == 'walls':
            run_walls(tally)
        else:
            run_lane(lane, tally)
        say(f'== {lane}: {tally.text()}, {tally.skipped} skipped, '
            f'{time.monotonic() - start:.0f} s\n')
        total.add(lane, '', tally.passed, tally.failed, tally.skipped)
        total.failures = [f for f in total.failures if not f.endswith(': ')] + tally.failures
    for failure in total.failures:
        say(f'FAILED {failure}')
    say(f'{time.monotonic() - begin:.0f} s, {total.skipped} skipped')
    say(total.text())
    return 1 if total.failed else 0


if __name__ == '__main__':
    sys.exit(main())
