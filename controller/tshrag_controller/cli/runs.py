"""Runs and jobs: status, list, cancel, why."""

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tshrag_common import requests as r, why_requests as wr
from tshrag_common.client import Client
from tshrag_common.errors import NotFound
from tshrag_common.ids import THE_LAB
from tshrag_common.views import AttemptView, JobView, RunView, Stopped
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import all_jobs, ask, thing_named
from tshrag_controller.cli.context import Connection
from tshrag_controller.cli.outlooks import free_of, print_outlook
from tshrag_controller.cli.plans import places_table
from tshrag_controller.cli.verdicts import print_verdict
from tshrag_controller.reports.notes import clock
from tshrag_controller.reports.text import clean, duration, plural, size

STATES = (
    "waiting", "running", "evaluating", "passed", "failed", "error", "timeout", "cancelled",
    "expired",
)  # fmt: skip
MOST_JOBS = 200


class _Why(r.WhyAnswer, frozen=True, kw_only=True, omit_defaults=True):
    """Why it waits, and how it looks."""

    outlook: wr.OutlookAnswer | None = None


class _Status(r.JobsAnswer, frozen=True, kw_only=True):
    """A run and its jobs, as one document."""

    run: RunView


@options.command(
    examples=(
        "tshrag status last            # the newest run",
        "tshrag status last:2          # its second job",
        "tshrag status run-01j9… --json",
    )
)
@click.argument("name", metavar="RUN|JOB")
@options.readable
@options.in_lab
def status(connection: Connection, output: str, name: str) -> None:
    """Show a RUN with its jobs, or a JOB with its attempts."""
    found = ask(connection, lambda lab: _found(lab, name))
    if isinstance(found, JobView):
        render.emit(output, found, lambda out: print_job(out, found), [found.id])
    else:
        ids = [job.id for job in found.jobs]
        render.emit(output, found, lambda out: print_run(out, found.run, found.jobs), ids)


async def _found(lab: Client, name: str) -> "JobView | _Status":
    thing = await thing_named(lab, name)
    if thing.startswith("job-"):
        return (await lab.jobs(r.ListJobs(id=thing))).jobs[0]
    run = (await lab.run(thing)).run
    jobs = await all_jobs(lab, run.id)
    return _Status(run=run, jobs=tuple(jobs))


def print_run(out: Console, run: RunView, jobs: tuple[JobView, ...]) -> None:
    """Print a run: what it is, its jobs, what its criteria said."""
    out.print(Text.assemble((clean(run.name), "bold"), "  ", run.id, "  ", render.run_state(run)))
    took = render.took(run.started_at, run.ended_at)
    who = f"by {clean(by_whom(run.by))}, priority {run.priority}"
    said = f"{who}, submitted {render.when(run.created_at)}"
    out.print(Text(said + (f", took {took}" if took else ""), "bright_black"))
    if run.reason:
        out.print(render.text(run.reason))
    out.print(render.run_counts(run))
    out.print()
    out.print(jobs_table(jobs[:MOST_JOBS]))
    if len(jobs) > MOST_JOBS:
        out.print(Text(f"… and {plural(len(jobs) - MOST_JOBS, 'more job')}", "bright_black"))
    if run.evidence:
        out.print()
        print_verdict(out, run)


def jobs_table(jobs: tuple[JobView, ...]) -> Table:
    """Return jobs, one a line, with what went wrong."""
    rows = [
        (
            str(job.serial),
            render.text(job.name, 48),
            render.job_state(job),
            place(job),
            Text(render.took(job.started_at, job.ended_at)),
            render.text(job.error.message if job.error else job.what, 72),
        )
        for job in jobs
    ]
    return render.table(("#", "job", "state", "place", "took", "what"), rows, ("#", "took"))


def place(job: JobView) -> Text:
    """Return where the newest attempt is, or was."""
    if not job.attempts:
        return Text("")
    newest = job.attempts[-1]
    again = f" ({newest.number}.)" if newest.number > 1 else ""
    return render.text((newest.dut or newest.agent) + again)


def print_job(out: Console, job: JobView) -> None:
    """Print a job with all its attempts."""
    out.print(Text.assemble((clean(job.name), "bold"), "  ", job.id, "  ", render.job_state(job)))
    rows: list[tuple[str, render.Cell]] = [("what", job.what), ("kind", job.kind)]
    if job.target:
        rows.append(("target", job.target))
    if job.after:
        rows.append(("after", ", ".join(map(str, job.after))))
    if job.held:
        rows.append(("on hold", job.held))
    if job.error:
        rows.append(("error", f"{job.error.code}: {job.error.message}"))
    out.print(render.facts(rows))
    for attempt in job.attempts:
        out.print()
        _print_attempt(out, attempt)


def _print_attempt(out: Console, attempt: AttemptView) -> None:
    head = Text.assemble(
        (f"attempt {attempt.number}", "bold"),
        f" on {clean(attempt.dut or attempt.agent)}  ",
        render.state(attempt.outcome or attempt.state),
    )
    out.print(head)
    out.print(render.facts([(name, value) for name, value in attempt_facts(attempt) if value]))


def attempt_facts(attempt: AttemptView) -> list[tuple[str, str]]:
    """Return what there is to say of an attempt; what is empty does not matter."""
    exit_code = "" if attempt.exit_code is None else str(attempt.exit_code)
    output = f"{size(attempt.stdout_bytes)} out, {size(attempt.stderr_bytes)} err"
    cut = f", {size(attempt.cut_bytes)} cut" if attempt.cut_bytes else ""
    return [
        ("host", attempt.agent),
        ("fence", str(attempt.fence)),
        ("started", render.when(attempt.started_at) if attempt.started_at else ""),
        ("took", render.took(attempt.started_at, attempt.ended_at)),
        ("exit", exit_code),
        ("signal", str(attempt.signal) if attempt.signal else ""),
        ("cpu", duration(attempt.cpu_us / 1e6) if attempt.cpu_us else ""),
        ("memory", size(attempt.max_rss_bytes) if attempt.max_rss_bytes else ""),
        ("output", output + cut if attempt.stdout_bytes or attempt.stderr_bytes else ""),
        ("error", f"{attempt.error.code}: {attempt.error.message}" if attempt.error else ""),
        ("stopped", ", ".join(attempt.stopped)),
        ("clock", clock(attempt.clock)),
        ("notices", "; ".join(attempt.notices)),
    ]


@options.command(
    "list",
    examples=(
        "tshrag list",
        "tshrag list --state failed --limit 5",
        "tshrag list --name smoke -o quiet",
        "tshrag list --label app_version_id=1.4",
    ),
)
@click.option("--state", type=click.Choice(STATES), help="Only runs in this state.")
@click.option("--name", default="", help="Only runs whose name holds this.")
@click.option("--label", "labels", multiple=True, type=options.Variable(), metavar="K=V",
              help="Only runs whose profile says so; may be repeated.")  # fmt: skip
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0, help="Leave out the newest so many.")
@options.readable
@options.in_lab
def list_runs(
    connection: Connection,
    output: str,
    state: str | None,
    name: str,
    labels: tuple[tuple[str, str], ...],
    limit: int,
    offset: int,
) -> None:
    """List runs, newest first."""
    asked = r.ListRuns(
        state=state or "", name=name, labels=dict(labels), limit=limit, offset=offset
    )
    answer = ask(connection, lambda lab: lab.runs(asked))
    render.emit(
        output, answer, lambda out: _print_runs(out, answer), [run.id for run in answer.runs]
    )
    if answer.more:
        render.note(f"there are more: tshrag list --offset {offset + len(answer.runs)}")


def by_whom(name: str) -> str:
    """Return who has submitted a run; what the lab does by itself is marked as that."""
    return "the lab itself" if name == THE_LAB else name


def _print_runs(out: Console, answer: r.RunsAnswer) -> None:
    if not answer.runs:
        out.print("no runs; submit one with 'tshrag submit PROFILE'")
        return
    rows = [
        (
            run.id,
            render.text(run.name, 40),
            render.run_state(run),
            render.run_counts(run),
            Text(render.when(run.created_at)),
            Text(render.took(run.started_at, run.ended_at)),
            render.text(by_whom(run.by), 20),
        )
        for run in answer.runs
    ]
    out.print(render.table(("run", "name", "state", "jobs", "submitted", "took", "by"), rows))


@options.command(
    examples=(
        "tshrag cancel last",
        "tshrag cancel last:3",
    )
)
@click.argument("name", metavar="RUN|JOB")
@click.option(
    "--timeout", type=options.Seconds(), default=15.0, help="Wait so long for agents to stop it."
)
@options.readable
@options.in_lab
def cancel(connection: Connection, output: str, name: str, timeout: float) -> None:
    """Cancel a RUN or a JOB; show the processes that had to be stopped."""

    async def cancelled(lab: Client) -> r.CancelAnswer:
        return await lab.cancel(await thing_named(lab, name), timeout)

    answer = ask(connection, cancelled)
    render.emit(
        output, answer, lambda out: _print_stopped(out, answer), [job.job for job in answer.jobs]
    )


def _print_stopped(out: Console, answer: r.CancelAnswer) -> None:
    out.print(Text.assemble(answer.run, ": ", f"{plural(len(answer.jobs), 'job')} cancelled"))
    rows = [
        (job.job, render.state(job.state), _stopped(job))
        for job in answer.jobs
        if job.stopped or job.pending
    ]
    if rows:
        out.print(render.table(("job", "state", "stopped"), rows))


def _stopped(job: Stopped) -> Text:
    if job.pending:
        said = job.note or "its agent has not answered yet; it is stopped when it does"
        return render.text(said, style="yellow")
    return render.text(", ".join(job.stopped))


@options.command(
    examples=(
        "tshrag why last",
        "tshrag why last:2 --json",
    )
)
@click.argument("name", metavar="RUN|JOB")
@options.readable
@options.in_lab
def why(connection: Connection, output: str, name: str) -> None:
    """Say why a JOB is where it is: place by place, what is missing.

    Of a RUN it is the first job that has not ended. The answer comes from the very predicate that
    the scheduler filters with.
    """

    async def asked(lab: Client) -> _Why:
        thing = await thing_named(lab, name)
        answer = await lab.why(thing)
        waits = answer.state == "waiting"
        fields = msgspec.structs.asdict(answer)
        return _Why(**fields, outlook=await _outlook(lab, answer.job) if waits else None)

    answer = ask(connection, asked)
    render.emit(output, answer, lambda out: _print_why(out, answer), [answer.reason])


async def _outlook(lab: Client, job: str) -> wr.OutlookAnswer | None:
    try:
        return await lab.outlook(job)
    except NotFound:  # it has ended in this moment
        return None


def _print_why(out: Console, answer: _Why) -> None:
    out.print(Text.assemble(answer.job, "  ", render.state(answer.state)))
    out.print(render.text(answer.sentence))
    if answer.outlook is not None:
        print_outlook(out, answer.outlook)
    if answer.places:
        free = free_of(answer.outlook) if answer.outlook is not None else {}
        out.print(places_table(answer.places, free))
