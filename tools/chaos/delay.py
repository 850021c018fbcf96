"""hostctl chaos delay: a role loses time in one stage of every request."""

from collections.abc import Iterable

import click

from tools import options


@options.verb()
@click.argument("role")
@click.argument("stage")
@click.argument("seconds", type=options.DURATION)
def command(session: options.Session, role: str, stage: str, seconds: float) -> None:
    """Make ROLE lose time in one STAGE of every request, until it is set to 0 again.

    ROLE is a process of the data plane: monitor, io-a or a device. The stage histograms of the metrics
    must show the delay in that stage and nowhere else:

    \b
        hostctl chaos delay disk0 device 5ms
        hostctl chaos delay disk0 device 0
    """
    document = session.client().post("/v1/chaos", {"role": role, "stage": stage, "seconds": seconds})

    def text() -> Iterable[str]:
        if document["seconds"]:
            yield f"{role} loses {document['seconds'] * 1e3:g} ms in the stage {stage} of each request"
        else:
            yield f"{role} loses nothing in the stage {stage} any more"

    session.emit(document, text)
