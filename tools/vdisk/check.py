"""hostctl vdisk check: find damage in a volume, and mend it."""

from collections.abc import Iterable

import click

from hostd.errors import EXIT_FAILURE, EXIT_OK
from tools import options
from tools.vdisk.medium import opened, volume_argument


@options.verb()
@volume_argument
@click.option("--repair", is_flag=True, help="Mend what is found.")
def command(session: options.Session, volume: str, repair: bool) -> int:
    """Follow every pointer of VOLUME and compare with its counts. Exit code 1 where damage is left.

    \b
        superblock  a copy is damaged                repair writes it anew
        journal     a damaged change, later ones     it and the later ones are given up: the volume is as before it, but
                    behind it                        for data that they have written in place
        page        a page cannot be read            counts are made anew; disks or parts of them that
                                                     it described are lost, and reads there give zeroes
        range       a pointer leads nowhere          it is taken away: that place reads as zeroes
        row         an impossible entry of the table it is freed, or its size corrected
        lost        nothing points to a used block   it is free again
        shared      more pointers than counted       counted right: the next write makes a copy
        count       another wrong count              counted right
    """
    with opened(session, volume, read_only=not repair, tolerant=True) as held:
        found = held.check(repair)
    left = found
    if repair and found:
        with opened(session, volume, read_only=True, tolerant=True) as held:
            left = held.check()
    document = {"volume": volume, "found": found, "repaired": repair, "left": left}

    def text() -> Iterable[str]:
        for finding in found:
            yield f"{finding['kind']}: {finding['text']}"
        yield f"{volume}: {len(found)} found" + (f", {len(found) - len(left)} mended" if repair else "")

    session.emit(document, text, rows=found)
    return EXIT_FAILURE if left else EXIT_OK
