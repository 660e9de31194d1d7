"""How long jobs took: of each kind of work the last few, from the projection and what ends now."""

from collections import deque

from tshrag_controller.core import events as e
from tshrag_controller.core.free_at import Span
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.specs import what_it_does
from tshrag_controller.log.frames import Frame
from tshrag_controller.store import why_rows
from tshrag_controller.store.store import Store

MOST_OF_ONE = 50
MOST_KINDS = 20_000
TELLING = ("passed", "failed")
"""Only what came to its own end tells how long such a thing takes."""


class Durations:
    """Medians and ranges by what a job does; a reader of the LOG, never asked by decisions."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, deque[int]] = {}

    async def recall(self) -> None:
        """Read what the projection still tells of earlier jobs."""
        for what, took in await self._store.query(why_rows.durations):
            self._add(what, took)

    def on_commit(self, lab: Lab, frame: Frame) -> None:
        """Take in the attempts that have ended in a frame; the Lab is as it is behind it."""
        for event in frame.events:
            if not isinstance(event, e.AttemptEnded) or event.ended.outcome not in TELLING:
                continue
            attempt = lab.attempts.get(event.ended.fence)
            job = lab.jobs.get(attempt.job) if attempt else None
            if attempt is not None and job is not None and attempt.started_at:
                what = what_it_does(lab.runs[job.run].spec(job))
                self._add(what, frame.at - attempt.started_at)

    def _add(self, what: str, took: int) -> None:
        if what not in self._known and len(self._known) >= MOST_KINDS:
            self._known.pop(next(iter(self._known)))
        self._known.setdefault(what, deque(maxlen=MOST_OF_ONE)).append(max(0, took))

    def typical(self, what: str) -> Span | None:
        """Return fast, median and slow of the last ones: a tenth is faster, a tenth slower."""
        known = self._known.get(what)
        if not known:
            return None
        ordered = sorted(known)
        last = len(ordered) - 1
        return Span(ordered[last // 10], ordered[last // 2], ordered[last - last // 10])
