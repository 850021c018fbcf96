"""Says which modules a process finds imported."""

import sys


def loaded(_context):
    print(" ".join(sorted(sys.modules)))
