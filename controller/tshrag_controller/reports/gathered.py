"""PURE: all that a run report is made of, gathered by whoever can ask the lab.

The same value gives the same report, byte by byte: no clock, no host name, no order of a set.
"""

from collections.abc import Sequence

import msgspec

from tshrag_common.criteria import Evidence
from tshrag_common.metrics import RESERVED
from tshrag_common.views import JobView, RunView, SeriesView

FORMAT = "tshrag.run-report/1"
BAD = ("failed", "error", "timeout", "expired", "cancelled")


class LogTail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The end of one stream of a job that did not pass: the last of ``total`` bytes."""

    job: str
    attempt: int
    stream: str
    total: int
    data: bytes = b""


class HostView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A host that jobs of the run were on, and what its agent was."""

    agent: str
    version: str = ""
    platform: str = ""


class RunReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A finished run with all its jobs. ``jobs`` by serial, ``series`` by key.

    ``omitted`` says what was left out because there was too much of it.
    """

    run: RunView
    jobs: tuple[JobView, ...]
    series: tuple[SeriesView, ...] = ()
    tails: tuple[LogTail, ...] = ()
    hosts: tuple[HostView, ...] = ()
    profile_digest: str = ""
    version: str = ""  # of the controller
    omitted: tuple[str, ...] = ()
    format: str = FORMAT


def began_at(report: RunReport) -> int:
    """Return when the run began; its submission where no job did."""
    return report.run.started_at or report.run.created_at


def ended_at(report: RunReport) -> int:
    """Return when the last thing of the run ended."""
    return max([report.run.ended_at, *(job.ended_at for job in report.jobs), began_at(report)])


def on_clock(report: RunReport) -> list[JobView]:
    """Return the jobs that took time, in the order in which they began."""
    begun = [job for job in report.jobs if job.started_at]
    return sorted(begun, key=lambda job: (job.started_at, job.serial))


def places(job: JobView) -> str:
    """Return where a job was, attempt by attempt."""
    return ", ".join(dict.fromkeys(each.dut or each.agent for each in job.attempts))


def judged_first(
    evidence: Sequence[Evidence], series: Sequence[SeriesView]
) -> tuple[SeriesView, ...]:
    """Put what the verdict rests on first, what the lab itself measured beside it last."""
    judged = {each.metric for each in evidence}

    def weight(each: SeriesView) -> tuple[bool, bool]:
        return each.key not in judged, each.key.partition(".")[0] in RESERVED

    return tuple(sorted(series, key=weight))


class SetupsOf(msgspec.Struct, frozen=True):
    """What the groups of a run have cost and saved."""

    made: int
    avoided: int
    failed: int
    saved_s: float


def setups_of(report: RunReport) -> SetupsOf | None:
    """Return what came of the setups of a run; None where it shared none."""
    attempts = [each for job in report.jobs for each in job.attempts if each.setup]
    if not attempts:
        return None
    found = [each for each in attempts if each.setup == "found"]
    saved_us = sum(each.setup_us for each in found)
    failed = sum(each.setup == "failed" for each in attempts)
    made = len(attempts) - len(found) - failed
    return SetupsOf(made, len(found), failed, saved_us / 1e6)
