"""Notes of a hostd for the next one: what they say is what was so."""

from __future__ import annotations

import json
from pathlib import Path

from hostd.exports import Export
from hostd.manifest import Manifest, complete
from hostd.notes import of_record, plain, to_record
from hostd.records import Record

MANIFEST = {
    "version": 1,
    "devices": [
        {"name": "nic0", "kind": "nic", "wires": [{"name": "tapped", "kind": "pcap", "file": "/tmp/tapped.pcap"}]},
        {"name": "disk0", "kind": "disk", "class": "shared"},
    ],
    "partitions": [
        {"name": "python", "program": ["module:main"], "memory": "2MiB", "trap_memory": True,
         "disks": [{"name": "vda", "size": "1MiB", "limits": {"bytes": {"rate": "1MiB"}}}],
         "nics": [{"name": "eth0", "queues": 2, "path": "direct"}]},
        {"name": "plain", "program": ["/bin/true"], "memory": "2MiB", "export_nbd": False,
         "nics": [{"name": "eth0", "addresses": ["10.0.0.1/24"], "expose": {"addresses": ["10.0.0.2/24"]}}]},
    ],
}  # fmt: skip


def test_a_manifest_comes_back() -> None:
    manifest = Manifest.model_validate(MANIFEST)
    document = json.loads(json.dumps({**plain(manifest), "version": manifest.version}))
    assert Manifest.model_validate(document) == manifest


def test_records_come_back() -> None:
    manifest = Manifest.model_validate(MANIFEST)
    for spec in manifest.partitions:
        record = Record(
            spec.name, "guest", number=7, state="running", process=3, pid=4, start_ticks=5, plan={"endpoints": []},
            spec=complete(spec, manifest.devices), queues=[1, 2], served={9: [1], 10: [2]}, hot={10}, attached=True,
            export=Export(Path("/tmp/a.nbd"), 1, 2), leaving="vdb",
        )  # fmt: skip
        assert to_record(json.loads(json.dumps(of_record(record)))) == record
    record = Record("io-a", "io", number=8, spec={"epoch": 1, "last": 2}, exit_status={"signalled": 9})
    assert to_record(json.loads(json.dumps(of_record(record)))) == record
