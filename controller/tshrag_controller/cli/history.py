"""The work that a lab has had, as files that `tshrag simulate` takes."""

import time
from pathlib import Path

import click

from tshrag_common import work_requests as wk
from tshrag_common.client import Client
from tshrag_common.errors import Refused
from tshrag_common.inventory import AgentFacts
from tshrag_common.lease_requests import ListLeases
from tshrag_common.work import WorkLine
from tshrag_controller.cli import options
from tshrag_controller.cli.ask import ask
from tshrag_controller.cli.context import Connection
from tshrag_controller.cli.progress import Progress, progress
from tshrag_controller.rehearsal.export import compacted, lab_text, lease_line, policy_of, work_text
from tshrag_controller.reports.text import plural


@click.group()
def history() -> None:
    """The work of a lab as a file."""


@history.command(
    "export",
    cls=options.Command,
    examples=(
        "tshrag history export --work work.jsonl --lab lab.toml",
        "tshrag history export --days 7 > week.jsonl",
    ),
)
@click.option("--days", type=click.FloatRange(0.0001, 3650), default=14.0, show_default=True,
              help="Runs submitted in the last days.")  # fmt: skip
@click.option("--work", "work_file", metavar="FILE", default="-", help="Where to; - is stdout.")
@click.option("--lab", "lab_file", metavar="FILE", help="Write the lab's hosts and boards, too.")
@options.in_lab
def export(connection: Connection, days: float, work_file: str, lab_file: str | None) -> None:
    """Write the jobs of ended runs: when they came, how long they ran, what they needed.

    Your org's jobs; an operator gets those of all. A job that was tried more than once has the
    time of its last attempt; what never ran is left out. Leases that people had are written too.
    """
    with progress("table") as shown:
        rows, leases, hosts, policy = ask(connection, lambda lab: _asked(lab, days, shown))
    lines = compacted(rows, leases)
    if not lines:
        raise Refused("history", "no job has run in that time", "try more --days", code="empty")
    _write(work_file, work_text(lines))
    if lab_file:
        _write(lab_file, lab_text(hosts, policy_of(policy)))
    boards = sum(len(host.duts) for host in hosts)
    runs = len({line.run for line in lines if line.run})
    said = f"{plural(len(lines) - len(leases), 'job')} of {plural(runs, 'run')}"
    said += f", {plural(len(leases), 'lease')}" if leases else ""
    lab = f"; {plural(len(hosts), 'host')} with {plural(boards, 'board')}" if lab_file else ""
    click.echo(f"{said}{lab}", err=True)


async def _asked(
    lab: Client, days: float, shown: Progress
) -> tuple[list[wk.WorkRow], list[WorkLine], list[AgentFacts], bytes]:
    since = max(0, time.time_ns() // 1000 - round(days * 86400e6))
    rows: list[wk.WorkRow] = []
    after = ("", 0)
    while True:
        asked = wk.AskWork(since=since, after_run=after[0], after_serial=after[1])
        answer = await lab.work(asked)
        rows += answer.rows
        shown.say(f"{plural(len(rows), 'job')} read")
        if not answer.more or not answer.rows:
            break
        after = (rows[-1].line.run, rows[-1].line.serial)
    hosts = [each.facts for each in (await lab.agents()).agents]
    return rows, await _leases(lab, since), hosts, bytes(answer.policy)


async def _leases(lab: Client, since: int) -> list[WorkLine]:
    """Return the leases that began after that, newest first as the lab tells of them."""
    found: list[WorkLine] = []
    read = 0
    while True:
        answer = await lab.leases(ListLeases(ended=True, offset=read))
        read += len(answer.ended)
        found += [lease_line(each, since) for each in answer.ended if each.since >= since]
        if not answer.more or not answer.ended or answer.ended[-1].since < since:
            return found


def _write(name: str, text: str) -> None:
    if name == "-":
        click.echo(text, nl=False)
        return
    try:
        Path(name).write_text(text)
    except OSError as error:
        raise Refused(name, error.strerror or str(error), code="file") from None
