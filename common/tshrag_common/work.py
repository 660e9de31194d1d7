"""PURE: a lab and its work as two files, to try schedulers with: LAB.toml and WORK.jsonl.

A line of WORK.jsonl is a job. Times are seconds: ``at`` from the beginning of the work, the rest
are durations. Written by hand, a line needs ``at`` and ``seconds`` only.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tshrag_common.ids import TOKEN
from tshrag_common.jobs import MAX_JOBS, Need

MOST_LINES = 1_000_000
YEAR_S = 366 * 86_400
"""No work is longer."""

Token = Annotated[str, Meta(pattern=TOKEN)]
Instant = Annotated[float, Meta(ge=0, le=YEAR_S)]
Count = Annotated[int, Meta(ge=1, le=100_000)]
Serial = Annotated[int, Meta(ge=0, le=MAX_JOBS)]


class WorkLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One job: when it was submitted, how long it ran, and what it needed.

    Lines with the same ``run`` are jobs of one run, numbered by ``serial``; a line without is a
    run of its own, ``count`` times. ``kind`` and ``group`` are short for what stands in ``need``:
    any DUT of that kind, jobs that share a setup of `setup_s` seconds.
    """

    at: Instant
    seconds: Instant  # without the setup
    name: str = "job"
    org: Token = "default"
    priority: Annotated[int, Meta(ge=0, le=100)] = 50
    run: str = ""
    serial: Serial = 0
    after: tuple[Serial, ...] = ()  # serials of its run that end before it starts
    gang: Serial = 0  # serial of the first of those that start together
    what: Literal["job", "sleep", "lease"] = "job"  # a sleep takes no place; a lease is a person's
    outcome: Literal["passed", "failed"] = "passed"
    kind: str = ""
    group: str = ""
    setup_s: Instant = 0.0
    need: Need = Need()
    count: Count = 1
    preemptible: bool = False  # it may give way, and begins anew then
    dut: str = ""  # of a lease: this one
    reserved: bool = False  # of a lease: promised from the beginning for then


class WorkDut(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``[[host.dut]]``: a board, or ``count`` equal ones called NAME-1, NAME-2, …"""

    name: Token
    kind: str
    count: Count = 1
    labels: dict[str, str] = {}
    transports: tuple[Literal["ssh", "serial", "local"], ...] = ("ssh",)
    can: tuple[str, ...] = ()


class WorkFaults(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``[faults]``: how often the lab fails an attempt; by the seed, the same each time."""

    ratio: Annotated[float, Meta(ge=0, le=1)] = 0.0  # of attempts, anywhere
    at: dict[str, Annotated[float, Meta(ge=0, le=1)]] = {}  # of those on this board or host
    seed: Annotated[int, Meta(ge=0, le=1 << 53)] = 1


class WorkHost(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``[[host]]``: a lab host, or ``count`` equal ones with as many boards each."""

    name: Token
    count: Count = 1
    slots: Annotated[int, Meta(ge=0, le=100_000)] = 2
    cores: Annotated[int, Meta(ge=1, le=100_000)] = 2
    memory_bytes: Annotated[int, Meta(ge=0)] = 0
    os: str = "linux"
    arch: str = "x86_64"
    labels: dict[str, str] = {}
    tools: tuple[str, ...] = ()
    resources: dict[str, float] = {}
    dut: tuple[WorkDut, ...] = ()
