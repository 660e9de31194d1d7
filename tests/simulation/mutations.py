"""Broken labs, to see that the checker sees: each mutation breaks one rule in the wiring only."""

from typing import Any, Literal, get_args

import msgspec

from tshrag_agent.attempts.fences import Fences
from tshrag_agent.attempts.recover import Found
from tshrag_common import wire
from tshrag_common.ids import DutId
from tshrag_common.reports import HeartbeatAnswer, SamplesMessage
from tshrag_controller.store.hot import HotStore, Stored
from tshrag_controller.store.store import Store

Mutation = Literal[
    "no-fence",  # neither agent nor DUT minds fences, and no command is too old
    "no-dedup",  # samples count as often as they come
    "early-confirm",  # agents forget what nobody has stored yet
    "no-sync",  # the journal says so before the disk does
    "no-recover",  # an agent that starts does not look at what it left alive
    "no-term",  # no command is too old, whoever sent it; fences of DUTs hold
    "wall-clock",  # the monotonic clock jumps with the wall clock
]
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

    def store(self, message: SamplesMessage) -> Stored:
        self.set_mark(message.agent, "samples", message.spool, message.first_seq - 1)
        return super().store(message)
