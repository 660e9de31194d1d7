"""PURE: the schedule language: a tree of steps, each of exactly one kind.

    {"sequence": [...]}             in order                          also ``seq``
    {"parallel": [...]}             together, then joined             also ``par``
    {"gang": {"server": {...}, "client": {...}}}    all at once or none, each on its own target
    {"repeat": {"times": 3, "of": {...}}}
    {"matrix": {"axes": {"size": [64, 1500]}, "of": {...}}}
    {"load": "iperf", "params": {"duration": 60}}
    {"command": "iperf3 -c ${peer}"}                                  also ``cmd``
    {"sleep": "10s"}   {"comment": "now the long part"}   {"nop": true}
    {"power": "cycle"}   {"boot": "shell"}   {"shell": "dmesg"}   and more of a board: `actions`

``env``, ``cwd``, ``target``, ``timeout``, ``attempts``, ``retries``, ``on_fail``, ``disconnect``,
``on_crash``, ``expect_reboot`` and ``preemptible`` of a step hold for all that is below it, until a
step says its own.
"""

from collections.abc import Iterator
from math import prod
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tshrag_common.actions import Boot, Download, Expect, Flash, Send, Upload
from tshrag_common.criteria import Criterion
from tshrag_common.fields import (
    VARIABLE,
    CommandLine,
    CommandWords,
    Disconnect,
    EnvName,
    Name,
    Path,
    Sleep,
    Text,
    Timeout,
    Token,
)
from tshrag_common.jobs import MAX_JOBS, RetryOn
from tshrag_common.positions import At

Kind = Literal[
    "sequence", "parallel", "gang", "repeat", "matrix", "load", "command", "sleep", "comment",
    "nop", "power", "boot", "send", "expect", "bootloader", "shell", "upload", "download", "flash",
]  # fmt: skip
BOARD: tuple[Kind, ...] = (
    "power", "boot", "send", "expect", "bootloader", "shell", "upload", "download", "flash",
)  # fmt: skip
"""What is done with a board: such a step goes to a DUT, named or not."""

OnFail = Literal["stop", "continue"]
OnCrash = Literal["mark", "fail"]
AxisValue = str | int | float | bool
Axis = Annotated[tuple[AxisValue, ...], Meta(min_length=1, max_length=MAX_JOBS)]
AxisName = Annotated[str, Meta(pattern=f"^{VARIABLE}$", extra={"code": "name"})]

SHORT: dict[Kind, str] = {"sequence": "seq", "parallel": "par", "command": "cmd"}
"""How an unnamed step is called in the name of a job: ``*seq``."""


class Repeat(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The same step several times. ``parallel``: one after the other, all at once, or so many."""

    times: Annotated[int, Meta(ge=1, le=MAX_JOBS)]
    of: "Step"
    parallel: bool | Annotated[int, Meta(ge=1, le=MAX_JOBS)] = False


class Matrix(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step for every combination of the axes, last axis fastest, but those in ``exclude``."""

    axes: Annotated[dict[AxisName, Axis], Meta(min_length=1, max_length=16)]
    of: "Step"
    parallel: bool | Annotated[int, Meta(ge=1, le=MAX_JOBS)] = False
    exclude: tuple[dict[str, AxisValue], ...] = ()


class Retries(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How often a job is tried, and after which outcomes it is tried again."""

    attempts: Annotated[int, Meta(ge=1, le=10)] | UnsetType = UNSET  # in all
    on: Annotated[tuple[RetryOn, ...], Meta(max_length=4)] | UnsetType = UNSET
    elsewhere: bool | UnsetType = UNSET


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One node of the schedule."""

    WORDS: ClassVar[dict[str, str]] = {
        "seq": "sequence",
        "par": "parallel",
        "cmd": "command",
        "console.send": "send",
        "console.expect": "expect",
    }
    KINDS: ClassVar[tuple[Kind, ...]] = (
        "sequence", "parallel", "gang", "repeat", "matrix", "load", "command", "sleep", "comment",
        "nop", *BOARD,
    )  # fmt: skip

    sequence: Annotated[tuple["Step", ...], Meta(min_length=1)] | UnsetType = UNSET
    parallel: Annotated[tuple["Step", ...], Meta(min_length=1)] | UnsetType = UNSET
    gang: Annotated[dict[Token, "Step"], Meta(min_length=1)] | UnsetType = UNSET
    repeat: Repeat | UnsetType = UNSET
    matrix: Matrix | UnsetType = UNSET
    load: Token | UnsetType = UNSET
    command: CommandLine | CommandWords | UnsetType = UNSET
    sleep: Sleep | UnsetType = UNSET
    comment: Text | UnsetType = UNSET
    nop: bool | UnsetType | None = UNSET
    power: Literal["on", "off", "cycle"] | UnsetType = UNSET
    boot: Token | Boot | UnsetType = UNSET
    send: Text | Send | UnsetType = UNSET
    expect: Text | Expect | UnsetType = UNSET
    bootloader: Text | CommandWords | UnsetType = UNSET
    shell: Text | UnsetType = UNSET
    upload: Upload | UnsetType = UNSET
    download: Download | UnsetType = UNSET
    flash: Flash | UnsetType = UNSET

    name: Name | UnsetType = UNSET
    params: dict[str, object] = {}
    level: Annotated[int, Meta(ge=0)] = 0
    env: dict[EnvName, Text] = {}
    cwd: Path = ""
    target: Token | UnsetType = UNSET
    timeout: Timeout | UnsetType = UNSET
    attempts: Annotated[int, Meta(ge=1, le=10)] | UnsetType = UNSET
    retries: Retries | UnsetType = UNSET
    on_fail: OnFail | UnsetType = UNSET
    disconnect: Disconnect | UnsetType = UNSET
    on_crash: OnCrash | UnsetType = UNSET
    expect_reboot: bool | UnsetType = UNSET
    preemptible: bool | UnsetType = UNSET
    when: Criterion | UnsetType = UNSET
    until: Criterion | UnsetType = UNSET
    abort: Criterion | UnsetType = UNSET
    needs: Annotated[tuple[Name, ...], Meta(max_length=64)] = ()

    @property
    def kind(self) -> Kind:
        return next((kind for kind in self.KINDS if getattr(self, kind) is not UNSET), "nop")

    @property
    def label(self) -> str:
        """Return the part of a job's name that this step stands for."""
        return self.name or f"*{SHORT.get(self.kind, self.kind)}"

    @property
    def steps(self) -> tuple["Step", ...]:
        """Return the steps directly below, of a sequence, a parallel or a gang."""
        return self.sequence or self.parallel or tuple(self.gang.values() if self.gang else ())

    @property
    def body(self) -> "Step | None":
        """Return what a repeat or a matrix repeats."""
        if self.repeat:
            return self.repeat.of
        return self.matrix.of if self.matrix else None


def walk(step: Step, at: At) -> Iterator[tuple[At, Step]]:
    """Yield every step of the tree with its path, in the order of the document."""
    stack: list[tuple[At, Step]] = [(at, step)]
    while stack:
        here, node = stack.pop()
        yield here, node
        stack.extend(reversed(children(here, node)))


def children(at: At, step: Step) -> list[tuple[At, Step]]:
    """Return the steps directly below `step`, with their paths."""
    if step.body is not None:
        return [((*at, step.kind, "of"), step.body)]
    if step.gang:
        return [((*at, "gang", name), each) for name, each in step.gang.items()]
    return [((*at, step.kind, index), each) for index, each in enumerate(step.steps)]


def cells(matrix: Matrix) -> Iterator[dict[str, AxisValue]]:
    """Yield the combinations of the axes that are not excluded."""
    names = list(matrix.axes)
    total = prod(len(axis) for axis in matrix.axes.values())
    for number in range(total):
        cell: dict[str, AxisValue] = {}
        for name in reversed(names):
            number, index = divmod(number, len(matrix.axes[name]))
            cell[name] = matrix.axes[name][index]
        cell = {name: cell[name] for name in names}
        if not any(excludes(rule, cell) for rule in matrix.exclude):
            yield cell


def excludes(rule: dict[str, AxisValue], cell: dict[str, AxisValue]) -> bool:
    return bool(rule) and all(cell.get(name) == value for name, value in rule.items())


def count_jobs(step: Step, most: int = MAX_JOBS) -> int:
    """Return how many jobs `step` becomes, barriers not counted; above `most` it is a bound."""
    if step.repeat:
        return step.repeat.times * count_jobs(step.repeat.of, most)
    if step.matrix:
        total = prod(len(axis) for axis in step.matrix.axes.values())
        if total <= most:
            total = sum(1 for _ in cells(step.matrix))
        return total * count_jobs(step.matrix.of, most)
    if step.steps:
        return sum(count_jobs(each, most) for each in step.steps)
    return 1
