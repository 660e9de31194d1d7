"""What is known of an attempt while it lives; the report of its end is made of it."""

from dataclasses import dataclass, field
from typing import Literal

from tshrag_common.errors import ErrorReport
from tshrag_common.ids import Fence
from tshrag_common.reports import BoardClock, Ended, MetricNotice, Outcome, OutputEnd, Usage

NOTES_MOST = 20


@dataclass
class AttemptRecord:
    """Mutable, owned by one attempt; its steps fill it in."""

    outcome: Outcome = "passed"
    error: ErrorReport | None = None
    started_at: int = 0
    exit_code: int | None = None
    signal: int = 0
    samples_from: int = 0
    samples_upto: int = 0
    output_upto: int = 0
    usage: Usage = field(default_factory=Usage)
    stdout: OutputEnd = field(default_factory=OutputEnd)
    stderr: OutputEnd = field(default_factory=OutputEnd)
    stopped: tuple[str, ...] = ()
    notices: tuple[MetricNotice, ...] = ()
    dut_notes: list[str] = field(default_factory=list)
    carries: tuple[str, ...] | None = None
    owes: tuple[str, ...] | None = None
    setup: Literal["", "made", "found", "failed"] = ""
    setup_us: int = 0
    clock: BoardClock | None = None

    def fail(self, outcome: Outcome, error: ErrorReport) -> None:
        """Note how it ended; what was noted first stays, unless nothing had gone wrong yet."""
        if self.outcome == "passed":
            self.outcome, self.error = outcome, error

    def note_dut(self, line: str) -> None:
        """Note what happened to its DUT, the first few times."""
        if len(self.dut_notes) < NOTES_MOST:
            self.dut_notes.append(line)

    def ended(self, fence: Fence, at: int) -> Ended:
        return Ended(
            at=at,
            fence=fence,
            outcome=self.outcome,
            started_at=self.started_at,
            exit_code=self.exit_code,
            signal=self.signal,
            error=self.error,
            samples_upto=self.samples_upto,
            output_upto=self.output_upto,
            usage=self.usage,
            stdout=self.stdout,
            stderr=self.stderr,
            stopped=self.stopped,
            notices=self.notices,
            dut_notes=tuple(self.dut_notes),
            carries=self.carries,
            setup=self.setup,
            setup_us=self.setup_us,
            clock=self.clock,
            owes=self.owes,
            samples_from=self.samples_from,
        )
