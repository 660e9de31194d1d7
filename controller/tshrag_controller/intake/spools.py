"""What agents say of their spools with every beat, and what they are asked to send again.

Each agent has three spools, and all of them change together when its journal is made anew. A
number counts only beside the id of its spool: what an old spool had stored tells nothing of what
a new one still has to bring.
"""

from collections.abc import Callable
from typing import Literal

from tshrag_common.clock import Clock
from tshrag_common.ids import AgentId
from tshrag_common.reports import Heartbeat, SpoolState

Kind = Literal["reports", "samples", "output"]
KINDS: tuple[Kind, ...] = ("reports", "samples", "output")
STUCK_S = 10.0
"""When nothing of a spool has come for so long although there is more, it was lost on the way."""

Place = tuple[AgentId, Kind]


class Spools:
    """Heard by beats; asked by those who take reports, samples and output in."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told: dict[AgentId, Heartbeat] = {}
        self._gaps: dict[Place, int] = {}
        self._waits: dict[Place, tuple[int, float]] = {}  # (how far we are, since when)
        self._listeners: list[Callable[[AgentId], None]] = []

    def on_change(self, listener: Callable[[AgentId], None]) -> None:
        """Have `listener` called when an agent has new spools, or is heard the first time."""
        self._listeners.append(listener)

    def hear(self, beat: Heartbeat) -> None:
        before = self._told.get(beat.agent)
        self._told[beat.agent] = beat
        if before is None or any(
            _of(before, kind).spool != _of(beat, kind).spool for kind in KINDS
        ):
            for listener in self._listeners:
                listener(beat.agent)

    def doubt(self, agent: AgentId) -> None:
        """Forget what an agent has said: something else came in; its next beat tells anew."""
        self._told.pop(agent, None)

    def is_known(self, agent: AgentId) -> bool:
        return agent in self._told

    def is_current(self, agent: AgentId, kind: Kind, spool: str) -> bool:
        """Tell whether `spool` is the one that the agent has now, as far as it has said."""
        beat = self._told.get(agent)
        return beat is not None and _of(beat, kind).spool == spool

    def confirmed(self, agent: AgentId, kind: Kind, spool: str) -> int:
        """Return how far the agent was told that its spool is stored: it has no more before."""
        beat = self._told.get(agent)
        if beat is None or _of(beat, kind).spool != spool:
            return 0
        return _of(beat, kind).confirmed

    def gap(self, agent: AgentId, kind: Kind, from_seq: int) -> None:
        """Note that records from `from_seq` on have not come; the next beat asks for them."""
        self._gaps[agent, kind] = from_seq

    def again(self, agent: AgentId, kind: Kind, have: int, whole: int | None = None) -> int:
        """Return the number from which a spool is to be sent again; 0: nothing is missing.

        `have` is the newest that is stored; before it something may be missing behind `whole`.
        """
        place = (agent, kind)
        gap = self._gaps.pop(place, 0)
        told = _of(self._told[agent], kind)
        if told.last <= have and gap <= (have if whole is None else whole):
            self._waits.pop(place, None)
            return 0
        now = self._clock.monotonic()
        known, since = self._waits.setdefault(place, (have, now))
        if gap or (known == have and now - since >= STUCK_S):
            self._waits[place] = (have, now)
            return gap or have + 1
        if known != have:
            self._waits[place] = (have, now)
        return 0


def _of(beat: Heartbeat, kind: Kind) -> SpoolState:
    state: SpoolState = getattr(beat, kind)
    return state
