"""Submit, plan, retry: a profile goes to the lab."""

import secrets
import time
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import click
import msgspec

from tshrag_common import ids, requests as r
from tshrag_common.client import Client
from tshrag_common.errors import Invalid, Refused
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import ask, run_named
from tshrag_controller.cli.context import Connection
from tshrag_controller.cli.follow import follow
from tshrag_controller.cli.outlooks import summary
from tshrag_controller.cli.packing import Draft, hand_in, read_draft
from tshrag_controller.cli.plans import print_plan
from tshrag_controller.cli.progress import progress
from tshrag_controller.reports.text import clean, plural

_PLACES = (
    click.option("-d", "--dut", "duts", multiple=True, help="Only this DUT; may be repeated."),
    click.option("-m", "--host", "hosts", multiple=True, help="Only this host; may be repeated."),
    click.option(
        "-e",
        "--env",
        multiple=True,
        type=options.Variable(),
        metavar="K=V",
        help="A variable for every job; may be repeated.",
    ),
    click.option("--seed", type=int, default=4242, show_default=True, help="For loads that roll."),
)
_WINDOW = (
    click.option("-t0", "--start-time", type=options.Moment(), help="Not before; '+10m' is fine."),
    click.option("-t1", "--end-time", type=options.Moment(), help="Expired if not begun by then."),
    click.option(
        "--priority",
        type=options.Priority(),
        default="normal",
        show_default=True,
        help="0..100, or low, normal, high, urgent.",
    ),
    click.option("--key", default="", help="The same key again is the same run."),
    click.option("--park", is_flag=True, help="Keep it waiting where no place could ever fit."),
    click.option(
        "--baseline",
        metavar="RUN",
        help="Compare with this run, or 'none'; else the newest of its name that passed.",
    ),
)
_AFTERWARDS = (
    click.option("--wait", "waits", is_flag=True, help="Wait; the exit code is the verdict."),
    click.option("--watch", "watches", is_flag=True, help="Watch it live until it ends."),
    click.option("--timeout", type=options.Seconds(), help="Wait at most so long; then exit 5."),
)


def _with(*groups: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    """Return a decorator that adds all the options of `groups`, in their order."""
    every = [each for group in groups for each in group]
    return lambda command: reduce(lambda made, each: each(made), reversed(every), command)


@options.command(
    examples=(
        "tshrag submit smoke.yaml --watch",
        "tshrag submit soak.toml -d rpi4-1 -e PEER=10.0.0.7 --priority high",
        "tshrag submit nightly.json -t0 23:00 -t1 +10h --key nightly-$(date +%F)",
        "tshrag submit smoke.yaml --wait --timeout 30m --json     # in CI",
    )
)
@click.argument("profile", type=click.Path(exists=True, dir_okay=False))
@_with(_PLACES, _WINDOW, _AFTERWARDS)
@options.readable
@options.in_lab
def submit(
    connection: Connection,
    output: str,
    profile: str,
    waits: bool,
    watches: bool,
    timeout: float | None,
    **given: Any,
) -> None:
    """Submit a PROFILE (JSON, TOML, YAML) as a run.

    Loads with a local path are relative to the profile's file; they are packed here and uploaded
    by digest, once. Remote ones are fetched by the controller.
    """
    draft = read_draft(profile)
    with progress(output) as shown:
        answer = ask(connection, lambda lab: _submitted(lab, draft, _request(draft, given), shown))
    _told(connection, output, answer, waits, watches, timeout)


async def _submitted(lab: Client, draft: Draft, request: r.Submit, shown: Any) -> r.SubmitAnswer:
    loads = await hand_in(lab, draft, shown)
    shown.say("resolving and planning")
    try:
        return await lab.submit(msgspec.structs.replace(request, loads=loads))
    except Invalid as invalid:
        raise draft.placed(invalid) from None


def _request(draft: Draft, given: dict[str, Any]) -> r.Submit:
    return r.Submit(
        run=new_run(),
        profile=draft.json,
        key=given.get("key", ""),
        priority=given.get("priority", 50),
        env=dict(given["env"]),
        hosts=given["hosts"],
        duts=given["duts"],
        not_before=given.get("start_time") or 0,
        deadline=given.get("end_time") or 0,
        seed=given["seed"],
        park=given.get("park", False),
        baseline=given.get("baseline") or "",
        outlook=True,
    )


def new_run() -> str:
    return ids.new_run(time.time_ns() // 1_000_000, secrets.randbits(80))


def _told(
    connection: Connection,
    output: str,
    answer: r.SubmitAnswer,
    waits: bool,
    watches: bool,
    timeout: float | None,
) -> None:
    for warning in answer.warnings:
        render.note(f"warning: {clean(warning)}")
    if waits or watches or timeout is not None:
        if output == "table":
            render.note(f"{answer.run}: {plural(answer.jobs, 'job')}")
        follow(connection, answer.run, output, live=watches, timeout_s=timeout)
        return
    said = "accepted" if answer.created else f"was there before, {answer.state}"
    render.emit(
        output,
        answer,
        lambda out: out.print(f"{answer.run}: {said}, {plural(answer.jobs, 'job')}"),
        [answer.run],
    )
    if output == "table":
        if answer.outlook is not None:
            render.note(summary(answer.outlook))
        render.note(f"watch it with 'tshrag watch {answer.run}'")


@options.command(
    examples=(
        "tshrag plan smoke.yaml",
        "tshrag plan soak.toml -d rpi4-1 --json",
    )
)
@click.argument("profile", type=click.Path(exists=True, dir_okay=False))
@_with(_PLACES)
@options.readable
@options.in_lab
def plan(connection: Connection, output: str, profile: str, **given: Any) -> None:
    """Show the jobs that a PROFILE makes, their order, and where each would go now.

    Nothing is changed. Loads are resolved to commit and digest; for every place that a job would
    not go to, the reasons are named.
    """
    draft = read_draft(profile)
    with progress(output) as shown:
        answer = ask(connection, lambda lab: _planned(lab, draft, _request(draft, given), shown))
    render.emit(
        output, answer, lambda out: print_plan(out, answer), [job.name for job in answer.jobs]
    )


async def _planned(lab: Client, draft: Draft, request: r.Submit, shown: Any) -> r.PlanAnswer:
    loads = await hand_in(lab, draft, shown)
    shown.say("resolving and planning")
    try:
        return await lab.plan(msgspec.structs.replace(request, loads=loads))
    except Invalid as invalid:
        raise draft.placed(invalid) from None


@options.command(examples=("tshrag retry last --watch",))
@click.argument("run")
@click.option("-d", "--dut", multiple=True, help="Only on this DUT; may be repeated.")
@_with(_AFTERWARDS)
@options.readable
@options.in_lab
def retry(
    connection: Connection,
    output: str,
    run: str,
    dut: tuple[str, ...],
    waits: bool,
    watches: bool,
    timeout: float | None,
) -> None:
    """Submit an earlier RUN again: the same profile, and the same bytes of every load."""
    with progress(output):
        answer = ask(connection, lambda lab: submitted_again(lab, run, dut))
    _told(connection, output, answer, waits, watches, timeout)


async def submitted_again(lab: Client, name: str, duts: tuple[str, ...] = ()) -> r.SubmitAnswer:
    """Submit an earlier run again, with the same bytes; on one of `duts`, where some are named."""
    before = await lab.run(await run_named(lab, name), profile=True)
    stored = {load.name: load for load in before.run.loads if load.digest}
    there = set((await lab.blob_has(tuple({each.digest for each in stored.values()}))).digests)
    gone = [name for name, load in stored.items() if load.digest not in there]
    if gone:
        what = f"load {', '.join(gone)} of {before.run.id} is not stored any more"
        raise Refused("", what, "submit its profile again", code="load")
    loads = {
        name: r.LocalLoad(
            source=load.source, digest=load.digest, size_bytes=load.size_bytes, commit=load.commit
        )
        for name, load in stored.items()
    }
    return await lab.submit(
        r.Submit(
            run=new_run(),
            profile=before.profile,
            priority=before.run.priority,
            seed=before.run.seed,
            loads=loads,
            retry_of=before.run.id,
            outlook=True,
        )
    )
