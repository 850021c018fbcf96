"""The volume's metadata after power cuts and faults of the medium (rules.md test 32; volume_journal.h says why).

`tests/ring/volume_crash.c` works at random on a small volume, records every write and flush, and looks at images as a
cut may leave them: all prefixes of the log, and reorderings between flushes by whole writes and by sectors of 512
bytes. Each image is opened, checked, and every sector of every disk compared with a model.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.framework.build import HEADERS, build_c, weakened

STEPS = 300
PER_ENTRY = 5  # images at each entry of the log
CUTS, CUTS_LONG = 2_000, 100_000
FAULT_SEEDS = 6  # the sixth one: a write that fails in the middle, and then its disk shrinks
MUTANT_SEEDS = 12

FLAGS = ["-O1", "-Wno-error"]  # many programs: compiled quickly; with its text weakened, gcc finds fault with much
SANITIZED = [*FLAGS, "-fsanitize=address,undefined", "-fno-sanitize-recover"]

#: a format with small numbers, so that a small volume has trees of several pages at each level, records of several
#: descriptors, many pages of counts, and transactions that end where the largest record does
SMALL = {
    "volume_layout.h": [
        ("#define PV_VOLUME_POINTERS 508u", "#define PV_VOLUME_POINTERS 12u"),
        ("#define PV_VOLUME_COUNTS 1016u", "#define PV_VOLUME_COUNTS 40u"),
        ("#define PV_VOLUME_ENTRIES 252u", "#define PV_VOLUME_ENTRIES 5u"),
    ],
    "volume.h": [
        ("#define PV_VOLUME_DIRTY_MOST 6144u", "#define PV_VOLUME_DIRTY_MOST 40u"),
        ("#define PV_VOLUME_DIRTY_STEP 1600u", "#define PV_VOLUME_DIRTY_STEP 16u"),
    ],
}

#: name -> (header, text, its weakened form): the cuts must see each
MUTANTS = {
    "data not flushed before its pointers": (
        "volume_journal.h",
        "if ((result = pv_volume_flush(&v->io))) {\n        if (v->dirty_count)",
        "if ((result = 0)) {\n        if (v->dirty_count)",
    ),
    "record not flushed": (
        "volume_journal.h",
        "+ v->journal_next)) || (result = pv_volume_flush(&v->io)))",
        "+ v->journal_next)))",
    ),
    "checksum of an image not verified": (
        "volume_journal.h",
        "entry->crc != pv_volume_page_crc(&found[descriptors + i]) || ",
        "",
    ),
    "record of an earlier turn taken": ("volume_journal.h", "|| found[i].header.sequence != v->sequence\n", "\n"),
    "pages not flushed before the superblock": (
        "volume_journal.h",
        "    if (!result)\n        result = pv_volume_flush(&v->io);\n    if (result) {",
        "    if (result) {",
    ),
    "journal begins anew, the superblock does not say so": (
        "volume_journal.h",
        "    v->super.journal_sequence = v->sequence;\n",
        "",
    ),
    "freed block used at once": ("volume_space.h", "    v->held[block / 64] |= 1ull << block % 64;\n", ""),
    "block changed in place that another disk has just left": (
        "volume_space.h",
        " && !(v->held_count && pv_volume_is_held(v, block));",
        ";",
    ),
    "blocks changed in place below a page that another disk has just left": (
        "volume_tree.h",
        "        if (v->states[number] & PV_VOLUME_HELD)\n            return EAGAIN;\n",
        "",
    ),
    "shared page changed in place": ("volume_tree.h", "if (pv_volume_page_count(v, number) == 1) {", "if (true) {"),
    "source of a snapshot goes on in place": (
        "volume_table.h",
        "        memset(disk->own, 0, disk->set_count);",
        "        {}",
    ),
    "new block not filled": ("volume_tree.h", "    if (!whole) {", "    if (!whole && old) {"),
    "copy without the old data": (
        "volume_tree.h",
        "        if (old) {\n            fill = v->block;",
        "        if (old) {\n            fill = v->zeroes;",
    ),
    "copied page retains nothing": (
        "volume_tree.h",
        "result = level ? pv_volume_retain_page(v, old->pointer[i]) : pv_volume_retain_block(v, old->pointer[i]);",
        "result = 0;",
    ),
}


def run(program: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program), *map(str, words)], capture_output=True, text=True, timeout=600)


def test_cuts(build_dir: Path, long: bool) -> None:
    program = build_c(["ring/volume_crash.c"], FLAGS, into=build_dir)
    wanted, images, checkpoints, seed = CUTS_LONG if long else CUTS, 0, 0, 0
    while images < wanted or seed < 4:
        seed += 1
        done = run(program, "cuts", seed, STEPS, PER_ENTRY)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
        words = done.stdout.split()
        images += int(words[0])
        checkpoints += int(words[6])
    assert images >= wanted and checkpoints > 0
    print(f"{images} images, {checkpoints} checkpoints, {seed} seeds")


def small_format(build_dir: Path) -> Path:
    """The headers with the numbers of SMALL."""
    first = weakened(build_dir, "volume_layout.h", SMALL["volume_layout.h"])
    second = weakened(build_dir, "volume.h", SMALL["volume.h"])
    shutil.copy(second / "volume.h", first)
    return first


@pytest.fixture(scope="module", params=[False, True], ids=["usual", "small"])
def sanitized(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program under sanitizers, with the usual numbers and with those of SMALL."""
    into = tmp_path_factory.mktemp("sanitized")
    headers = small_format(into) if request.param else HEADERS
    return build_c(["ring/volume_crash.c"], SANITIZED, into=into, headers=headers)


def test_cuts_under_sanitizers(sanitized: Path, long: bool) -> None:
    for seed in range(1000, 1100 if long else 1002):
        done = run(sanitized, "cuts", seed, STEPS, 2)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_faults(sanitized: Path, long: bool) -> None:
    """EIO, ENOSPC, a short and an interrupted call at calls in turn: the errno arrives, and nothing is half done."""
    for seed in range(FAULT_SEEDS * (10 if long else 1)):
        done = run(sanitized, "faults", seed, 60, 1)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        assert int(done.stdout.split()[0]) > 50


@pytest.mark.parametrize("name", MUTANTS)
def test_planted_defect_is_seen(name: str, build_dir: Path) -> None:
    header, old, new = MUTANTS[name]
    program = build_c(["ring/volume_crash.c"], FLAGS, into=build_dir, headers=weakened(build_dir, header, [(old, new)]))
    for seed in range(1, MUTANT_SEEDS + 1):
        done = run(program, "cuts", seed, STEPS, PER_ENTRY)
        if done.returncode:
            return
    pytest.fail(f"{name}: not seen in {MUTANT_SEEDS} runs")
