"""hostctl bench spawn: from the API request to the first line of a guest's main."""

import click

from tools.bench.host import bench_host
from tools.measure.command import Run, benchmark
from tools.measure.turns import Case

SECONDS = 10.0


@benchmark(seconds=SECONDS)
@click.option("--memory", type=click.IntRange(1, 512), default=64, show_default=True, help="MiB of partition memory.")
def command(run: Run, memory: int) -> None:
    """Measure `spawn`: seconds from the API request to the first line of the guest's main.

    The guest has its memory allocated, a disk, a NIC, and the whole sandbox. `removal`: until a killed guest and all
    that it had are gone.
    """
    parameters = {"memory": memory}
    with bench_host() as host:

        def spawn(_seconds: float) -> float:
            answer = host.spawn(
                "guest", "partitions.load:idle", disks=[{"name": "vda", "size": 1 << 20}], nics=[{"name": "eth0"}],
                memory=memory << 20,
            )  # fmt: skip
            return answer["seconds"]

        def remove(_seconds: float) -> float:
            begin = host.clock()
            host.remove("guest")
            return host.clock() - begin

        run.describe(**host.describe(), verified="the guest's own message from its first line")
        run.in_turn([Case("spawn", "seconds", spawn, parameters), Case("removal", "seconds", remove, parameters)])
