#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The gateway hears of every node, and has a verdict of the one that does not answer."""
import os
import subprocess
import sys

EXPECTED = """node 0: failure: no sensor
node 1: 21 degrees
node 2: 22 degrees
node 3: 23 degrees
"""

out = subprocess.run([os.environ['GATEWAY'], '4'], capture_output=True, text=True, timeout=50)
if out.returncode != 0 or out.stdout != EXPECTED or out.stderr:
    sys.exit(f'exit {out.returncode}\n{out.stdout}{out.stderr}')
