"""`tools/run`, as a newcomer calls it: a real archive through virtual disk and network, and nothing left afterwards."""

import json
import os
import subprocess
from pathlib import Path

from tools.bench.host import bench_host

ROOT = Path(__file__).resolve().parents[2]
ARCHIVE_LEAST = 20_000_000  # bytes
KEYS = {"checksums_equal", "bytes", "partitions", "host_copied_bytes", "refused", "metrics_url", "seconds"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "tools" / "run", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180
    )


def test_document(runtime_dir: Path) -> None:
    outcome = run("--once", "--json", "--runtime-dir", str(runtime_dir / "run"))
    assert outcome.returncode == 0, outcome.stderr
    document = json.loads(outcome.stdout)
    assert document.keys() >= KEYS
    assert document["checksums_equal"] is True and len(document["sha256"]) == 1
    assert document["bytes"] >= ARCHIVE_LEAST
    assert document["host_copied_bytes"] == 0 and document["refused"] == 0
    assert document["checks_failed"] == []
    rows = {(row["partition"], row["endpoint"]): row for row in document["partitions"]}
    assert rows.keys() == {("store", "vda"), ("sender", "vda"), ("sender", "eth0"), ("receiver", "eth0")}
    # Written and read back by one, read by the other, and carried in frames with headers and greetings.
    assert rows["store", "vda"]["bytes"] >= 2 * document["bytes"]
    assert document["bytes"] <= rows["sender", "vda"]["bytes"] < document["bytes"] + 8192
    assert rows["receiver", "eth0"]["bytes"] > document["bytes"]
    for row in rows.values():
        for stages in row["stages"].values():
            assert {"validation", "post", "device", "completion", "total"} <= stages.keys()
    assert not (runtime_dir / "run" / "state" / "disks" / "run-library.img").exists()
    assert not [path for path in (runtime_dir / "run").iterdir() if path.name != "state"]


def test_tables(runtime_dir: Path) -> None:
    """Without a terminal nothing stays up, also without --once."""
    outcome = run("--runtime-dir", str(runtime_dir / "run"))
    assert outcome.returncode == 0, outcome.stderr
    assert "equal at every end" in outcome.stdout and "as granted" in outcome.stdout


def test_a_second_host_in_one_folder_is_refused_and_unharmed() -> None:
    with bench_host() as host:
        outcome = run("--once", "--runtime-dir", str(host.paths.runtime))
        assert outcome.returncode == 5, outcome.stderr
        assert "already" in outcome.stderr
        assert os.path.exists(host.paths.api_socket) and host.status()["checks"]
