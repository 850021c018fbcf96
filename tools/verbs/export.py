"""hostctl export: the running host as a manifest."""

from collections.abc import Iterable

from tools import options, output


@options.verb("yaml")
def command(session: options.Session) -> None:
    """Print the running host as a manifest that `hostctl up` and `hostctl apply` take."""
    document = session.client().get("/v1/export")

    def text() -> Iterable[str]:
        return output.tree(document)

    session.emit(document, text)
