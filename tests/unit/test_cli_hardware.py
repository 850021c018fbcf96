"""The verbs about hardware: what they ask for and what they show."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from tools.cli import cli
from tools.verbs import attach, detach, view

DOCUMENT: dict[str, Any] = {
    "region": {"traps": True},
    "believed": {
        "functions": [
            {"address": "00:01.0", "kind": "nic", "name": "eth0", "outcome": "changed", "seen": True, "device": "nic0"}
        ],
        "pages": {"true": 0, "changed": 3, "hidden": 255},
        "changes": 1,
    },
    "true": [
        {"device": "nic0", "kind": "nic", "address": "00:01.0", "owner": None,
         "endpoints": [{"partition": "one", "endpoint": "eth0", "port": 0},
                       {"partition": "two", "endpoint": "eth0", "port": 1}]},
    ],
}  # fmt: skip


class Asked:
    """A client that notes what it is asked for."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.calls: list[tuple[str, str, Any]] = []
        self.answer = answer

    def get(self, path: str) -> dict[str, Any]:
        return self.request("GET", path)

    def request(self, method: str, path: str, body: Any = None, **_more: Any) -> dict[str, Any]:
        self.calls.append((method, path, body))
        return self.answer


def run(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], *words: str) -> tuple[Asked, str, int]:
    asked = Asked(answer)
    monkeypatch.setattr("tools.options.Session.client", lambda _session: asked)
    outcome = CliRunner().invoke(cli, list(words))
    return asked, outcome.output, outcome.exit_code


def test_view_shows_belief_beside_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, text, code = run(monkeypatch, DOCUMENT, "view", "one", "--hardware")
    assert code == 0
    assert asked.calls == [("GET", "/v1/partitions/one/hardware", None)]
    believed, _, true = text.partition("TRUE")
    assert "eth0" in believed and "two" not in believed
    assert "one.eth0, two.eth0" in true
    assert view.command.name and attach.command.name and detach.command.name


def test_view_says_why_nothing_traps(monkeypatch: pytest.MonkeyPatch) -> None:
    document = {**DOCUMENT, "region": {"traps": False, "missing": "userfaultfd: no"}, "believed": None}
    _, text, _ = run(monkeypatch, document, "view", "one", "--hardware")
    assert "userfaultfd: no" in text


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (["--nic", "eth1,weight=200"], {"nic": {"name": "eth1", "weight": 200}}),
        (["--disk", "vdb:1MiB:ro", "--file", "x.img", "--device", "disk1"],
         {"disk": {"name": "vdb", "size": 1 << 20, "read_only": True, "file": "x.img", "device": "disk1"}}),
    ],
)  # fmt: skip
def test_attach(monkeypatch: pytest.MonkeyPatch, words: list[str], body: dict[str, Any]) -> None:
    answer = {"name": "one", "endpoint": "eth1", "index": 1, "seconds": 0.01}
    asked, _, code = run(monkeypatch, answer, "attach", "one", *words)
    assert code == 0
    assert asked.calls == [("POST", "/v1/partitions/one/endpoints", body)]


@pytest.mark.parametrize("words", [[], ["--nic", "eth1", "--disk", "vdb:1MiB"]])
def test_attach_takes_one_endpoint(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    asked, _, code = run(monkeypatch, {}, "attach", "one", *words)
    assert (asked.calls, code) == ([], 2)


def test_detach(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"name": "one", "endpoint": "eth0", "index": 0, "seconds": 0.01}
    asked, text, code = run(monkeypatch, answer, "detach", "one", "eth0")
    assert code == 0
    assert asked.calls == [("DELETE", "/v1/partitions/one/endpoints/eth0", None)]
    assert "eth0" in text
