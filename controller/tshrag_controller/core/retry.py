"""PURE: another attempt, after what and when, or give up."""

from tshrag_common.digest import mix
from tshrag_common.ids import Fence
from tshrag_common.jobs import JobSpec, RetryOn
from tshrag_controller.core.lab import Attempt, Job

FIRST_S = 2.0
MOST_S = 30.0
JITTER_RATIO = 0.2
LAB_FAULTS: tuple[RetryOn, ...] = ("error", "lost")
"""After these a job is tried again unless its profile says otherwise."""
REFUSALS = 10
"""How often hosts may refuse a job before that is an error; a refusal is no attempt."""


def backoff_s(faults: int, fence: Fence) -> float:
    """Return the pause after fault number `faults` (from 1): 2, 4, 8 .. 30 s, +-20 %.

    The jitter comes from the fence, so that a replay finds the same.
    """
    plain = min(MOST_S, FIRST_S * float(1 << min(max(0, faults - 1), 16)))
    chance = mix(fence) / (1 << 64)
    return plain * (1 + JITTER_RATIO * (2 * chance - 1))


def reasons(spec: JobSpec) -> tuple[RetryOn, ...]:
    """Return the outcomes of an attempt after which there may be another."""
    return spec.retry_on or LAB_FAULTS


def note_fault(job: Job, spec: JobSpec, attempt: Attempt, outcome: str) -> None:
    """Count an attempt that calls for another, and where it was. Part of `apply`."""
    is_fault = outcome in LAB_FAULTS
    if outcome == "refused":
        job.refusals += 1
    elif is_fault or outcome in reasons(spec):
        job.faults += 1
    else:
        return
    place = attempt.dut or attempt.agent
    is_elsewhere = is_fault or outcome == "refused" or spec.retry_elsewhere
    if is_elsewhere and place not in job.avoid:
        job.avoid = (*job.avoid, place)
