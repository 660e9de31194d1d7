"""``qgjob``: TestPilot's commands, its options, words and exit codes, on a lab of ours.

A job of theirs is a run of ours with one job: an org, a version of an app, a test, a target.
"""

import functools
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from tshrag_common import requests as r
from tshrag_common.client import Client
from tshrag_common.errors import Refused
from tshrag_controller.cli import options, render
from tshrag_controller.cli.app import invoke_group
from tshrag_controller.cli.ask import ask, run_named
from tshrag_controller.cli.context import Connection, find
from tshrag_controller.cli.follow import follow
from tshrag_controller.cli.packing import hand_in
from tshrag_controller.cli.progress import progress
from tshrag_controller.cli.qgjob_test import Asked, draft_of
from tshrag_controller.cli.qgjob_words import (
    STATES,
    Listed,
    Record,
    Submitted,
    iso,
    record_of,
    statistics_of,
)
from tshrag_controller.cli.submit import new_run
from tshrag_controller.reports.text import clean


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tshrag-controller", prog_name="qgjob")
def qgjob() -> None:
    """Submit tests to a lab and follow them, in the words of TestPilot.

    Exit codes: 0 completed, 1 failed, 2 usage or refused, 3 unavailable, 4 cancelled,
    5 timed out. All else is in 'tshrag': qgjob's jobs are its runs.
    """


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(invoke_group(qgjob, "qgjob"))


def in_org(command: options.Function) -> options.Function:
    """Give a command ``--org-id --url --creds``."""

    @click.option("--url", metavar="URL", help="The lab's bus [TSHRAG_NATS_URL].")
    @click.option("--creds", metavar="FILE", help="Your credentials [TSHRAG_CREDS].")
    @click.option("--org-id", metavar="ORG", help="Your organisation.")
    @functools.wraps(command)
    def found(url: str | None, creds: str | None, org_id: str | None, **rest: Any) -> Any:
        return command(find({"url": url, "creds": creds, "org": org_id}), **rest)

    return found


@qgjob.command(
    cls=options.Command,
    examples=(
        "qgjob submit --org-id qualgent --app-version-id xyz123 --test tests/onboarding.py",
        "qgjob submit --app-version-id 1.4 --test login.js --target device --wait",
    ),
)
@click.option("--app-version-id", required=True, help="Jobs of one version share a setup.")
@click.option("--test", required=True, metavar="PATH", help="A file, or the folder of a load.")
@click.option("--target", default="emulator", show_default=True,
              help="A kind of DUT: emulator, device, browserstack, …")  # fmt: skip
@click.option("--priority", type=options.Priority(), default="normal", show_default=True,
              help="low, normal, high, urgent, or 0..100.")  # fmt: skip
@click.option("--runner", default="", envvar="QGJOB_RUNNER",
              help="What runs the file, if not itself or what its ending says.")  # fmt: skip
@click.option("--setup", default="", envvar="QGJOB_SETUP",
              help="What installs the version, once a group.")  # fmt: skip
@click.option("--metadata", multiple=True, type=options.Variable(), metavar="K=V",
              help="A label of the run; may be repeated.")  # fmt: skip
@click.option("--timeout", default="", help="Of the job, from its start, as 10m.")
@click.option("--require-agent", is_flag=True, help="Refuse what nobody could serve now.")
@click.option("--wait", "waits", is_flag=True, help="Wait; the exit code is the result.")
@click.option("--poll-interval", type=float, default=5.0,
              help="For old scripts: nothing is polled here.")  # fmt: skip
@options.readable
@in_org
def submit(connection: Connection, output: str, waits: bool, **given: Any) -> None:
    """Submit one test of an app version for a target."""
    asked = Asked(
        org=connection.org_id, app_version=given["app_version_id"], test=given["test"],
        target=given["target"], runner=given["runner"], setup=given["setup"],
        timeout=given["timeout"], metadata=dict(given["metadata"]),
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="qgjob-") as folder:
        draft = draft_of(asked, Path(folder))
        with progress(output) as shown:

            async def submitted(lab: Client) -> r.SubmitAnswer:
                request = r.Submit(
                    run=new_run(),
                    profile=draft.json,
                    priority=given["priority"],
                    park=not given["require_agent"],
                    loads=await hand_in(lab, draft, shown),
                )
                return await lab.submit(request)

            answer = ask(connection, submitted)
    if waits:
        render.note(f"Job submitted: {answer.run}")
        follow(connection, answer.run, output, live=False, timeout_s=None)
    made = Submitted(job_id=answer.run, status="pending", message="Job submitted")
    render.emit(output, made, lambda out: out.print(f"Job submitted: {answer.run}"), [answer.run])


@qgjob.command(cls=options.Command, examples=("qgjob status --job-id last --watch",))
@click.option("--job-id", required=True, help="As submit said it; last is the newest.")
@click.option("--watch", "watches", is_flag=True, help="Watch it until it ends.")
@options.readable
@in_org
def status(connection: Connection, output: str, job_id: str, watches: bool) -> None:
    """Show a job; with --watch until it ends."""
    if watches:
        follow(connection, job_id, output, live=True, timeout_s=None)

    async def asked(lab: Client) -> Record:
        run = (await lab.run(await run_named(lab, job_id))).run
        [job, *_] = (await lab.jobs(r.ListJobs(id=run.id, limit=1))).jobs
        error = f"{job.error.code}: {job.error.message}" if job.error else ""
        return record_of(run, job.attempts, error)

    try:
        record = ask(connection, asked)
    except Refused as error:
        if error.code != "unknown_run":
            raise
        raise Refused(job_id, "Job not found", error.fix, code="unknown_job") from None
    render.emit(output, record, lambda out: _print(out, record), [record.status])


def _print(out: Console, record: Record) -> None:
    plain = msgspec.to_builtins(record)
    rows = {**plain, **plain.pop("payload")}
    rows["metadata"] = " ".join(f"{name}={value}" for name, value in rows["metadata"].items())
    facts: list[tuple[str, render.Cell]] = [
        (name.replace("_", " "), render.state(value) if name == "status" else str(value))
        for name, value in rows.items()
        if name != "payload" and value != ""
    ]
    out.print(render.facts(facts))


@qgjob.command("list", cls=options.Command, examples=("qgjob list --status failed --limit 5",))
@click.option("--status", "word", type=click.Choice(list(STATES)), help="Only jobs in this state.")
@click.option("--app-version-id", default="", help="Only jobs of this version.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0, help="Leave out the newest so many.")
@options.readable
@in_org
def list_jobs(
    connection: Connection,
    output: str,
    word: str | None,
    app_version_id: str,
    limit: int,
    offset: int,
) -> None:
    """List jobs, newest first."""
    asked = r.ListRuns(
        states=STATES[word] if word else (),
        labels={"app_version_id": app_version_id} if app_version_id else {},
        limit=limit,
        offset=offset,
        people=True,
    )
    answer = ask(connection, lambda lab: lab.runs(asked))
    found = [record_of(run) for run in answer.runs]
    jobs = tuple(each for each in found if word in (None, each.status))
    listed = Listed(jobs=jobs, count=len(jobs), more=answer.more)
    render.emit(output, listed, lambda out: _print_jobs(out, listed), [job.job_id for job in jobs])
    if answer.more:
        render.note(f"there are more: qgjob list --offset {offset + len(answer.runs)}")


def _print_jobs(out: Console, listed: Listed) -> None:
    if not listed.jobs:
        out.print("no jobs; submit one with 'qgjob submit'")
        return
    rows = [
        (
            job.job_id,
            render.text(str(job.payload["org_id"])),
            render.text(str(job.payload["app_version_id"]), 24),
            render.text(str(job.payload["test_path"]), 40),
            render.text(str(job.payload["target"]), 16),
            str(job.payload["priority"]),
            render.state(job.status),
            job.created_at,
        )
        for job in listed.jobs
    ]
    heads = ("job", "org", "app version", "test", "target", "priority", "status", "created")
    out.print(render.table(heads, rows, ("priority",)))


@qgjob.command(cls=options.Command, examples=("qgjob stats",))
@options.readable
@in_org
def stats(connection: Connection, output: str) -> None:
    """Show how many jobs and workers there are, and how many of the jobs were completed."""
    answer = ask(connection, lambda lab: lab.stats())

    made = statistics_of(answer)
    rows = [(name.replace("_", " "), _shown(value)) for name, value in _items(made)]
    render.emit(output, made, lambda out: out.print(render.facts(rows)), [str(made.total_jobs)])


def _items(made: msgspec.Struct) -> list[tuple[str, Any]]:
    return list(msgspec.to_builtins(made).items())


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1%}"
    return "-" if value is None else clean(str(value))


@qgjob.command(cls=options.Command, examples=("qgjob health || page-somebody",))
@options.readable
@in_org
def health(connection: Connection, output: str) -> None:
    """Say whether the lab is well. Exit 0 when it is, 1 when degraded, 3 when nobody answers."""
    answer = ask(connection, lambda lab: lab.health())
    rows: list[tuple[str, render.Cell]] = [
        ("status", render.state(answer.status)),
        ("timestamp", iso(answer.at)),
        ("version", answer.version),
        ("storage", "durable" if answer.durable else "not durable"),
        *(("degraded", clean(reason)) for reason in answer.reasons),
    ]
    render.emit(output, answer, lambda out: out.print(render.facts(rows)), [answer.status])
    sys.exit(0 if answer.status == "ok" else 1)
