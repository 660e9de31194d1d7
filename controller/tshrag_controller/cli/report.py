"""``tshrag report``: asks for all of a run, hands it to a renderer, writes what comes back."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Literal

import click

from tshrag_common import metric_requests as mr, requests as r
from tshrag_common.client import Client, is_final
from tshrag_common.errors import LabError, Refused
from tshrag_common.profile import digest
from tshrag_common.reading import read_profile
from tshrag_common.views import JobView
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import all_jobs, ask, run_named
from tshrag_controller.cli.context import Connection
from tshrag_controller.cli.progress import Progress, progress
from tshrag_controller.reports.gathered import BAD, HostView, LogTail, RunReport, judged_first
from tshrag_controller.reports.table import STATS
from tshrag_controller.reports.text import clean, plural

FORMATS: Mapping[str, str] = {
    "table": "table:to_text",
    "md": "markdown:to_markdown",
    "json": "document:to_json",
    "junit": "junit:to_junit",
    "html": "html:to_html",
}
STREAMS: tuple[Literal["stdout"], Literal["stderr"]] = ("stdout", "stderr")
TAIL_BYTES = 4 << 10
MOST_TAILS = 40
MOST_JOBS = 10_000
_ROOMS = "tshrag_controller.reports"


@options.command(
    examples=(
        "tshrag report last",
        "tshrag report last --format html --out run.html",
        "tshrag report $RUN --format junit --out junit.xml      # in CI",
        'tshrag report $RUN --format md >> "$GITHUB_STEP_SUMMARY"',
    )
)
@click.argument("run")
@click.option(
    "--format",
    "form",
    type=click.Choice(tuple(FORMATS)),
    default="table",
    show_default=True,
    help="How it is made.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write it there.")
@options.in_lab
def report(connection: Connection, run: str, form: str, out: Path | None) -> None:
    """Make the run report of RUN: verdict and evidence, jobs, timeline, metrics, output, versions.

    HTML is one file without scripts or links; the same run gives the same bytes.
    """
    with progress() as shown:
        gathered = ask(connection, lambda lab: gather(lab, run, shown))
    made = renderer(form)(gathered)
    if out is None:
        click.echo(made, nl=False)
        return
    try:
        out.write_text(made, encoding="utf-8")
    except OSError as error:
        why = (error.strerror or "not writable").lower()
        raise Refused(str(out), why, "name another file", code="file") from None
    render.note(f"written to {clean(str(out))}")


def renderer(form: str) -> Callable[[RunReport], str]:
    """Return the function that makes a report in format `form`."""
    room, _, name = FORMATS[form].partition(":")
    made: Callable[[RunReport], str] = getattr(import_module(f"{_ROOMS}.{room}"), name)
    return made


async def gather(lab: Client, name: str, shown: Progress) -> RunReport:
    """Ask for everything that a report of the run tells."""
    answer = await lab.run(await run_named(lab, name), profile=True)
    run = answer.run
    shown.say("reading jobs")
    jobs = await all_jobs(lab, run.id, MOST_JOBS)
    shown.say("reading metrics")
    metrics = await lab.metrics(mr.ListMetrics(run=run.id, stats=STATS))
    bad = [job for job in jobs if job.state in BAD and job.attempts]
    tails = [tail for job in bad[:MOST_TAILS] for tail in await _tails(lab, job, shown)]
    omitted = []
    if not is_final(run.state):
        omitted.append(f"the run has not ended: it is {run.state}")
    if len(bad) > MOST_TAILS:
        omitted.append(f"the output of {plural(len(bad) - MOST_TAILS, 'more job')}")
    return RunReport(
        run=run,
        jobs=tuple(jobs),
        series=judged_first(run.evidence, metrics.whole),
        tails=tuple(tails),
        hosts=await _hosts(lab, jobs),
        profile_digest=_digest(bytes(answer.profile)),
        version=(await lab.health()).version,
        omitted=tuple(omitted),
    )


async def _tails(lab: Client, job: JobView, shown: Progress) -> list[LogTail]:
    shown.say(f"reading output of {job.name}")
    tails: list[LogTail] = []
    for stream in STREAMS:
        asked = r.GetLogs(job=job.id, stream=stream, offset=-1, limit=TAIL_BYTES)
        try:
            answer = await lab.logs(asked)
        except LabError:  # what cannot be read any more is left out, not the whole report
            continue
        if answer.data:
            tails.append(
                LogTail(
                    job=job.id,
                    attempt=answer.attempt,
                    stream=stream,
                    total=answer.total,
                    data=answer.data,
                )
            )
    return tails


async def _hosts(lab: Client, jobs: list[JobView]) -> tuple[HostView, ...]:
    known = {each.facts.agent: each.facts for each in (await lab.agents()).agents}
    used = sorted({each.agent for job in jobs for each in job.attempts})
    return tuple(
        HostView(agent=name, version=facts.version, platform=f"{facts.os}/{facts.arch}")
        if (facts := next((f for key, f in known.items() if key == name), None))
        else HostView(agent=name)
        for name in used
    )


def _digest(profile: bytes) -> str:
    """Return the version of the profile, as it would be submitted again."""
    try:
        return digest(read_profile(profile, "profile.json"))
    except LabError:
        return ""
