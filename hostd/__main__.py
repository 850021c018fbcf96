"""`python -m hostd`: the daemon (hostd.daemon), in haste where it follows one that was killed (hostd.haste).

What is imported here is little: all other imports are most of the time that such a one needs, so they are in haste.
"""

from __future__ import annotations

import gc
import sys

from hostd import haste


def main() -> int:
    haste.begin_where_needed(sys.argv[1:])
    gc.disable()  # until hostd is ready: nothing of what is imported is garbage, and it would be looked through often
    from hostd import daemon

    return daemon.main()


if __name__ == "__main__":
    sys.exit(main())
