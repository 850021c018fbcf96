"""The benchmarks that need a host: each gives its document, with the results and parameters that are promised."""

import json
import subprocess
import sys
from typing import Any

import pytest

RESULTS = {
    "disk": ({"iops", "throughput", "round_trip"}, ["--block", "4096", "--depth", "8"]),
    "net": ({"rate", "throughput", "round_trip"}, ["--size", "256", "--guests", "2"]),
    "spawn": ({"spawn", "removal"}, ["--memory", "16"]),
    "idle": ({"idle_cpu"}, ["--guests", "2"]),
}

BASELINES = {"disk": {"iops": "bare file", "throughput": "bare file"}, "net": {"throughput": "memcpy"}}


def bench(name: str, *flags: str) -> dict[str, Any]:
    outcome = subprocess.run(
        [sys.executable, "-m", "tools.cli", "bench", name, "--json", "--seconds", "0.5", *flags],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    return json.loads(outcome.stdout)


@pytest.mark.parametrize("name", RESULTS)
def test_document(name: str) -> None:
    names, flags = RESULTS[name]
    document = bench(name, *flags)
    assert document["bench"] == name and document["schema"] == 1
    assert {result["name"] for result in document["results"]} == names
    for result in document["results"]:
        assert result["min"] <= result["value"] <= result["max"]
        assert result["value"] > 0 or name == "idle"  # nothing ran in half a second: possible, and meant
        if result["baseline"] is not None:
            assert result["ratio"] == pytest.approx(result["value"] / result["baseline"]["value"])
        for flag, value in zip(flags[::2], flags[1::2], strict=True):
            if (result["name"], flag) != ("round_trip", "--depth"):  # a lone request
                assert result["parameters"][flag.removeprefix("--")] == int(value)
    baselines = {result["name"]: result["baseline"]["name"] for result in document["results"] if result["baseline"]}
    assert baselines == BASELINES.get(name, {})
    assert document["environment"]["verified"] and document["environment"]["placement"]


@pytest.mark.parametrize("flags", [["disk", "--block", "1000"], ["net", "--guests", "3"], ["net", "--path", "fast"]])
def test_wrong_flags(flags: list[str]) -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "tools.cli", "bench", *flags], capture_output=True, text=True, timeout=60
    )
    assert outcome.returncode == 2 and flags[1] in outcome.stderr
