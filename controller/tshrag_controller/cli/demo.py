"""``tshrag demo``: a real lab at work on this machine, from nothing, in under a minute.

Broker, controller, two agents, a board reached by SSH and one on a serial line; four runs, each
with the end that it must have. Ends by itself and leaves no process.
"""

import asyncio
import json
import secrets
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from tshrag_common import ids, requests as r
from tshrag_common.client import Client, open_client
from tshrag_common.documents import read_document
from tshrag_common.errors import LabError, Refused
from tshrag_common.views import News, RunView
from tshrag_controller.cli import demo_lab, options
from tshrag_controller.cli.processes import LabProcesses
from tshrag_controller.cli.progress import Silence
from tshrag_controller.cli.report import gather
from tshrag_controller.reports.html import to_html

COLOURS = {
    "passed": "green", "failed": "red", "error": "red", "cancelled": "magenta",
    "running": "blue", "assigned": "cyan", "waiting": "yellow",
}  # fmt: skip
SERIAL_TARGET = {"targets": {"board": {"runtime": "serial", "kind": "sim-serial"}}}


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the demo: what it shows, its profile, and how it has to end."""

    letter: str
    title: str
    profile: dict[str, Any]
    ends: str
    duts: tuple[str, ...] = ()
    cancel: bool = False


@options.command(
    examples=("tshrag demo", "tshrag demo --keep     # and look around in another terminal")
)
@click.option("--keep", is_flag=True, help="Leave the lab running until Ctrl-C.")
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    default=Path("out/demo"),
    show_default=True,
    help="Folder for it; made anew each time.",
)
def demo(keep: bool, state: Path) -> None:
    """Show a lab at work on this machine: SSH board, serial board, verdicts.

    Nothing has to be set up. It ends by itself; the run report stays in the folder.
    """
    lab = LabProcesses(state.absolute())
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: nothing is left running
        signal.signal(number, signal.default_int_handler)
    try:
        good = asyncio.run(_demo(lab, keep))
    except LabError as error:
        click.echo(error.line, err=True)
        raise SystemExit(3 if error.retryable else 2) from None
    except KeyboardInterrupt:
        good = True
    finally:
        lab.stop()
    raise SystemExit(0 if good else 1)


def acts() -> list[Act]:
    """Return the runs of the demo, in their order."""
    example = read_document(demo_lab.EXAMPLE.encode(), "example.json").data
    assert isinstance(example, dict)
    serial: dict[str, Any] = {**example, "name": "network_stress_on_serial", **SERIAL_TARGET}
    step = {"load": "traffic_gen", "params": {"duration": 200}, "target": "board"}
    serial["schedule"] = {"sequence": [step]}
    strict: dict[str, Any] = {
        **example,
        "name": "strict_latency",
        "targets": {"board": {"runtime": "ssh", "kind": "sim-ssh"}},
        "schedule": {"sequence": [{**step, "params": {"duration": 300, "base_ms": 120}}]},
        "criteria": {"tail": {"metric": "network::latency::p95", "max": "100ms"}},
    }
    endless: dict[str, Any] = {
        **strict,
        "name": "endless",
        "schedule": {"sequence": [{"command": "sleep 3600", "target": "board"}]},
        "criteria": {},
    }
    made = [
        Act(letter="a", title="the example profile, its load from git, on an SSH board",
            profile=example, ends="passed", duts=("board-ssh",)),
        Act(letter="b", title="the same load on a serial board, behind a login prompt",
            profile=serial, ends="passed"),
        Act(letter="c", title="a criterion that does not hold", profile=strict, ends="failed"),
        Act(letter="d", title="a job that is cancelled, on the board too", profile=endless,
            ends="cancelled", cancel=True),
    ]  # fmt: skip
    if demo_lab.has_qemu():
        title = "a real U-Boot under QEMU: power, autoboot stopped, its environment, off"
        made.append(Act(letter="e", title=title, profile={**demo_lab.BOOT}, ends="passed"))
    return made


async def _demo(lab: LabProcesses, keep: bool) -> bool:
    began = time.monotonic()
    _say(f"a lab in {lab.state}", bold=True)
    rewrite = _fresh(lab)
    _say("  git repository with the load, tag v3.1")
    lab.start_controller(rewrite)
    ssh = await asyncio.to_thread(demo_lab.start_board, lab, "board-ssh", "ssh_board")
    password = lab.state / "boards" / "password"
    serial = await asyncio.to_thread(
        demo_lab.start_board, lab, "board-serial", "serial_board", "--password", "letmein"
    )
    password.write_text("letmein")
    password.chmod(0o600)
    _say(f"  two boards: {ssh['host']}:{ssh['port']} (SSH), {serial['path']} (serial)")
    await lab.wait_ready()
    _say(f"  nats-server and controller: {lab.bundle.url}")
    lab.start_agent("rack-1", demo_lab.ssh_dut("board-ssh", ssh), slots=2)
    duts = demo_lab.serial_dut("board-serial", serial, password)
    lab.start_agent("rack-2", duts + _virtual_board(), slots=2)
    await lab.wait_agents(2)
    _say("  two agents: rack-1, rack-2")
    bundle = lab.bundle
    async with open_client(bundle.url, name="demo", credentials=bundle.creds or None) as client:
        runs = [(act, await _play(client, act)) for act in acts()]
        reports = [await _report(client, lab, act, view) for act, view in runs]
    good = _sum_up(runs, lab, time.monotonic() - began)
    _say("  run reports:")
    for path in reports:
        _say(f"    {path}")
    if keep:
        _say(f"the lab stays until Ctrl-C: TSHRAG_STATE={lab.state} tshrag status")
        await asyncio.Event().wait()
    return good


def _virtual_board() -> str:
    if demo_lab.has_qemu():
        _say("  a virtual board: QEMU with U-Boot")
        return demo_lab.qemu_dut("board-qemu")
    _say("  no virtual board: 'make demo-qemu' installs QEMU and U-Boot (Debian, root)")
    return ""


def _fresh(lab: LabProcesses) -> str:
    """Make the folder anew; refuse one that something else is in."""
    if lab.state.exists():
        if not (lab.state / "demo").exists():
            fix = "name another folder with --state"
            raise Refused(str(lab.state), "there is something else in it", fix, code="state")
        shutil.rmtree(lab.state)
    lab.state.mkdir(parents=True, mode=0o700)
    (lab.state / "demo").touch()
    return demo_lab.make_repository(lab.state / "repositories")


async def _play(client: Client, act: Act) -> RunView:
    """Submit one run, tell what moves, return it as it ended."""
    _say(f"\n({act.letter}) {act.title}", bold=True)
    run = ids.new_run(time.time_ns() // 1_000_000, secrets.randbits(80))
    body = msgspec.Raw(json.dumps(act.profile).encode())
    answer = await client.submit(r.Submit(run=run, profile=body, duts=act.duts))
    asked = False
    async for news in client.watch(answer.run):
        _tell(news)
        if act.cancel and not asked and "running" in news.counts:
            asked = True
            await _cancel(client, answer.run)
    view = (await client.run(answer.run)).run
    _verdict(view)
    return view


async def _report(client: Client, lab: LabProcesses, act: Act, view: RunView) -> Path:
    """Write the run report of one act as one self-contained HTML file."""
    path = lab.state / f"report-{act.letter}-{act.profile['name']}.html"
    text = to_html(await gather(client, view.id, Silence()))
    await asyncio.to_thread(path.write_text, text)
    return path


async def _cancel(client: Client, run: str) -> None:
    ended = await client.cancel(run)
    for job in ended.jobs:
        for what in job.stopped:
            _say(f"    stopped: {what}")


def _tell(news: News | RunView) -> None:
    if not isinstance(news, News):
        return
    for moved in news.moved:
        where = f" on {moved.place}" if moved.place else ""
        note = f": {moved.note}" if moved.note else ""
        _say(f"    {moved.name:28} {_state(moved.state)}{where}{note}")


def _verdict(view: RunView) -> None:
    for evidence in view.evidence:
        mark = "✔" if evidence.verdict == "pass" else "✘"
        colour = "green" if evidence.verdict == "pass" else "red"
        click.echo("    " + click.style(f"{mark} {evidence.criterion}: {evidence.reason}", colour))
    for load in view.loads:
        _say(
            f"    load {load.name} = {load.source} @ {load.commit[:10]} sha256 {load.digest[:12]}…"
        )
    _say(f"    run {_state(view.state)}")


def _sum_up(runs: list[tuple[Act, RunView]], lab: LabProcesses, took_s: float) -> bool:
    _say("\n  run                         verdict     as it had to be", bold=True)
    good = True
    for act, view in runs:
        right = view.state == act.ends
        good &= right
        seconds = max(0, view.ended_at - view.created_at) / 1e6
        padding = " " * (10 - len(view.state))
        answer = "yes" if right else f"NO, {act.ends}"
        _say(f"  {view.name:28}{_state(view.state)}{padding}  {answer}   {seconds:.1f} s")
    _say(f"\n{'all as it had to be' if good else 'NOT as it had to be'}, {took_s:.0f} s")
    return good


def _state(state: str) -> str:
    return click.style(state, COLOURS.get(state, "white"))


def _say(text: str, bold: bool = False) -> None:
    click.echo(click.style(text, bold=True) if bold else text)
