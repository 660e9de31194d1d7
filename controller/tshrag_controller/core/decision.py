"""A decision: events that happened and effects to carry out, made against the Lab as it becomes.

`happen` applies an event at once, so that the next line of a decision, and the next decision of
the turn, see it. Nothing of it leaves the house before the engine has the frame in the LOG; if
the LOG refuses it, the whole Lab is dropped with it.
"""

from typing import Literal

import msgspec

from tshrag_common.commands import RunDrill, ServeChannel
from tshrag_common.errors import LabError, Unavailable
from tshrag_common.ids import AgentId, Fence, RunId
from tshrag_controller.core.apply import apply
from tshrag_controller.core.events import AnyEvent
from tshrag_controller.core.lab import Lab


class SendStart(msgspec.Struct, frozen=True):
    """Tell the agent to start the attempt with this fence."""

    agent: AgentId
    fence: Fence


class SendCancel(msgspec.Struct, frozen=True):
    """Tell the agent to end the attempt with this fence."""

    agent: AgentId
    fence: Fence
    cause: Literal["cancelled", "timeout", "lost"] = "cancelled"


class SendSync(msgspec.Struct, frozen=True):
    """Tell the agent all that it should have."""

    agent: AgentId


class SendHold(msgspec.Struct, frozen=True):
    """Tell the agent who holds a DUT of it under this fence, and until when."""

    agent: AgentId
    fence: Fence


class SendRelease(msgspec.Struct, frozen=True):
    """Tell the agent that the person with this fence does not hold the DUT any more."""

    agent: AgentId
    fence: Fence


class SendChannel(msgspec.Struct, frozen=True):
    """Tell the agent to serve a channel of a person."""

    agent: AgentId
    command: ServeChannel


class SendDrill(msgspec.Struct, frozen=True):
    """Tell the agent to suffer something on purpose."""

    agent: AgentId
    command: RunDrill


class JudgeRun(msgspec.Struct, frozen=True):
    """Hold the criteria of a run against its samples, all of which are stored."""

    run: RunId


class ForgetRun(msgspec.Struct, frozen=True):
    """The run is final and nothing of it lives: it may leave the memory."""

    run: RunId


Effect = (
    SendStart
    | SendCancel
    | SendSync
    | SendHold
    | SendRelease
    | SendChannel
    | SendDrill
    | JudgeRun
    | ForgetRun
)


class BrokenLab(RuntimeError):
    """An event that the Lab cannot take: a bug of ours; the leader starts anew from the LOG."""


class Decision:
    """What a turn has decided so far. `now` is integer microseconds UTC, one value a turn."""

    def __init__(self, lab: Lab, now: int) -> None:
        self.lab, self.now = lab, now
        lab.indexes.now = now
        self.events: list[AnyEvent] = []
        self.effects: list[Effect] = []

    def happen(self, event: AnyEvent) -> None:
        try:
            apply(self.lab, event, self.now)
        except (LabError, LookupError) as error:
            raise BrokenLab(f"{type(event).__name__}: {error}") from error
        self.events.append(event)

    def then(self, effect: Effect) -> None:
        self.effects.append(effect)


class NotLeading(Unavailable):
    """Only the leader decides; a standby answers questions."""

    code = "not_leading"


class Reading(Decision):
    """What a standby hands to a question: the Lab to read, and nothing to decide."""

    def happen(self, event: AnyEvent) -> None:
        raise NotLeading("", f"a standby cannot decide {type(event).__name__}", "ask again")
