"""hostctl down: end a host with everything in it."""

from collections.abc import Iterable

import click

from tools import daemon, options


@options.verb()
@click.option("--timeout", type=options.DURATION, default=daemon.STOP_SECONDS, help="How long to wait for the end.")
@click.option("--force", is_flag=True, help="Do not ask the daemon, for it may hang: kill it and end the rest.")
def command(session: options.Session, timeout: float, force: bool) -> None:
    """End all partitions, the daemon and the keeper, and wait until they are gone.

    Also ends what a killed daemon left running. Where nothing runs there is nothing to do, and that is no error.
    """
    ended = daemon.stop(session.paths, timeout, force)

    def text() -> Iterable[str]:
        names = [f"{name} (pid {pid})" for name, pid in ended.items() if pid is not None]
        yield f"ended: {', '.join(names)}" if names else f"nothing runs in {session.paths.runtime}"

    session.emit({"ended": ended}, text)
