"""What a policy lets an endpoint be that comes while its guest runs."""

from __future__ import annotations

import pytest

from hostd.errors import HostError
from hostd.hotplug import check_path
from hostd.manifest import Policy


def test_a_policy_binds_endpoints_that_come_later() -> None:
    policies = [Policy(paths=["redirect"]), Policy(name="other", paths=["direct"])]
    check_path(policies, "one.vdb", "redirect")
    with pytest.raises(HostError, match=r"one\.vdb: the policy allows the paths redirect, not direct") as refused:
        check_path(policies, "one.vdb", "direct")
    assert refused.value.code == "denied"
    for allowing in ([], [Policy()]):
        check_path(allowing, "one.vdb", "direct")
