"""hostctl validate: all errors of a manifest at once."""

import json
import sys
from collections.abc import Iterable

import click

from hostd.errors import EXIT_OK, KINDS
from tools import options, output


@options.verb()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of manifests instead, for editors.")
def command(session: options.Session, files: tuple[str, ...], schema: bool) -> int:
    """Check manifests, - being stdin, and show every error with its line and column. Needs no running host.

    Exit code 3 where there are errors. With --json the list of all problems, empty where there are none.
    """
    from hostd import manifest_source
    from hostd.manifest import Manifest
    from hostd.manifest_problems import ManifestError

    if schema:
        print(json.dumps(Manifest.model_json_schema(), indent=2))
        return EXIT_OK
    if not files:
        raise click.UsageError("name a manifest to check, or --schema")
    problems = []
    for file in files:
        try:
            if file == "-":
                manifest_source.loads(sys.stdin.read(), "<stdin>")
            else:
                manifest_source.load(file)
        except ManifestError as error:
            problems += error.problems
    rows = [problem.document() for problem in problems]

    def text() -> Iterable[str]:
        for problem in problems:
            output.message(problem.text())
        yield f"{len(problems)} error{'s' if len(problems) > 1 else ''}" if problems else f"{', '.join(files)}: valid"

    session.emit(rows, text, rows=rows)
    return KINDS["invalid"].exit if problems else EXIT_OK
