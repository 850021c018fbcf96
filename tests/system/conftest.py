"""Hosts for the tests of this folder: one per module, cleared of guests after each test."""

from collections.abc import Iterator

import pytest

from tests.framework.host import Host, running


@pytest.fixture(scope="module")
def module_host() -> Iterator[Host]:
    with running() as host:
        yield host


@pytest.fixture
def host(module_host: Host) -> Iterator[Host]:
    """A host without guests; what the test leaves in it is removed."""
    try:
        yield module_host
    finally:
        module_host.remove_guests()
