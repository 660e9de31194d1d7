"""Stored runs judged again, by other criteria."""

from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.text import Text

from tshrag_common import requests as r
from tshrag_common.client import Client
from tshrag_common.errors import Refused
from tshrag_common.judge_requests import JudgedStored, JudgeStored
from tshrag_common.profile import Profile
from tshrag_common.reading import read_profile
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import ask, run_named
from tshrag_controller.cli.context import Connection
from tshrag_controller.cli.progress import Progress, progress
from tshrag_controller.cli.verdicts import verdict_rows
from tshrag_controller.reports.text import plural

MOST_RUNS = 2000
_PAGE = 200
_NEWEST = "last:"


class Rejudged(msgspec.Struct, frozen=True):
    """All runs that were judged again."""

    runs: tuple[JudgedStored, ...]


@options.command(
    examples=(
        "tshrag judge stricter.yaml                   # the last 20 runs of its name",
        "tshrag judge stricter.yaml --runs last:500",
        "tshrag judge stricter.yaml --runs run-01m8… --runs run-01m9… -o json",
    )
)
@click.argument("profile", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--runs",
    "wanted",
    multiple=True,
    default=("last:20",),
    show_default=True,
    metavar="RUN",
    help="A run, or last:N: so many of the profile's name; may be repeated.",
)
@click.option("--any-name", is_flag=True, help="With last:N: runs of any name.")
@click.option("--baseline", metavar="RUN", default="", help="Compare all of them with this run.")
@options.readable
@options.in_lab
def judge(
    connection: Connection,
    output: str,
    profile: Path,
    wanted: tuple[str, ...],
    any_name: bool,
    baseline: str,
) -> int:
    """Hold the criteria of PROFILE against the samples of runs that have ended.

    Nothing of the runs changes: this shows what they would be. The exit code is 1 where one of
    them would not pass.
    """
    document = read_profile(profile.read_bytes(), profile.name)
    if not document.criteria:
        raise Refused(profile.name, "has no criteria", "add some to judge by", code="no_criteria")
    name = "" if any_name else document.name
    with progress(output) as shown:
        found = ask(connection, lambda lab: _judged(lab, document, wanted, name, baseline, shown))
    names = [each.run for each in found.runs]
    render.emit(output, found, lambda out: _print(out, found), names)
    return int(any(each.would_be != "passed" for each in found.runs))


async def _judged(
    lab: Client,
    profile: Profile,
    wanted: Sequence[str],
    name: str,
    baseline: str,
    shown: Progress,
) -> Rejudged:
    criteria = msgspec.Raw(msgspec.json.encode(profile.criteria))
    named = [run for text in wanted for run in await runs_named(lab, text, name)]
    runs = list(dict.fromkeys(named))
    found: list[JudgedStored] = []
    for number, run in enumerate(runs, 1):
        shown.say(f"judging {number} of {len(runs)}")
        request = JudgeStored(run=run, criteria=criteria, baseline=baseline)
        found.append(await lab.judge(request))
    return Rejudged(tuple(found))


async def runs_named(lab: Client, text: str, name: str = "") -> list[str]:
    """Return the runs that `text` names: one, or with ``last:N`` the newest that have ended.

    Raises:
        Refused: N is no number from 1 to 2000, or there is no such run.

    """
    if not text.startswith(_NEWEST):
        return [await run_named(lab, text)]
    digits = text.removeprefix(_NEWEST)
    if not digits.isascii() or not digits.isdigit() or not 1 <= int(digits) <= MOST_RUNS:
        raise Refused(
            "runs", f"{text!r} names no runs", f"last:1 to last:{MOST_RUNS}", code="range"
        )
    most, found = int(digits), list[str]()
    offset, more = 0, True
    while more and len(found) < most:
        page = await lab.runs(r.ListRuns(name=name, limit=_PAGE, offset=offset))
        offset, more = offset + len(page.runs), page.more and bool(page.runs)
        found += [run.id for run in page.runs if run.ended_at and name in ("", run.name)]
    if not found:
        what = f"none of name {name!r} has ended" if name else "none has ended"
        raise Refused("runs", what, "see 'tshrag list'", code="unknown_run")
    return found[:most]


def _print(out: Console, found: Rejudged) -> None:
    rows = [
        (each.run, render.state(each.state), _turned(each), each.reason or "-")
        for each in found.runs
    ]
    out.print(render.table(("run", "was", "would be", "why"), rows))
    changed = sum(each.state != each.would_be for each in found.runs)
    out.print(f"{plural(len(found.runs), 'run')} judged, {changed} would end otherwise")
    if len(found.runs) == 1:
        heads = ("criterion", "verdict", "value", "bound", "margin", "samples", "why")
        each = verdict_rows(found.runs[0].evidence)
        out.print(render.table(heads, each, ("value", "bound", "margin", "samples")))


def _turned(each: JudgedStored) -> Text:
    word = render.state(each.would_be)
    if each.state != each.would_be:
        word.append(" (changed)", "yellow")
    return word
