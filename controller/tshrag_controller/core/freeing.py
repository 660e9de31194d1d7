"""PURE: would all of a gang have places, were these attempts over? And who of them is not needed?

DUTs, slots and resources of hosts are looked at together, as when a gang is given its places
(`seating`): one victim alone may free nothing that helps, and two may free the same.
"""

from collections.abc import Callable, Container, Sequence

from tshrag_common.ids import AgentId, DutId
from tshrag_controller.core.claims import Claim
from tshrag_controller.core.giving_way import Holding, Victim
from tshrag_controller.core.lab import Attempt, Job, Lab, NeedKey
from tshrag_controller.core.packing import Ask, Option, pack
from tshrag_controller.core.seating import left_on, options, uses_of

MOST_TOGETHER = 32
"""Victims that are looked at for one gang, those that lose least."""
MOST_STEPS = 2_000

May = Callable[[Holding, Claim, NeedKey], bool]
Frees = Callable[[Claim, NeedKey, AgentId, DutId | None, Sequence[Attempt]], bool]


class Room:
    """The places of one gang: those that are free, and those that others would give back."""

    def __init__(
        self, lab: Lab, claim: Claim, aside: Container[DutId], may: May, frees: Frees
    ) -> None:
        self._lab, self._claim, self._may, self._frees = lab, claim, may, frees
        self._asks = list(zip(claim.gang, claim.keys, strict=True))
        self._free = {
            job.id: [each for each in options(lab, claim.run, job) if each.dut not in aside]
            for job in claim.gang
        }

    def is_useful(self, victim: Victim) -> bool:
        """Tell whether anything that it has would do for one of the gang."""
        return any(self._given_back(job, key, [victim]) for job, key in self._asks)

    def fewest(self, victims: Sequence[Victim]) -> list[Victim] | None:
        """Return those of `victims` that have to end, none of whom can be spared; None: no use.

        The last ones are spared first: they lose most.
        """
        chosen = list(victims)
        if self.seats(chosen) is None:
            return None
        for victim in reversed(victims):
            rest = [each for each in chosen if each is not victim]
            if self.seats(rest) is not None:
                chosen = rest
        return chosen

    def places(
        self, victims: Sequence[Victim]
    ) -> tuple[tuple[DutId, ...], tuple[tuple[AgentId, int], ...]]:
        """Return the DUTs, and the slots of hosts, that the gang has without `victims`."""
        seats, slots = self.seats(victims) or {}, dict[AgentId, int]()
        for job in self._claim.gang:
            agent, dut = seats[job.id]
            if dut is None:
                slots[agent] = slots.get(agent, 0) + self._claim.run.spec(job).need.slots
        duts = sorted(each.dut for each in seats.values() if each.dut is not None)
        return tuple(duts), tuple(sorted(slots.items()))

    def seats(self, victims: Sequence[Victim]) -> dict[str, Option] | None:
        """Return a place for each of the gang without `victims`; None: none was found."""
        asks = [self._ask(job, key, victims) for job, key in self._asks]
        if not all(ask.options for ask in asks):
            return None
        hosts = sorted({option.agent for ask in asks for option in ask.options})
        return pack(asks, {host: self._left(host, victims) for host in hosts}, MOST_STEPS)

    def _ask(self, job: Job, key: NeedKey, victims: Sequence[Victim]) -> Ask:
        need = self._claim.run.spec(job).need
        found = dict.fromkeys((*self._free[job.id], *self._given_back(job, key, victims)))
        return Ask(job.id, uses_of(need), list(found))

    def _given_back(self, job: Job, key: NeedKey, victims: Sequence[Victim]) -> list[Option]:
        if self._claim.run.spec(job).need.wants_dut:
            holdings = (Holding(each, attempt) for each in victims for attempt in each.attempts)
            return [
                Option(each.attempt.agent, each.attempt.dut)
                for each in holdings
                if each.attempt.dut is not None and self._may(each, self._claim, key)
            ]
        attempts = [attempt for each in victims for attempt in each.attempts]
        hosts = sorted({attempt.agent for attempt in attempts})
        return [Option(h) for h in hosts if self._frees(self._claim, key, h, None, attempts)]

    def _left(self, host: AgentId, victims: Sequence[Victim]) -> dict[str, float]:
        """Return what a host has left without `victims`."""
        left = left_on(self._lab, host, self._claim.run)
        for attempt in (attempt for each in victims for attempt in each.attempts):
            if attempt.agent == host:
                job = self._lab.jobs[attempt.job]
                need = self._lab.runs[job.run].spec(job).need
                for name, amount in uses_of(need).items():
                    left[name] = left.get(name, 0) + amount
        return left
