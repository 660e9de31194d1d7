"""PURE: the states of a board, the moves among them, the shortest way.

``off``, ``bootloader``, ``login``, ``shell`` are known to the lab; an operator may add others.
``unknown`` is where a board is whose state was not seen.
"""

from collections import deque
from collections.abc import Iterable, Mapping

import msgspec

from tshrag_agent.transport.boot_way import Act, BootWay, Move
from tshrag_common.errors import Refused, did_you_mean, shown

OFF, BOOTLOADER, LOGIN, SHELL, UNKNOWN = "off", "bootloader", "login", "shell", "unknown"


class Means(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to move a board with."""

    power: bool = False  # a switch that can cut and give
    console: bool = False
    shell: bool = False  # over the console or another way


Graph = Mapping[str, Mapping[str, tuple[Act, ...]]]
"""State -> state that is reached from it -> by which acts."""


def moves_of(way: BootWay, means: Means) -> tuple[Move, ...]:
    """Return the moves that follow from what a board has, then those of its operator."""
    return (*_known(way, means), *way.move)


def graph(moves: Iterable[Move]) -> Graph:
    made: dict[str, dict[str, tuple[Act, ...]]] = {}
    for move in moves:
        made.setdefault(move.source, {})[move.to] = move.acts
    return made


def states(of: Graph) -> tuple[str, ...]:
    """Return every state that some move leads to, in the order of the moves."""
    return tuple(dict.fromkeys(to for targets in of.values() for to in targets))


def route(of: Graph, start: str, goal: str, where: str) -> tuple[Move, ...]:
    """Return the fewest moves from `start` to `goal`; none where they are the same.

    Raises:
        Refused: there is no such state (``unknown_state``) or no way to it (``no_way``).

    """
    if start == goal:
        return ()
    if goal not in states(of):
        known = ", ".join(states(of)) or "none: it has neither power nor a console"
        fix = did_you_mean(goal, states(of)) or f"its states: {known}"
        raise Refused(where, f"it has no state {shown(goal)}", fix, code="unknown_state")
    came: dict[str, Move] = {}
    waiting = deque([start])
    while waiting and goal not in came:
        here = waiting.popleft()
        for to, acts in of.get(here, {}).items():
            if to not in came and to != start:
                came[to] = Move(source=here, to=to, acts=acts)
                waiting.append(to)
    if goal not in came:
        fix = "add power.on and power.off, or a [[dut.boot.move]]"
        raise Refused(where, f"no way leads from {start} to {goal}", fix, code="no_way")
    return tuple(_back(came, start, goal))[::-1]


def _back(came: Mapping[str, Move], start: str, goal: str) -> Iterable[Move]:
    here = goal
    while here != start:
        yield came[here]
        here = came[here].source


def _known(way: BootWay, means: Means) -> Iterable[Move]:
    loader = way.bootloader if means.console else None
    if means.power:
        for state in (BOOTLOADER, LOGIN, SHELL, UNKNOWN):
            yield Move(source=state, to=OFF, acts=(Act(power="off"),))
        if loader:
            yield Move(source=OFF, to=BOOTLOADER, acts=(Act(power="on"), Act(interrupt=True)))
        if means.shell and not (loader and (loader.environment or loader.commands)):
            yield Move(source=OFF, to=SHELL, acts=(Act(power="on"), Act(login=True)))
    if loader:
        yield from _of_loader(way, means)
    if means.shell:
        yield Move(source=LOGIN, to=SHELL, acts=(Act(login=True),))
        if not means.power:
            yield Move(source=UNKNOWN, to=SHELL, acts=(Act(login=True),))


def _of_loader(way: BootWay, means: Means) -> Iterable[Move]:
    if means.shell:
        boot = (Act(prepare=True), Act(send=_line(way)), Act(login=True))
        yield Move(source=BOOTLOADER, to=SHELL, acts=boot)
    if means.power:
        again = (Act(power="cycle"), Act(interrupt=True))
        yield Move(source=SHELL, to=BOOTLOADER, acts=again)
    elif means.shell:
        again = (Act(send=way.reboot + "\r"), Act(interrupt=True))
        yield Move(source=SHELL, to=BOOTLOADER, acts=again)


def _line(way: BootWay) -> str:
    loader = way.bootloader
    return loader.boot + loader.enter if loader else ""
