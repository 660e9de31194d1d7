"""PURE: the DUT of a job that failed is handed, as it is, to who submitted the run.

By a lease like any other: it is renewed, returned and runs out in the same way. While jobs of the
run still come to the DUT it is not frozen: they would wait for their own run.

A job whose commands passed may still fail by a criterion, and that is told when all of the run has
ended. Until then the run keeps the DUT, for as long as it would be frozen and no longer.
"""

from tshrag_common.commands import Questions
from tshrag_common.criteria import Evidence
from tshrag_common.ids import DutId, RunId
from tshrag_common.jobs import JobSpec
from tshrag_common.states import RUN
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.freeze_events import BoardKept, BoardLetGo
from tshrag_controller.core.lab import Attempt, Awaited, Job, Run
from tshrag_controller.core.lease_events import LeaseAsked
from tshrag_controller.core.line import grant

OUTCOMES = ("failed", "timeout")
"""An attempt that ends so has asked its DUT already."""


def freeze(decision: Decision, job: Job, attempt: Attempt) -> None:
    """Give the lease where the profile wants that, and the DUT is free; else do nothing."""
    run = decision.lab.runs.get(job.run)
    is_aborted = attempt.outcome == "cancelled" and job.stop == "fail"
    if run is None or attempt.dut is None or not run.spec(job).freeze_s:
        return
    if attempt.outcome not in OUTCOMES and not is_aborted:
        return
    if attempt.dut in run.awaits:
        decision.happen(BoardLetGo(run=run.id, dut=attempt.dut))
    why = f"{job.id} {'aborted' if is_aborted else attempt.outcome}"
    _hand(decision, run, attempt.dut, Awaited(job.id, attempt.number, 0), why, ask=is_aborted)


def keep_for_verdict(decision: Decision, job: Job, attempt: Attempt) -> None:
    """Keep the DUT of an attempt that has ended well where a criterion may still fail its job."""
    run = decision.lab.runs[job.run]
    freeze_s, dut = run.spec(job).freeze_s, attempt.dut
    is_well = attempt.outcome == "passed" or job.stop in ("pass", "skip")
    if dut is None or not freeze_s or not is_well or RUN.is_final(run.state):
        return
    if all(each.severity == "minor" for each in run.criteria):
        return
    until = decision.now + round(freeze_s * 1e6)
    decision.happen(BoardKept(run=run.id, dut=dut, job=job.id, attempt=attempt.number, until=until))


def hand_failed(
    decision: Decision, run: Run, kept: dict[DutId, Awaited], evidence: tuple[Evidence, ...]
) -> None:
    """Hand over what the run has kept for its verdict and a criterion has failed."""
    for failed in evidence:
        if failed.verdict != "fail" or failed.severity == "minor":
            continue
        for dut, what in kept.items():
            if _is_of(failed, dut, what):
                _hand(decision, run, dut, what, f"{run.id}: {failed.criterion} failed", ask=True)


def _is_of(failed: Evidence, dut: DutId, what: Awaited) -> bool:
    """Tell whether a criterion that failed speaks of a DUT: one of all the run speaks of each."""
    if failed.scope not in ("job", "dut"):
        return True
    names = {each.group for each in failed.groups if each.verdict == "fail"} or {failed.group}
    return (dut if failed.scope == "dut" else what.job) in names


def _hand(decision: Decision, run: Run, dut: DutId, what: Awaited, why: str, *, ask: bool) -> None:
    lab = decision.lab
    row = lab.duts.get(dut)
    if row is None or row.holder or row.kept_by or row.gone:
        return
    spec = run.spec(lab.jobs[what.job])
    asked = LeaseAsked(
        lease=f"freeze-{what.job.removeprefix('job-')}.{what.attempt}",
        org=run.org,
        by=run.by,
        alive_until=decision.now,
        for_us=round(spec.freeze_s * 1e6),
        reason=f"{why}; kept as it is"[:500],
    )
    grant(decision, asked, row, _questions(spec, what) if ask else None)


def _questions(spec: JobSpec, what: Awaited) -> Questions | None:
    if not spec.capture:
        return None
    return Questions(
        job=what.job, attempt=what.attempt, runtime=spec.need.target.runtime, asked=spec.capture
    )


def _verdict_due(decision: Decision, name: str) -> None:
    """Let go of a DUT that has waited for a verdict for long enough. A timer: ``run dut``."""
    run_id, _, dut = name.partition(" ")
    run = decision.lab.runs.get(RunId(run_id))
    what = run.awaits.get(DutId(dut)) if run is not None else None
    if run is not None and what is not None and what.until <= decision.now:
        decision.happen(BoardLetGo(run=run.id, dut=DutId(dut)))


TIMERS = {"verdict": _verdict_due}
