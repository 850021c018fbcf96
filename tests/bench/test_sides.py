"""The benchmarks that compare: a planted slowdown is found, equals are the same, and wrong settings are refused."""

import subprocess
import sys

import click
import pytest

from tests.framework.bench_document import bench, only
from tools.bench.sides import DEFAULTS, settings


def test_planted_slowdown_is_found() -> None:
    """Every request takes twice its time; a machine that others use needs so much to show it in seconds."""
    document = bench("ab", "--load", "disk", "--a", "depth=1", "--b", "depth=1", "--plant", "1", "--seconds", "5")
    assert document["environment"]["verdict"] == "different"
    assert only(document, "different")["value"] == 1
    ratio = only(document, "ratio")
    assert ratio["min"] <= ratio["value"] <= ratio["max"] < 1
    assert ratio["parameters"]["confidence"] == 0.99 and ratio["samples"] >= 10
    assert only(document, "rate", side="a")["samples"] == ratio["samples"]


def test_paths_alternate_on_one_set_of_guests() -> None:
    document = bench("ab", "--load", "net", "--a", "path=redirect,depth=1,batch=1",
                     "--b", "path=direct,depth=1,batch=1", "--seconds", "1")  # fmt: skip
    assert only(document, "ratio")["value"] > 1
    assert document["environment"]["verified"]


def test_equals() -> None:
    document = bench("aa", "--load", "disk", "--settings", "depth=1", "--runs", "2", "--seconds", "0.1")
    assert only(document, "different")["parameters"]["runs"] == 2
    assert only(document, "interval")["samples"] == 2


def test_attribution_has_both_loads() -> None:
    document = bench("attribution", "--seconds", "0.5")
    for load, path in (("net", "direct"), ("disk", "redirect")):
        overhead = only(document, "overhead", load=load)
        assert overhead["unit"] == "fraction" and overhead["value"] < 1 and overhead["parameters"]["path"] == path


@pytest.mark.parametrize(("load", "text", "word"), [
    ("net", "block=512", "none of path, size"), ("disk", "size=64", "none of path, block"),
    ("net", "path=fast", "copy or redirect or direct"), ("net", "size=big", "number"),
    ("disk", "attribution=1", "on or off"),
])
def test_wrong_settings(load: str, text: str, word: str) -> None:
    with pytest.raises(click.BadParameter, match=word):
        settings(load, text)


def test_settings_change_defaults() -> None:
    assert settings("net", "") == DEFAULTS["net"]
    assert settings("net", "size=1500,path=copy") == {**DEFAULTS["net"], "size": 1500, "path": "copy"}


def test_wrong_settings_end_with_usage() -> None:
    done = subprocess.run([sys.executable, "-m", "tools.cli", "bench", "ab", "--a", "sise=5"], capture_output=True,
                          text=True, timeout=60)  # fmt: skip
    assert done.returncode == 2 and "sise" in done.stderr


@pytest.mark.long
def test_equals_are_called_different_at_most_as_often_as_said() -> None:
    """On a machine that does nothing else."""
    for load in DEFAULTS:
        document = bench("aa", "--load", load, "--runs", "100", "--seconds", "0.5", deadline=300)
        assert only(document, "different")["value"] <= 0.05


@pytest.mark.long
@pytest.mark.parametrize("load", DEFAULTS)
def test_five_percent_are_found(load: str) -> None:
    """On a machine that does nothing else."""
    document = bench("ab", "--load", load, "--plant", "0.05", "--seconds", "60", deadline=300)
    assert document["environment"]["verdict"] == "different"
    assert only(document, "ratio")["max"] < 1
