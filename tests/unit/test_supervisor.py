"""The supervisor is made of several classes: no method of one hides that of another."""

from __future__ import annotations

import inspect
from collections import defaultdict
from typing import Any

from hostd.supervisor import Supervisor


def test_each_method_is_written_once() -> None:
    """Declarations, which only raise NotImplementedError, stand behind the method itself."""
    found: dict[str, list[Any]] = defaultdict(list)
    for part in Supervisor.__mro__[:-1]:
        for name, value in vars(part).items():
            function = value.__func__ if isinstance(value, staticmethod) else value
            if inspect.isfunction(function) and not name.startswith("__"):
                found[name].append(function)
    for name, functions in found.items():
        bodies = [inspect.getsource(one).rstrip().endswith("raise NotImplementedError") for one in functions]
        assert bodies == [False, *[True] * (len(bodies) - 1)], f"{name}: {[one.__qualname__ for one in functions]}"
