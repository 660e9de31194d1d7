"""Documents, without a lab: validate, and the schemas for editors."""

import sys
from pathlib import Path

import click
import msgspec

from tshrag_common.errors import LabError, Problem, Refused
from tshrag_common.validation import manifest_schema, profile_schema, validate_document
from tshrag_controller.cli import options, render
from tshrag_controller.reports.text import clean, plural

_MOST_BYTES = 1 << 20  # its reader says what is too much


class Validated(msgspec.Struct, frozen=True, kw_only=True):
    """All problems of all files."""

    files: int
    problems: tuple[Problem, ...]


@options.command(
    examples=(
        "tshrag validate smoke.yaml",
        "tshrag validate profiles/*.toml loads/iperf/load.toml",
        "tshrag validate --json *.yaml | jq '.problems[].line'",
    )
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@options.readable
def validate(files: tuple[str, ...], output: str) -> None:
    """Name every problem of profiles and load manifests (load.toml), with file and line.

    Nothing is asked of a lab. Exit 0 when all is well, 2 otherwise.
    """
    problems: list[Problem] = []
    for name in files:
        try:
            problems += validate_document(read_file(name), name)
        except LabError as error:
            problems.append(Problem(code=error.code, where="", what=error.what, file=name))
    answer = Validated(files=len(files), problems=tuple(problems))
    if output == "json":
        render.emit(output, answer, lambda out: None, ())
    else:
        for problem in problems:
            click.echo(clean(str(problem)), err=True)
        if output == "table" and not problems:
            click.echo(f"{plural(len(files), 'file')}: no problems")
    sys.exit(2 if problems else 0)


@options.command(
    examples=(
        "tshrag schema profile > profile.schema.json",
        "tshrag schema load > load.schema.json",
    )
)
@click.argument("kind", type=click.Choice(("profile", "load")))
def schema(kind: str) -> None:
    """Print the JSON Schema of a profile or of a load's manifest, for editors and checks."""
    made = profile_schema() if kind == "profile" else manifest_schema()
    click.echo(msgspec.json.format(msgspec.json.encode(made), indent=2))


def read_file(name: str) -> bytes:
    """Return the bytes of a file that a person named."""
    try:
        with Path(name).open("rb") as file:
            return file.read(_MOST_BYTES)
    except OSError as error:
        why = (error.strerror or "not readable").lower()
        raise Refused(name, why, "name a file that is there", code="file") from None
