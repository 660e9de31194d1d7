"""A store with a run in it, and messages of agents that belong to it."""

import itertools
from collections.abc import Sequence

from tests.support.builders import ORG, T0, TestLab, a_plan, a_spec
from tshrag_common import ids
from tshrag_common.ids import AgentId, RunId
from tshrag_common.jobs import JobSpec, Plan
from tshrag_common.metrics import MetricInfo, SampleBatch, Series, pack
from tshrag_common.reports import OutputBatch, OutputChunk, SamplesMessage
from tshrag_controller.core.events import AnyEvent
from tshrag_controller.log.frames import Frame
from tshrag_controller.store.store import Store

LATENCY = MetricInfo(key="net.latency", unit="ms")


class StoredLab(TestLab):
    """A TestLab whose frames go into a store."""

    __test__ = False

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self._written = 0

    async def write(self) -> None:
        """Write what has happened since the last time."""
        numbered = list(enumerate(self.frames, 1))[self._written :]
        self._written = len(self.frames)
        frames: list[tuple[int, Frame]] = []
        for sequence, (at, events) in numbered:
            known: tuple[AnyEvent, ...] = events  # type: ignore[assignment]  # TestLab says object
            frames.append((sequence, Frame(epoch=self.lab.epoch, at=at, ev_hi=0, events=known)))
        await self.store.project(frames)

    async def started_run(
        self, jobs: int = 1, number: int = 1, spec: JobSpec | None = None, **more: object
    ) -> RunId:
        """Return a run all of whose jobs are running on a1."""
        if AgentId("a1") not in self.lab.agents:
            self.hello(slots=100)
        plan: Plan = a_plan(*[()] * jobs, spec=spec or a_spec())
        run = self.submit(plan, number, **more)  # type: ignore[arg-type]  # fields of any type
        for serial in range(1, jobs + 1):
            self.started(self.fence(run, serial))
        await self.write()
        return run


def a_series(
    values: Sequence[float], info: MetricInfo = LATENCY, at: int = T0, step: int = 1000
) -> Series:
    return pack(info, itertools.islice(itertools.count(at, step), len(values)), values)


def a_batch(run: RunId, *series: Series, serial: int = 1, attempt: int = 1) -> SampleBatch:
    return SampleBatch(run=run, job=ids.job_of(run, serial), attempt=attempt, series=series)


def samples(
    *batches: SampleBatch, first: int = 1, agent: str = "a1", spool: str = "m1"
) -> SamplesMessage:
    return SamplesMessage(agent=AgentId(agent), spool=spool, first_seq=first, batches=batches)


def output(
    run: RunId, data: bytes, *, offset: int = 0, first: int = 1, serial: int = 1, attempt: int = 1,
    stream: str = "stdout", agent: str = "a1", spool: str = "o1",
) -> OutputBatch:  # fmt: skip
    chunk = OutputChunk(
        run=run, job=ids.job_of(run, serial), attempt=attempt,
        stream=stream,  # type: ignore[arg-type]  # tests try others
        offset=offset, data=data,
    )  # fmt: skip
    return OutputBatch(agent=AgentId(agent), spool=spool, first_seq=first, chunks=(chunk,))


__all__ = ["LATENCY", "ORG", "StoredLab", "a_batch", "a_series", "output", "samples"]
