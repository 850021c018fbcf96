"""Says which modules a process finds imported."""

import sys


def loaded(_context):
    print(" ".join(sorted(sys.modules)))


def first_line(_context):
    print("up", flush=True)
