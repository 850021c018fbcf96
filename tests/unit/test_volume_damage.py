"""Planted damage of a volume: a check names it, a repair mends it, and nothing else is lost (volume_check.h)."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.framework.build import build_c, weakened

FLAGS = ["-O1", "-Wno-error", "-fsanitize=address,undefined", "-fno-sanitize-recover"]


@dataclass(frozen=True)
class Damage:
    """`found`: kinds of findings that the check has to have, and no others. `kept`: disks whose data is as it was."""

    found: set[str]
    kept: str


DAMAGE = {
    "none": Damage(set(), "abc"),
    "lost-block": Damage({"lost"}, "abc"),
    "lost-page": Damage({"lost"}, "abc"),
    "shared-block": Damage({"lost", "shared"}, "bc"),
    "shared-page": Damage({"lost", "shared"}, "bc"),
    "range-block": Damage({"range", "count", "lost"}, "bc"),
    "beyond-size": Damage({"range", "count", "lost"}, "bc"),
    "same-name": Damage({"row"}, "abc"),
    "range-page": Damage({"range", "count", "lost"}, "bc"),
    "count-high": Damage({"count"}, "abc"),
    "count-free": Damage({"count"}, "abc"),
    "charged": Damage({"count"}, "abc"),
    "level": Damage({"page", "count", "lost"}, "bc"),
    "row-state": Damage({"row", "lost"}, "bc"),
    "row-size": Damage({"row"}, "abc"),
    "torn-set": Damage({"page", "count", "lost"}, "bc"),
    "torn-root": Damage({"page", "count", "lost"}, "bc"),
    "torn-block-counts": Damage({"page", "count"}, "abc"),
    "torn-page-counts": Damage({"page", "count", "shared"}, "abc"),
    "torn-table": Damage({"page", "lost"}, ""),
    "torn-superblock": Damage({"superblock"}, "abc"),
    "torn-superblock-last": Damage({"superblock"}, "abc"),
    "torn-journal": Damage({"journal"}, "abc"),
    "torn-journal-descriptor": Damage({"journal"}, "abc"),
    "misplaced": Damage({"page", "count", "lost"}, "bc"),
}

#: name -> (header, text, its weakened form, damage that is then dealt with wrongly)
MUTANTS = {
    "checksum of a page not verified": (
        "volume_pages.h", "if (page->header.crc != pv_volume_page_crc(page))", "if (false)", "torn-set"),
    "place of a page not verified": (
        "volume_pages.h", "if (page->header.number != number)", "if (false)", "misplaced"),
    "range of pointers not verified": (
        "volume_check.h", "} else if (*each && pv_volume_is_block(v, *each) && first + i < end) {",
        "} else if (*each && *each < 999) {",
        "range-block"),
    "lost blocks not looked for": (
        "volume_check.h", "v->super.block_counts_first, c->blocks, 0, v->super.blocks + 1);",
        "v->super.block_counts_first, c->blocks, 0, v->super.blocks);", "lost-block"),
    "counts not mended": (
        "volume_check.h", "v->pages[number]->count[at % PV_VOLUME_COUNTS] = right;", "", "count-high"),
    "later records not looked for": (
        "volume_journal.h", "page->header.sequence > v->sequence && page", "false && page", "torn-journal"),
    "sequences of lost records used again": (
        "volume_check.h", "v->sequence = v->journal_lost + 1;", "", "torn-journal-descriptor"),
    "one superblock written at a checkpoint": (
        "volume_journal.h", "        v->super.sequence++;\n        result = pv_volume_write_copy(v);\n", "",
        "torn-superblock-last"),
}  # fmt: skip


def is_mended(program: Path, name: str) -> bool:
    done = subprocess.run([str(program), name], capture_output=True, text=True, timeout=60)
    lines = [line.split() for line in done.stdout.splitlines()]
    kept = "".join(words[1] for words in lines if words[0] == "kept")
    left = [words[1] for words in lines if words[0] == "left"]
    found = {words[0] for words in lines if words[0] not in ("kept", "left")}
    return done.returncode == 0 and left == ["0"] and (found, kept) == (DAMAGE[name].found, DAMAGE[name].kept)


@pytest.fixture(scope="module")
def program(build_dir: Path) -> Path:
    return build_c(["ring/volume_damage.c"], FLAGS, into=build_dir)


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_and_mended(name: str, program: Path) -> None:
    assert is_mended(program, name)


@pytest.mark.parametrize("name", MUTANTS)
def test_planted_defect_is_seen(name: str, build_dir: Path) -> None:
    header, old, new, damage = MUTANTS[name]
    headers = weakened(build_dir, header, [(old, new)])
    assert not is_mended(build_c(["ring/volume_damage.c"], FLAGS, into=build_dir, headers=headers), damage)
