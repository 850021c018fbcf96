"""What several tests of this folder start with."""

from collections.abc import Iterator

import pytest

from tests.framework.switch import Switch, running


@pytest.fixture
def switch() -> Iterator[Switch]:
    """The switch of a NIC device in this process, without cables."""
    with running() as one:
        yield one
