"""PURE: the teardown of a group: when it is due, and what comes of it.

A group has ended when no job of it is open and its setup has stayed for a while behind the last.
Then a run of the lab undoes the setup, on that very DUT, behind all work that waits for it: it is
an attempt under a fence like any other, so nothing else is done with the DUT meanwhile, and it
survives whoever dies. What waits takes the DUT first, and undoes on its own what is there.
"""

import hashlib

from tshrag_common import ids
from tshrag_common.errors import ErrorReport
from tshrag_common.ids import DutId, OrgId, RunId
from tshrag_common.jobs import JobSpec, Need, Plan, PlannedJob, Target
from tshrag_common.profile import Profile, Role, canonical
from tshrag_common.schedule import Step
from tshrag_common.states import RUN, JobCause, JobState
from tshrag_controller.core.apply_teardown import WITHDRAWN
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.events import RunAdmitted
from tshrag_controller.core.follow import end_open_jobs
from tshrag_controller.core.intent_events import IntentSet
from tshrag_controller.core.lab import DutRow, Lab, Run, SetupStat, set_timer
from tshrag_controller.core.needs import away
from tshrag_controller.core.people import LAB
from tshrag_controller.core.teardown_events import TeardownEnded, TeardownOrdered

ROLE = "board"
ATTEMPTS = 3
"""For faults of the lab; a teardown that fails is not tried again by itself."""


def serve_teardowns(decision: Decision) -> None:
    """Look at the DUTs of which something has changed: order, withdraw, draw the consequence."""
    lab = decision.lab
    look = lab.indexes.undo_look
    while look:
        for name in sorted(look):
            look.discard(name)
            row = lab.duts.get(name)
            if row is not None:
                _serve(decision, row)


def _serve(decision: Decision, row: DutRow) -> None:
    if row.undo:
        _follow(decision, row)
        return
    due = due_at(decision.lab, row)
    if due is None:
        return
    if due > decision.now:
        set_timer(decision.lab, due, "teardown", row.dut.id)
    else:
        _order(decision, row)


def due_at(lab: Lab, row: DutRow) -> int | None:
    """Return when the setup of a free DUT is to be undone; None: not as things are."""
    if not row.dut.owes or row.holder or row.kept_by or away(lab.agents[row.agent], row):
        return None
    digest = row.dut.owes[0]
    if row.undo_failed == digest:
        return None  # its next user does it
    if digest not in row.dut.carries:
        return 0  # nobody will find it in place
    if lab.indexes.group_open.get(digest, 0):
        return None
    stat = lab.setups.get(digest, SetupStat())
    linger_s = stat.linger_s if stat.linger_s >= 0 else lab.policy.linger_s
    return stat.at + round(linger_s * 1e6)


def _order(decision: Decision, row: DutRow) -> None:
    lab, dut, digest = decision.lab, row.dut.id, row.dut.owes[0]
    told = f"{lab.sequence} {decision.now} {dut} {digest}".encode()
    chance = int.from_bytes(hashlib.sha256(told).digest()[:10])
    run = ids.new_run(decision.now // 1000, chance)
    stat = lab.setups.get(digest, SetupStat())
    name = f"teardown {stat.key}".strip()[:64]
    decision.happen(_admitted(lab, run, stat.org, name, dut))
    decision.happen(TeardownOrdered(run=run, dut=dut, digest=digest))


def _admitted(lab: Lab, run: RunId, org: OrgId, name: str, dut: DutId) -> RunAdmitted:
    """Return a run that undoes what a DUT carries: the agent there knows by which commands.

    It is of the org whose group it was: its share and its quota pay for it.
    """
    role = Role(runtime="dut", duts=(dut,), hold="job")
    spec = JobSpec(
        kind="command",
        argv=("true",),
        need=Need(target=Target(runtime="dut", duts=(dut,), hold="job"), role=ROLE),
        timeout_s=lab.policy.teardown_s,
        attempts=ATTEMPTS,
        undo=True,
    )
    profile = Profile(
        name=name, schedule=Step(command=("true",), target=ROLE), targets={ROLE: role}
    )
    return RunAdmitted(
        run=run,
        org=org,
        by=LAB,
        key="",
        name=name,
        priority=0,
        profile=canonical(profile),
        plan=Plan(specs=(spec,), jobs=(PlannedJob(1, "teardown", 0, ()),)),
    )


def _follow(decision: Decision, row: DutRow) -> None:
    """See what has become of a teardown that was ordered."""
    lab, name = decision.lab, RunId(row.undo)
    run = lab.runs.get(name)
    digest = row.dut.owes[0] if row.dut.owes else ""
    if run is not None and _waits(lab, run) and not _is_needed(lab, row, digest):
        error = ErrorReport(code="not_needed", message="the setup is used again, or is gone")
        _end(decision, row, digest, WITHDRAWN)
        end_open_jobs(decision, run, JobCause.CANCEL, error)
    elif run is None or RUN.is_final(run.state):
        _end(decision, row, digest, str(run.state) if run is not None else "unknown", run)


def _waits(lab: Lab, run: Run) -> bool:
    return lab.jobs[ids.job_of(run.id, 1)].state is JobState.WAITING


def _is_needed(lab: Lab, row: DutRow, digest: str) -> bool:
    return bool(digest) and not (
        digest in row.dut.carries and lab.indexes.group_open.get(digest, 0)
    )


def _end(decision: Decision, row: DutRow, digest: str, state: str, run: Run | None = None) -> None:
    dut, name = row.dut.id, RunId(row.undo)
    decision.happen(TeardownEnded(run=name, dut=dut, digest=digest, state=state))
    is_bad = state not in ("passed", "cancelled", WITHDRAWN)
    if not (is_bad and digest and decision.lab.policy.teardown_failed == "quarantine"):
        return
    if row.intent is None:
        why = f"teardown {name}: {state}"
        decision.happen(IntentSet(kind="dut", name=dut, what="quarantined", by=LAB, reason=why))


def _look(decision: Decision, name: str) -> None:
    """Look again at a DUT whose setup has stayed for long enough. A timer."""
    decision.lab.indexes.undo_look.add(DutId(name))


TIMERS = {"teardown": _look}
