"""Options and fixtures that all tests share. See README.md."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.framework import guardian

TESTS = Path(__file__).parent
WHOLE_HOSTS = ("system", "bench")  # folders whose tests start hosts, which use all processors
# Files of them that judge no time: their hosts may run beside other tests.
PATIENT = {
    "bench_host", "capabilities", "clear", "commands", "compare", "connections", "containment", "control_deaths",
    "direct", "disk_growth", "esp", "exact_counts", "faults_interrupts", "faults_nic", "foreign", "guest_death",
    "hardware", "hardware_buses", "histogram", "host", "hostd_kills", "hostile_indices", "hostile_memory", "hosts",
    "hotplug", "keeper", "leaks", "load", "main_job", "malformed", "measure", "nbd", "nbd_abuse", "nbd_volume",
    "offload_linux", "offloads", "pace", "path_data", "probes", "program_disk", "queues", "redirect_disk",
    "redirect_nic", "refusals", "removal", "report", "ring", "sandbox", "sharing", "shutdown", "spawn",
    "system_calls", "tcp", "ultravisor_crash", "ultravisor_keys", "validate", "vdisk", "vectors", "virtual", "vlans",
    "volume", "wires", "withdrawal", "without_ring", "zombie",
}  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="the full figures of the long tests: hours")
    parser.addoption("--unguarded", action="store_true", help="no parent process that checks what the run left behind")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    # A shell without job control has what it starts in the background ignore it, and so would all that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    worker = hasattr(config, "workerinput")  # of pytest-xdist: its parent is guarded
    if not worker and not config.option.unguarded and not config.option.help and not config.option.version:
        guardian.guard()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        whole = any(TESTS / folder in item.path.parents for folder in WHOLE_HOSTS)
        if whole and item.path.stem.removeprefix("test_") not in PATIENT:
            item.add_marker(pytest.mark.alone)
    if config.option.long:
        return
    skip = pytest.mark.skip(reason="full figures only with --long")
    for item in items:
        if "long" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the full figures are asked for."""
    return request.config.option.long


@pytest.fixture(scope="session")
def build_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the C programs of this session are compiled to."""
    return tmp_path_factory.mktemp("programs")


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    """A runtime folder of the test's own; its path is short, because socket paths end at 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix=f"partvisor-test-{os.getpid()}-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
