"""pool.h: runs of pages never overlap, lie inside the pool, and are found wherever there is one."""

import random
import subprocess
from pathlib import Path

import pytest

from tests.framework.build import build_c, weakened

#: name -> (text, its weakened form): each must be seen
MUTANTS = {
    "runs over the end": ("if (at + (count - run) > pool->pages) {", "if (at == pool->pages) {"),
    "pages before the next one forgotten": ("looked < pool->pages + count", "looked < pool->pages - pool->next"),
    "larger than the pool": ("if (count > pool->pages)\n        return false;", ""),
    "not marked": ("pv_pool_mark(pool, *first, count, true);", "{}"),
    "never given back": ("pv_pool_mark(pool, first, count, false);", "pv_pool_mark(pool, first, count, true);"),
    "used pages in a run": ("? 0 : run + 1", "? run : run + 1"),
    "one word only": ("pool->used[at / 64]", "pool->used[0]"),
}


def is_kept(program: Path, pages: int, seed: int, steps: int = 2000) -> bool:
    """Takes and gives runs at random and keeps account of each page; True where every answer was right."""
    draw = random.Random(seed)
    used = [False] * pages
    taken: list[tuple[int, int]] = []
    process = subprocess.Popen([program, str(pages)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        for _ in range(steps):
            if taken and draw.random() < 0.45:
                first, count = taken.pop(draw.randrange(len(taken)))
                process.stdin.write(f"give {first} {count}\n")
                used[first:first + count] = [False] * count
                continue
            count = draw.choice((1, 1, 2, 3, draw.randint(1, pages), pages + 1))
            process.stdin.write(f"take {count}\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            first = int(answer) if answer else -2
            if first == -1:
                free = "".join("x" if page else "." for page in used)
                if "." * count in free:
                    break
                continue
            if first < 0 or first + count > pages or any(used[first:first + count]):
                break
            used[first:first + count] = [True] * count
            taken.append((first, count))
        else:
            process.stdin.close()
            return process.wait() == 0
    except BrokenPipeError:  # a sanitizer ended it
        pass
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    return False


POOLS = [(pages, seed) for pages in (1, 7, 64, 65, 150) for seed in range(3)]


def build(into: Path, headers: Path | None = None) -> Path:
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover"]
    return build_c(["ring/pool.c"], flags, into=into, **({"headers": headers} if headers else {}))


@pytest.mark.parametrize(("pages", "seed"), POOLS)
def test_every_page_is_accounted_for(program: Path, pages: int, seed: int) -> None:
    assert is_kept(program, pages, seed)


@pytest.fixture(scope="module")
def program(build_dir: Path) -> Path:
    return build(build_dir)


def test_whole_pool_is_one_run(program: Path) -> None:
    done = subprocess.run([program, "8"], input="take 8 take 1 give 0 8 take 9 take 8 ", capture_output=True, text=True)
    assert done.stdout.split() == ["0", "-1", "-1", "0"]


@pytest.mark.parametrize("name", MUTANTS)
def test_weakened_pool_is_seen(build_dir: Path, name: str) -> None:
    broken = build(build_dir, weakened(build_dir, "pool.h", [MUTANTS[name]]))
    assert not all(is_kept(broken, pages, seed) for pages, seed in POOLS)
