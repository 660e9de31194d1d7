"""Hosts and DUTs out of service and back: cordon, drain, maintenance, quarantine, return."""

import time
from collections.abc import Callable, Sequence

import click
from rich.console import Console
from rich.text import Text

from tshrag_common import intent_requests as ir
from tshrag_common.client import Client
from tshrag_common.errors import NotFound, Refused
from tshrag_controller.cli import options, render
from tshrag_controller.cli.ask import ask
from tshrag_controller.cli.context import Connection

VERBS: Sequence[tuple[str, ir.Wanted, str]] = (
    ("cordon", "cordoned", "Let nothing new come; runs that have it already go on."),
    ("drain", "draining", "Let what is at work end, and start nothing more."),
    ("maintenance", "maintenance", "Take it out of service to work on it."),
    ("quarantine", "quarantined", "Take it out of service: it is not to be trusted."),
    ("return", "in_service", "Take it back into service."),
)


def add_to(group: click.Group, kind: ir.Kind) -> None:
    """Give a group of commands (``agent``, ``dut``) those that take things out of service."""
    for word, wanted, about in VERBS:
        group.add_command(_command(kind, word, wanted, about))


def _command(kind: ir.Kind, word: str, wanted: ir.Wanted, about: str) -> click.Command:
    thing = "rack-7" if kind == "agent" else "rpi4-1"
    is_back = wanted == "in_service"
    more = "" if is_back else " --reason 'new power supply' --for 2h"
    examples = (f"tshrag {kind} {word} {thing}{more}", f"tshrag {kind} {word} --label rack=7{more}")

    def change(connection: Connection, output: str, **given: object) -> None:
        answer = ask(connection, lambda lab: _changed(lab, kind, wanted, given))
        names = [each.name for each in answer.things]
        render.emit(output, answer, lambda out: _print(out, answer), names)

    change.__doc__ = f"{about}\n\n    {_MORE[is_back]}"
    command: Callable[..., object] = options.readable(options.in_lab(change))
    if not is_back:
        command = _OUT(command)
    command = click.option("--reason", default="", help="Why; everybody reads it.")(command)
    command = click.option(
        "--label",
        "labels",
        multiple=True,
        type=options.Variable(),
        help="All that have this label; several: all of these.",
    )(command)
    command = click.argument("names", nargs=-1)(command)
    made: click.Command = options.command(word, examples=examples)(command)
    return made


_MORE = {
    False: "What people want is kept apart from what was observed: the state stays what it is.",
    True: "What was observed stays: a DUT that is faulty is so still.",
}


def _OUT(command: Callable[..., object]) -> Callable[..., object]:  # noqa: N802  # a decorator
    command = click.option(
        "--now", is_flag=True, help="End what is at work there; its jobs begin again elsewhere."
    )(command)
    return click.option(
        "--for", "for_s", type=options.Seconds(), default=0, help="Back by itself after so long."
    )(command)


async def _changed(
    lab: Client, kind: ir.Kind, wanted: ir.Wanted, given: dict[str, object]
) -> ir.IntentsAnswer:
    names, labels = given["names"], given["labels"]
    chosen = tuple(names) if isinstance(names, tuple) else ()
    if isinstance(labels, tuple) and labels:
        chosen += await _labelled(lab, kind, dict(labels))
    if not chosen:
        raise Refused("", "which ones?", "name them, or give a --label", code="names")
    for_s = float(str(given.get("for_s", 0)))
    until = time.time_ns() // 1000 + round(for_s * 1e6) if for_s else 0
    request = ir.SetIntent(
        kind=kind,
        names=chosen,
        what=wanted,
        reason=str(given["reason"]),
        until=until,
        now=bool(given.get("now")),
    )
    return await lab.set_intent(request)


async def _labelled(lab: Client, kind: ir.Kind, labels: dict[str, str]) -> tuple[str, ...]:
    """Return the things with all these labels; those of a host are also those of its DUTs."""
    hosts = {each.facts.agent: each.facts.labels for each in (await lab.agents()).agents}
    known: dict[str, dict[str, str]] = {str(name): found for name, found in hosts.items()}
    if kind == "dut":
        duts = (await lab.duts()).duts
        known = {each.dut.id: {**known.get(each.agent, {}), **each.dut.labels} for each in duts}
    found = tuple(name for name, has in known.items() if labels.items() <= has.items())
    if not found:
        said = ",".join(f"{name}={value}" for name, value in labels.items())
        raise NotFound(kind, said)
    return found


def _print(out: Console, answer: ir.IntentsAnswer) -> None:
    rows: list[Sequence[render.Cell]] = []
    for each in answer.things:
        until = f" until {render.when(each.until)}" if each.until else ""
        left = f"{len(each.jobs)} at work: {', '.join(each.jobs)}" if each.jobs else ""
        word = (each.what or "in service") + until
        rows.append((each.name, Text(word if each.changed else f"{word}, as before"), left))
    out.print(render.table(("name", "now", "still"), rows))
