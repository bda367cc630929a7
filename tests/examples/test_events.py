#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every process hears every other one, once, in the order asked for."""
import os
import subprocess
import sys

for nodes in (2, 7):
    expected = sorted(f'{self} heard: ' + ' '.join(f'{other}-greets-{self}'
                                                   for other in range(nodes)
                                                   if other != self) for self in range(nodes))
    out = subprocess.run([os.environ['EVENTS'], str(nodes)], capture_output=True, text=True,
                         timeout=100)
    if out.returncode != 0 or sorted(out.stdout.splitlines()) != expected or out.stderr:
        sys.exit(f'exit {out.returncode}\n{out.stdout}{out.stderr}')
