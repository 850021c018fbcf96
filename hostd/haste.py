"""A hostd that follows a killed one goes before the guests until it has adopted what runs and answers.

Its program needs 0.6 s of a processor for that, nearly all of it for imports, and beside guests that keep every
processor busy and data threads of a real-time class a process of the normal class gets that in several seconds. So
from its first lines on its only thread is of a real-time class: above the normal one, which the guests are of, and
below data threads (hostd.fabric), which so lose nothing: the kernel runs it where no data thread wants to run. It rests
after every TURN, so that guests go on meanwhile.

Where the right is missing nothing changes.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
from collections.abc import Sequence
from contextlib import suppress

from hostd.paths import resolve
from hostd.runtime import is_held, is_locked

PRIORITY = 5  # of SCHED_RR
TURN, REST = 0.01, 0.003  # seconds of processor time, and of the rest behind it: guests get a quarter of its processor


def begin_where_needed(words: Sequence[str]) -> None:
    """`words` of the command line, which nobody has checked yet."""
    paths = resolve(_value(words, "--runtime-dir"), _value(words, "--state-dir"))
    with suppress(OSError):  # whatever is wrong with the folders is told by who uses them
        if is_locked(paths.runtime) and paths.lock.exists() and not is_held(paths.lock):
            begin()


def begin() -> None:
    """Ends with the process at the latest: the signal would end it once the interpreter has let go its handler."""
    atexit.register(end)
    # What this process starts is of the normal class, threads too.
    os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    signal.signal(signal.SIGPROF, lambda *_: _rest())
    signal.setitimer(signal.ITIMER_PROF, TURN, TURN)


def end() -> None:
    """To be called by the same thread; where nothing has begun nothing changes."""
    signal.setitimer(signal.ITIMER_PROF, 0.0)
    if os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _rest() -> None:
    select.select([], [], [], REST)  # for no event: for time that others get


def _value(words: Sequence[str], option: str) -> str | None:
    """As argparse finds it, whose import alone would come before the haste."""
    found = None
    for word, following in zip(words, [*words[1:], None], strict=True):
        if word == option:
            found = following
        if word.startswith(option + "="):
            found = word.partition("=")[2]
    return found
