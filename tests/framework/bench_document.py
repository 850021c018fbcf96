"""Runs a benchmark as a user does and holds its document to the schema (design.md section 12)."""

import json
import math
import subprocess
import sys
from typing import Any

from tools.measure.result import UNITS

RESULT_KEYS = {"name", "parameters", "value", "unit", "samples", "min", "max", "baseline", "ratio"}


def bench(*words: str, deadline: float = 120) -> dict[str, Any]:
    """The checked document of `hostctl bench WORDS --json`."""
    command = [sys.executable, "-m", "tools.cli", "bench", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=deadline)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    check(document, words[0])
    return document


def check(document: dict[str, Any], name: str) -> None:
    """AssertionError where the document is not of schema 1."""
    assert set(document) == {"bench", "schema", "environment", "results"}
    assert (document["bench"], document["schema"]) == (name, 1)
    assert document["environment"]["clock_source"] and document["environment"]["kernel"]
    assert document["results"]
    for result in document["results"]:
        assert set(result) == RESULT_KEYS
        assert result["unit"] in UNITS
        assert isinstance(result["samples"], int) and result["samples"] >= 1
        assert all(math.isfinite(result[key]) for key in ("value", "min", "max"))
        assert result["min"] <= result["value"] <= result["max"]
        if result["baseline"] is None:
            assert result["ratio"] is None
        else:
            assert set(result["baseline"]) == {"name", "value"} and isinstance(result["baseline"]["name"], str)
            assert math.isclose(result["ratio"], result["value"] / result["baseline"]["value"])


def only(document: dict[str, Any], name: str, **parameters: Any) -> dict[str, Any]:
    """The one result with this name and these parameters, whatever others it has."""
    found = [
        result for result in document["results"]
        if result["name"] == name and parameters.items() <= result["parameters"].items()
    ]
    assert len(found) == 1, f"{len(found)} results {name} with {parameters}"
    return found[0]
