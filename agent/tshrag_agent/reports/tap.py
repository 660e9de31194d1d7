"""All samples of one attempt: what it says in its output, its files and its socket."""

from tshrag_agent.attempts.metric_gate import MetricGate
from tshrag_agent.attempts.metric_lines import MetricLines
from tshrag_agent.reports.batcher import Batcher
from tshrag_common.clock import Clock
from tshrag_common.commands import StartAttempt
from tshrag_common.jobs import JobSpec
from tshrag_common.metrics import SampleBatch


class SampleTap:
    """Where the samples of one attempt come together, until they are put into the journal."""

    def __init__(self, start: StartAttempt, spec: JobSpec, clock: Clock) -> None:
        self._clock = clock
        self._batches: list[SampleBatch] = []
        self._batcher = Batcher(clock, self._batches.append)
        self.source = self._batcher.source(start.run, start.job, start.attempt, start.dut or "")
        self.gate = MetricGate(self.source.add, declared=spec.metrics, namespace=spec.namespace)
        self._lines = {name: MetricLines(self.gate) for name in ("stdout", "stderr")}

    def feed(self, stream: str, data: bytes) -> None:
        """Look for samples in output."""
        self._lines[stream].feed(data, self._clock.now())

    def take(self, all_of_it: bool) -> list[SampleBatch]:
        """Return batches that are full or old, or all that there is."""
        if all_of_it:
            self.source.flush()
        else:
            self._batcher.flush_due()
        if not self._batches:
            return []
        taken = self._batches.copy()
        self._batches.clear()
        return taken

    def close(self) -> None:
        """Take last lines that nothing ended."""
        for lines in self._lines.values():
            lines.close(self._clock.now())
        self.source.flush()
