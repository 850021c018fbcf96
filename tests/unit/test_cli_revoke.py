"""hostctl revoke and grant: what is asked for, and how the receipt reads."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.test_cli_hardware import run

RECEIPT = {
    "name": "one", "generation": 7, "state": "quarantine", "how": "cooperative", "seconds": 0.1, "kind": "endpoint",
    "endpoint": "vda",
    "holders": [{"name": "monitor", "pid": 10, "released": 0.002, "ended": False},
                {"name": "disk0", "pid": 11, "released": None, "ended": False}],
}  # fmt: skip
TARGET = "/v1/partitions/one/revocations"


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (["1MiB", "64KiB"], {"memory": {"offset": 1 << 20, "size": 1 << 16}, "deadline": 1.0}),
        (["--endpoint", "vda", "--deadline", "50ms"], {"endpoint": "vda", "deadline": 0.05}),
        (["--channel", "@calls"], {"channel": "@calls", "deadline": 1.0}),
    ],
)
def test_revoke(monkeypatch: pytest.MonkeyPatch, words: list[str], body: dict[str, Any]) -> None:
    asked, text, code = run(monkeypatch, RECEIPT, "revoke", "one", *words)
    assert (asked.calls, code) == ([("POST", TARGET, body)], 0)
    assert "one: endpoint vda, generation 7: quarantine after" in text
    assert "disk0 (11) let go not yet" in text


@pytest.mark.parametrize(
    "words", [[], ["1MiB"], ["1MiB", "4KiB", "--endpoint", "vda"], ["--endpoint", "vda", "--channel", "vda"]]
)
def test_revoke_takes_one_thing(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    asked, _, code = run(monkeypatch, RECEIPT, "revoke", "one", *words)
    assert (asked.calls, code) == ([], 2)


def test_grant(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"name": "one", "channel": "@calls", "generation": 2, "seconds": 0.001}
    asked, text, _ = run(monkeypatch, answer, "grant", "one", "--channel", "@calls")
    assert asked.calls == [("POST", "/v1/partitions/one/grants", {"channel": "@calls"})]
    assert "one has @calls again, generation 2" in text
    assert run(monkeypatch, answer, "grant", "one")[2] == 2
