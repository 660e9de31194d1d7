"""PURE: a run as it is watched: counts, what runs where and since when, what happened last."""

from collections import deque
from collections.abc import Iterable

from tshrag_common.states import RUN, RunState
from tshrag_common.views import JobView, Moved, News, RunView

LIVE = ("assigned", "preparing", "running", "collecting")
LAST = 8


class Happened:
    """One job that moved, when."""

    def __init__(self, at: int, moved: Moved) -> None:
        self.at, self.moved = at, moved


class Board:
    """Takes the run as it stands and news of it, in the order in which they come."""

    def __init__(self) -> None:
        self.id = self.name = self.state = self.reason = ""
        self.total = self.started_at = 0
        self.counts: dict[str, int] = {}
        self.live: dict[str, Happened] = {}
        self.last: deque[Happened] = deque(maxlen=LAST)

    @property
    def is_final(self) -> bool:
        return bool(self.state) and RUN.is_final(RunState(self.state))

    @property
    def ended(self) -> int:
        """Return how many jobs are final."""
        return sum(count for state, count in self.counts.items() if _is_end(state))

    def stands(self, run: RunView) -> None:
        """Take the run as it stands."""
        self.id, self.name, self.state, self.reason = run.id, run.name, run.state, run.reason
        self.total, self.started_at, self.counts = run.total, run.started_at, dict(run.counts)
        if self.is_final:
            self.live.clear()

    def seed(self, jobs: Iterable[JobView]) -> None:
        """Take the jobs that were under way before the first news."""
        for job in jobs:
            if job.state in LIVE and job.attempts:
                newest = job.attempts[-1]
                place = newest.dut or newest.agent
                moved = Moved(job=job.id, name=job.name, state=job.state, place=place)
                since = job.started_at or newest.assigned_at
                self.live.setdefault(job.id, Happened(since, moved))

    def hear(self, news: News) -> list[Happened]:
        """Take what moved; return it."""
        self.state, self.counts = news.state, dict(news.counts)
        self.reason = news.reason or self.reason
        if not self.started_at and news.state == "running":
            self.started_at = news.at
        happened = [Happened(news.at, moved) for moved in news.moved]
        for each in happened:
            self._move(each)
        if self.is_final:
            self.live.clear()
        return happened

    def _move(self, each: Happened) -> None:
        self.last.append(each)
        job = each.moved.job
        if each.moved.state not in LIVE:
            self.live.pop(job, None)
            return
        before = self.live.get(job)
        if before is None or (each.moved.state == "running" and before.moved.state != "running"):
            self.live[job] = each
        else:
            self.live[job] = Happened(before.at, each.moved)


def _is_end(state: str) -> bool:
    return state not in (*LIVE, "waiting")
