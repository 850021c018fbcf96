"""hostctl doctor: what this machine allows."""

from collections import Counter
from collections.abc import Iterable

from hostd.errors import EXIT_FAILURE, EXIT_OK
from tools import options, output


@options.verb()
def command(session: options.Session) -> int:
    """Check whether this machine can run a host, and say how to cure what it lacks. Needs no running host.

    Exit code 1 where a check fails; a warning costs speed or isolation, not function.
    """
    from hostd import doctor

    checks = doctor.run(session.paths)
    counts = Counter(check.result for check in checks)

    def text() -> Iterable[str]:
        for check in checks:
            yield f"{output.result(check.result)}  {check.name}: {check.detail}"
            if check.cure:
                yield f"      cure: {check.cure}"
        yield f"{counts['PASS']} passed, {counts['WARN']} warnings, {counts['FAIL']} failed"

    rows = [check.document() for check in checks]
    session.emit({"checks": rows}, text, rows=rows)
    return EXIT_FAILURE if counts["FAIL"] else EXIT_OK
