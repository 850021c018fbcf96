"""Banned calls and direct looks at shared memory, by the table in rules.py (rules.md 5, 7, 15, 28, 37)."""

import re
from collections import Counter

import pytest

from tests.style.rules import ROOT, RULES, Rule
from tests.style.sources import code, matching


def places(rule: Rule) -> Counter[str]:
    return Counter({str(path): len(rule.pattern.findall(code(path))) for path in matching(rule.files)})


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rule(rule: Rule) -> None:
    """Where a place is new it needs a reason in rules.py; where one is gone the list there must become shorter."""
    allowed = {path: count for path, (count, _) in rule.allowed.items()}
    found = {path: count for path, count in places(rule).items() if count and allowed.get(path, 0) is not None}
    exact = {path: count for path, count in allowed.items() if count is not None}
    assert found == exact, rule.why


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rule_sees_its_example(rule: Rule) -> None:
    assert rule.pattern.search(rule.example)
    assert list(matching(rule.files)), "the rule looks at no file"


def atomic_fields() -> dict[str, set[str]]:
    """struct -> its _Atomic fields, as abi.h and what it includes declare them."""
    text = "\n".join(code(path) for path in matching(["pyx/abi*.h"]))
    structs = re.finditer(r"^struct (\w+) \{(.*?)^\};", text, flags=re.S | re.M)
    return {found[1]: set(re.findall(r"_Atomic \w+ (\w+)", found[2])) for found in structs}


def declared_fields() -> dict[str, set[str]]:
    """struct -> the fields that abi.pxd declares for Cython."""
    text = (ROOT / "pyx/abi.pxd").read_text()
    structs = re.finditer(r"^    struct (\w+).*?:\n((?:        .*\n)+)", text, flags=re.M)
    return {found[1]: set(re.findall(r"(\w+)(?:\[\w+\])?$", found[2], flags=re.M)) - {"pass"} for found in structs}


def test_atomic_fields_are_unknown_to_cython() -> None:
    """What is not declared cannot be touched: Cython code reaches atomics through the headers alone."""
    atomic, declared = atomic_fields(), declared_fields()
    assert {"tail", "head"} <= atomic["pv_ring"] and {"word", "sleeping"} <= atomic["pv_doorbell"]
    assert "generation" in atomic["pv_translation"] and "partition" in atomic["pv_statistics_row"]
    assert declared["pv_request"] >= {"id", "gpa", "length"}
    assert declared["pv_ring"] == declared["pv_doorbell"] == set()
    touchable = {struct: atomic[struct] & declared.get(struct, set()) for struct in atomic}
    assert not {struct: fields for struct, fields in touchable.items() if fields}
