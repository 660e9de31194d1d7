"""Controller -> agent: signed, possibly lost, repeated or late; fence and (epoch, n) sort it out.

One message holds everything that the leader decided for an agent in one turn. Specs are shared:
a StartAttempt points at one of the message's.
"""

from typing import Literal

import msgspec

from tshrag_common.actions import Capture
from tshrag_common.channel.wants import AnyWant
from tshrag_common.ids import AgentId, DutId, Epoch, Fence, JobId, OrgId, RunId
from tshrag_common.jobs import JobSpec, Way


class Mate(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One of those that start together, and where: the job itself is among them."""

    role: str
    job: JobId
    agent: AgentId
    fence: Fence
    dut: DutId | None = None


class StartAttempt(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="start"):
    """Try this job. ``spec`` is an index into the specs of the message."""

    fence: Fence
    org: OrgId
    run: RunId
    job: JobId
    attempt: int  # counts from 1
    name: str
    spec: int
    env: dict[str, str] = {}  # of the planned job
    dut: DutId | None = None
    run_hosts: tuple[str, ...] = ()
    run_duts: tuple[str, ...] = ()
    seed: int = 4242
    lease_s: float = 0.0  # without an answered heartbeat; 0: until its own time limit
    mates: tuple[Mate, ...] = ()  # of its gang, in the order of the plan, itself too


class CancelAttempt(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="cancel"):
    """End this attempt and everything of it; report it ended either way."""

    fence: Fence
    cause: Literal["cancelled", "timeout", "lost"] = "cancelled"


class Questions(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a DUT is asked before its new holder; the answers are artifacts of an attempt."""

    job: JobId
    attempt: int
    runtime: Way
    asked: tuple[Capture, ...]


class HoldDut(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="hold"):
    """A person holds a DUT, until an instant; the same fence with a higher ``rev`` changes that.

    ``left_us`` is what was left of it when this was sent: the agent counts by its own clock.
    ``shared``: ``org/name``, or ``org`` for all of it.
    """

    fence: Fence
    rev: int
    dut: DutId
    lease: str
    org: OrgId
    by: str
    until: int
    left_us: int
    shared: tuple[str, ...] = ()
    questions: Questions | None = None  # asked once, while the holder gets it

    @property
    def owner(self) -> str:
        return f"{self.org}/{self.by}"


class FreeDut(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="free"):
    """The person with this fence does not hold the DUT any more: what they have open ends."""

    fence: Fence


class Sync(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="sync"):
    """All that the agent should have. What it has beyond it ends; what it lacks starts.

    An attempt that the agent knows as ended is not started again: its report is on its way.
    ``keep`` names attempts too: those whose starts went ahead, where one message cannot hold all.
    """

    attempts: tuple[StartAttempt, ...]
    keep: tuple[Fence, ...] = ()
    leases: tuple[HoldDut, ...] = ()  # of people; one that is not named has ended
    cancels: tuple[Fence, ...] = ()  # attempts to be ended and told of, known there or not


class Drain(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="drain"):
    """Take nothing new (or, with ``on`` false, take work again)."""

    on: bool = True


class ServeChannel(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="channel"):
    """Serve this channel of a person. ``fence`` is that of his lease; 0: he may only watch."""

    org: OrgId
    person: str
    session: str
    want: AnyWant
    dut: DutId | None = None
    fence: Fence = Fence(0)


class RunDrill(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="drill"):
    """Suffer this on purpose: die by SIGKILL, or be without the bus for so long.

    An agent obeys only where its own settings allow drills. A lost one is not said again.
    """

    what: Literal["kill", "cut"]
    seconds: float = 0.0


AnyCommand = (
    StartAttempt | CancelAttempt | Sync | Drain | HoldDut | FreeDut | ServeChannel | RunDrill
)


class CommandBatch(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One message on ``cmd``; ``(epoch, n)`` only grows, an agent drops what is not newer."""

    epoch: Epoch
    n: int
    agent: AgentId
    commands: tuple[AnyCommand, ...]
    specs: tuple[JobSpec, ...] = ()
