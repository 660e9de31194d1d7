"""Broken labs, to see that the checker sees: each mutation breaks one rule in the wiring only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import msgspec

from tshrag_agent.attempts.fences import Fences
from tshrag_agent.attempts.recover import Found
from tshrag_common import contact, wire
from tshrag_common.ids import AgentId, DutId, Fence
from tshrag_common.reports import Heartbeat, HeartbeatAnswer, SamplesMessage
from tshrag_common.states import AttemptCause
from tshrag_controller.core import on_attempt, queues, schedule
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.lab import Attempt, Job, Lab, Order, Run
from tshrag_controller.intake import beats
from tshrag_controller.outbox import Outbox
from tshrag_controller.store.hot import HotStore, Stored
from tshrag_controller.store.marks import Standing
from tshrag_controller.store.store import Store

Mutation = Literal[
    "no-fence",  # neither agent nor DUT minds fences, and no command is too old
    "no-dedup",  # samples count as often as they come
    "early-confirm",  # agents forget what nobody has stored yet
    "no-sync",  # the journal says so before the disk does
    "no-recover",  # an agent that starts does not look at what it left alive
    "no-term",  # no command is too old, whoever sent it; fences of DUTs hold
    "wall-clock",  # the monotonic clock jumps with the wall clock
    "no-settle",  # a verdict does not wait for samples and output
    "half-gang",  # jobs of a gang get places one by one
    "last-first",  # who came last is served first
    "no-holder",  # whoever tells the end of an attempt is believed
    "early-grant",  # what an agent holds is given up after half of its time
    "no-guard",  # what cannot be read is an exception
    "their-clock",  # who is silent is told by the wall clock of who beats
]
BREAKS: dict[Mutation, str] = {
    "no-settle": "I13",
    "half-gang": "I17",
    "last-first": "I27",
    "no-holder": "I24",
    "early-grant": "I6",
    "no-guard": "I19",
    "their-clock": "I20",
}
"""What must break, and not just anything."""
MUTATIONS: tuple[Mutation, ...] = get_args(Mutation)


class Rules:
    """The rules of a lab; all of them hold unless one is `broken`."""

    def __init__(self, broken: Mutation | None = None) -> None:
        self._broken = broken
        self.syncs = broken != "no-sync"
        self.duts_check_fences = broken != "no-fence"
        self.has_monotonic_clocks = broken != "wall-clock"

    def fences(self, heard: tuple[int, int], duts: Any) -> Fences:
        broken = {"no-fence": _NoFences, "no-term": _NoTerms}.get(self._broken or "", Fences)
        return broken(heard, duts)

    def found(self, found: Found) -> Found:
        return Found() if self._broken == "no-recover" else found

    def hear(self, data: bytes) -> bytes:
        """Return what a process hears instead of `data`."""
        if self._broken != "early-confirm" or b'"epoch"' not in data[:10]:
            return data
        try:
            answer = msgspec.json.decode(data, type=HeartbeatAnswer)
        except msgspec.DecodeError:
            return data
        most = 1 << 40
        early = msgspec.structs.replace(
            answer, reports_upto=most, samples_upto=most, output_upto=most
        )
        return wire.HEARTBEAT_ANSWER.encode(early)

    def opened(self, store: Store) -> None:
        """Change a store that a controller has opened."""
        if self._broken == "no-dedup":
            store._hot = _NoDedup(store._connection)


class _NoTerms(Fences):
    """Obeys leaders that were deposed, and what comes a second time."""

    def hear(self, epoch: int, n: int) -> bool:
        super().hear(epoch, n)
        return True


class _NoFences(_NoTerms):
    """Takes whatever comes."""

    def check(self, dut: DutId, fence: int) -> None:
        return None


class _NoDedup(HotStore):
    """Takes every message for the next one."""

    def store(self, message: SamplesMessage, *, ahead: bool = False) -> Stored:
        place = (message.agent, "samples", message.spool)
        before = self.marks.standing(*place)
        self.marks.put(*place, before, Standing(message.first_seq - 1))
        return super().store(message, ahead=ahead)


@contextmanager
def applied(mutation: Mutation | None) -> Iterator[None]:
    """Take a rule out of the rooms of the product themselves, for as long as the block lasts."""
    changes = _CHANGES.get(mutation or "", ())
    kept = [(room, name, getattr(room, name)) for room, name, _ in changes]
    for room, name, change in changes:
        setattr(room, name, change(getattr(room, name)))
    try:
        yield
    finally:
        for room, name, was in kept:
            setattr(room, name, was)


def _last_first(was: Callable[..., Order]) -> Callable[..., Order]:
    def order(lab: Lab, run: Run, job: Job) -> Order:
        points, deadline, number, serial = was(lab, run, job)
        return points, deadline, -number, -serial

    return order


def _believe(was: Callable[..., Attempt | None]) -> Callable[..., Attempt | None]:
    def holder(
        decision: Decision, agent: AgentId, seq: int, fence: Fence, cause: AttemptCause
    ) -> Attempt | None:
        attempt = decision.lab.attempts.get(fence)
        return was(decision, attempt.agent if attempt else agent, seq, fence, cause)

    return holder


def _by_their_clock(was: Callable[..., None]) -> Callable[..., None]:
    def note(self: beats.Beats, beat: Heartbeat) -> None:
        was(self, beat)
        self._heard[beat.agent] += (beat.at - self._clock.now()) / 1e6

    return note


def _one_by_one(was: Callable[..., list[Job]]) -> Callable[..., list[Job]]:
    return lambda *args: was(*args)[:1]


def _throw(_: object) -> Callable[..., None]:
    def set_aside(_self: object, subject: str, reason: str, data: bytes) -> None:
        raise ValueError(f"{subject}: {reason}: {len(data)}")

    return set_aside


_CHANGES: dict[str, tuple[tuple[Any, str, Callable[[Any], Any]], ...]] = {
    "no-settle": ((on_attempt, "is_stored", lambda _: lambda lab, attempt: True),),
    "half-gang": ((schedule, "ready_of", _one_by_one),),
    "last-first": ((queues, "order_of", _last_first),),
    "no-holder": ((on_attempt, "holder", _believe),),
    "early-grant": (
        (beats, "LOST_S", lambda lost_s: lost_s / 2),
        (contact, "GRANT_S", lambda _: -5.0),
    ),
    "no-guard": ((Outbox, "set_aside", _throw),),
    "their-clock": ((beats.Beats, "note", _by_their_clock),),
}
