"""What a leader has committed, as lines of the history of a test (``tshrag_common/history.py``)."""

import msgspec

from tshrag_common import history
from tshrag_common.jobs import JobSpec, Need
from tshrag_common.reports import Ended
from tshrag_controller.core.events import (
    AgentMoved,
    AgentSeen,
    AnyEvent,
    AttemptEnded,
    AttemptLost,
    AttemptResolved,
    DutMarked,
    JobAssigned,
    JobJudged,
    JobMoved,
    LeaderChosen,
    ReportRefused,
    RunAdmitted,
    RunJudged,
    SpoolApplied,
)
from tshrag_controller.core.suspend_events import JobsHeld, RunRescheduled
from tshrag_controller.log.frames import Frame


def note_frame(frame: Frame, sequence: int) -> None:
    """Note every event of a frame that the LOG holds; nothing in production.

    Everybody does who reads a frame: its writer may have died before. ``n`` tells repeated lines.
    """
    if history.IS_ON:
        for number, event in enumerate(frame.events):
            ev, facts = _line(event)
            if ev:
                history.note(ev, epoch=frame.epoch, seq=sequence, n=number, **facts)


def _line(event: AnyEvent) -> tuple[str, dict[str, object]]:
    match event:
        case LeaderChosen(epoch=epoch, node=node):
            return "leads", {"node": node, "chosen": epoch}
        case RunAdmitted():
            return "admitted", _admitted(event)
        case JobAssigned(job=job, fence=fence, agent=agent, attempt=attempt, dut=dut):
            facts = {"job": job, "fence": fence, "agent": agent, "attempt": attempt}
            return "assigned", {**facts, "dut": dut or ""}
        case AttemptEnded(ended=ended):
            return "ended", _ended(ended)
        case AttemptLost(fence=fence, reason=reason):
            return "lost", {"fence": fence, "reason": reason}
        case JobMoved(job=job, cause=cause) | JobJudged(job=job, cause=cause):
            return "moved", {"job": job, "cause": cause.value}
        case RunJudged(run=run, cause=cause):
            return "judged", {"job": run, "cause": cause.value}
        case _:
            return _of_agents(event)


def _admitted(event: RunAdmitted) -> dict[str, object]:
    """Return what a checker has to know of a run: its jobs, and what each of them needs."""
    plan = event.plan
    gated = bool(event.not_before or event.deadline or event.duration_us)
    jobs = [(each.serial, each.spec, each.gang, each.after) for each in plan.jobs]
    facts = {"job": event.run, "jobs": len(plan.jobs), "key": event.key, "org": event.org}
    specs = [_spec(spec, gated) for spec in plan.specs]
    return {**facts, "priority": event.priority, "plan": jobs, "specs": specs}


def _spec(spec: JobSpec, gated: bool) -> dict[str, object]:
    need = spec.need
    return {
        "need": history.digest_of([msgspec.msgpack.encode(need)])[0],
        "slots": 0 if need.wants_dut or not spec.is_placed else need.slots,
        "simple": not gated and spec.when is None and not need.wants_dut and spec.is_placed,
        "anywhere": need == Need(role=need.role),
        "timeout_s": spec.timeout_s,
        "disconnect_s": spec.disconnect_s,
        "output_bytes": spec.output_bytes,
    }


def _ended(ended: Ended) -> dict[str, object]:
    facts = {"fence": ended.fence, "outcome": ended.outcome, "started": bool(ended.started_at)}
    said = [(end.length_bytes, end.cut_bytes) for end in (ended.stdout, ended.stderr)]
    upto = {"samples": ended.samples_upto, "output": ended.output_upto}
    return {**facts, "said": said, "upto": upto}


def _of_agents(event: AnyEvent) -> tuple[str, dict[str, object]]:
    match event:
        case AgentMoved(agent=agent, cause=cause):
            return "agent_moved", {"agent": agent, "cause": cause.value}
        case AgentSeen(facts=facts):
            duts = [(dut.id, dut.shared) for dut in facts.duts]
            seen = {"agent": facts.agent, "life": facts.boot, "slots": facts.slots}
            return "agent_seen", {**seen, "duts": duts}
        case DutMarked(agent=agent, dut=dut, faulty=faulty):
            return "dut_marked", {"agent": agent, "dut": dut, "faulty": faulty}
        case AttemptResolved(fence=fence, by=by):
            return "resolved", {"fence": fence, "by": by}
        case JobsHeld(run=run) | RunRescheduled(run=run):
            return "suspended", {"job": run}
        case SpoolApplied(agent=agent, spool=spool, upto=upto):
            return "applied", {"agent": agent, "spool": spool, "upto": upto}
        case ReportRefused(agent=agent, code=code, what=what):
            return "report_refused", {"agent": agent, "code": code, "what": what}
        case _:
            return "", {}
