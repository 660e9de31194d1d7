"""PURE: the DUT of a job that failed is handed, as it is, to who submitted the run.

By a lease like any other: it is renewed, returned and runs out in the same way. While jobs of the
run still come to the DUT it is not frozen: they would wait for their own run.
"""

from tshrag_controller.core.decision import Decision
from tshrag_controller.core.lab import Attempt, Job
from tshrag_controller.core.lease_events import LeaseAsked
from tshrag_controller.core.line import grant

OUTCOMES = ("failed", "timeout")


def freeze(decision: Decision, job: Job, attempt: Attempt) -> None:
    """Give the lease where the profile wants that, and the DUT is free; else do nothing."""
    lab = decision.lab
    run = lab.runs.get(job.run)
    if run is None or attempt.outcome not in OUTCOMES or attempt.dut is None:
        return
    spec, row = run.spec(job), lab.duts.get(attempt.dut)
    if not spec.freeze_s or row is None or row.holder or row.kept_by or row.gone:
        return
    asked = LeaseAsked(
        lease=f"freeze-{job.id.removeprefix('job-')}.{attempt.number}",
        org=run.org,
        by=run.by,
        alive_until=decision.now,
        for_us=round(spec.freeze_s * 1e6),
        reason=f"{job.id} {attempt.outcome}; kept as it is",
    )
    grant(decision, asked, row)
