"""The benchmarks that need a host: each gives its document, with the results and parameters that are promised."""

import json
import shutil
import subprocess
import sys
from typing import Any

import pytest

LOADS = {"cpu_per_byte", "role_cpu_per_byte", "notifications", "round_trip", "latency", "throughput", "stage_time"}
RESULTS = {
    "disk": ({"iops", *LOADS}, ["--block", "4096", "--depth", "8"]),
    "net": ({"rate", *LOADS}, ["--size", "256", "--guests", "2"]),
    "spawn": ({"spawn", "removal"}, ["--memory", "16"]),
    "idle": ({"idle_cpu"}, ["--guests", "2"]),
    "discovery": ({"fault_cost", "look_cost"}, []),
    "nbd": ({"iops"}, ["--block", "4096", "--depth", "8"]),
    "disks": ({"iops", "throughput"}, []),
}
LONG = ("disks",)  # eight hosts

FILES = {"bare file", "fio psync", "fio io_uring"}
BASELINES = {
    "disk": {"iops": FILES, "throughput": FILES},
    "net": {"throughput": {"memcpy"}},
    "discovery": {"fault_cost": {"userfaultfd within one process"}},
    "nbd": {"iops": {"nbdkit file"}} if shutil.which("nbdkit") else {},
    "disks": {"iops": {*FILES, "plain file"}, "throughput": FILES},
}
NEEDED = {"nbd": "fio", "disks": "fio"}


def bench(name: str, *flags: str) -> dict[str, Any]:
    outcome = subprocess.run(
        [sys.executable, "-m", "tools.cli", "bench", name, "--json", "--seconds", "0.5", *flags],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    return json.loads(outcome.stdout)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in RESULTS])
def test_document(name: str) -> None:
    if name in NEEDED and shutil.which(NEEDED[name]) is None:
        pytest.skip(f"{NEEDED[name]} is not installed")
    names, flags = RESULTS[name]
    document = bench(name, *flags)
    assert document["bench"] == name and document["schema"] == 1
    assert {result["name"] for result in document["results"]} - {"reference"} == names
    for result in document["results"]:
        assert result["min"] <= result["value"] <= result["max"]
        # Nothing ran in half a second, or not one sleep: possible, and meant.
        assert result["value"] > 0 or result["name"] in ("idle_cpu", "role_cpu_per_byte", "notifications", "stage_time")
        if result["baseline"] is not None:
            assert result["ratio"] == pytest.approx(result["value"] / result["baseline"]["value"])
        for flag, value in zip(flags[::2], flags[1::2], strict=True):
            if (result["name"], flag) not in (("round_trip", "--depth"), ("latency", "--depth")):
                assert result["parameters"][flag.removeprefix("--")] == int(value)
    baselines = {result["name"]: result["baseline"]["name"] for result in document["results"] if result["baseline"]}
    assert baselines.keys() == BASELINES.get(name, {}).keys()
    assert all(baselines[result] in known for result, known in BASELINES.get(name, {}).items())
    environment = document["environment"]
    assert environment["verified"] and environment["placement"] and len(environment["manifest"]) == 64
    assert environment["packages"]["partvisor"] and environment["clock_source"] and "source" in environment
    if name in ("disk", "net"):
        consistent(document)


def consistent(document: dict[str, Any]) -> None:
    """Results of one window agree with each other."""
    by_name = {result["name"]: result for result in document["results"]}
    size = by_name["throughput"]["parameters"].get("block") or by_name["throughput"]["parameters"]["size"]
    rate = by_name.get("iops") or by_name["rate"]
    assert by_name["throughput"]["value"] == pytest.approx(rate["value"] * size)
    latencies = {result["parameters"]["quantile"]: result["value"] for result in document["results"]
                 if result["name"] == "latency"}  # fmt: skip
    assert list(latencies) == [0.5, 0.9, 0.99, 0.999, 1.0]
    assert sorted(latencies.values()) == list(latencies.values())
    roles = [result["value"] for result in document["results"] if result["name"] == "role_cpu_per_byte"]
    assert sum(roles) == pytest.approx(by_name["cpu_per_byte"]["value"], rel=0.5), "medians of parts and of the whole"


@pytest.mark.parametrize("flags", [["disk", "--block", "1000"], ["net", "--guests", "3"], ["net", "--path", "fast"]])
def test_wrong_flags(flags: list[str]) -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "tools.cli", "bench", *flags], capture_output=True, text=True, timeout=60
    )
    assert outcome.returncode == 2 and flags[1] in outcome.stderr
