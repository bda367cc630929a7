#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The counter is wrong without the lock and right with it, in that order and every time."""
import os
import subprocess
import sys

EXPECTED = """without the lock:
  first got 2
  second got 2
with the lock:
  first got 1
  second got 2
"""

out = subprocess.run([os.environ['COUNTER']], capture_output=True, text=True, timeout=50)
if out.returncode != 0 or out.stdout != EXPECTED or out.stderr:
    sys.exit(f'exit {out.returncode}\n{out.stdout}{out.stderr}')
