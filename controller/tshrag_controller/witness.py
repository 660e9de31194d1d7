"""What a leader has committed, as lines of the history of a test (``tshrag_common/history.py``)."""

from tshrag_common import history
from tshrag_controller.core.events import (
    AgentMoved,
    AnyEvent,
    AttemptEnded,
    AttemptLost,
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
from tshrag_controller.log.frames import Frame


def note_frame(frame: Frame, sequence: int) -> None:
    """Note every event of a frame that the LOG holds; nothing in production."""
    if history.IS_ON:
        for event in frame.events:
            ev, facts = _line(event)
            if ev:
                history.note(ev, epoch=frame.epoch, seq=sequence, **facts)


def _line(event: AnyEvent) -> tuple[str, dict[str, object]]:
    match event:
        case LeaderChosen(epoch=epoch, node=node):
            return "leads", {"node": node, "chosen": epoch}
        case RunAdmitted(run=run, plan=plan, key=key):
            return "admitted", {"job": run, "jobs": len(plan.jobs), "key": key}
        case JobAssigned(job=job, fence=fence, agent=agent, attempt=attempt, dut=dut):
            facts = {"job": job, "fence": fence, "agent": agent, "attempt": attempt}
            return "assigned", {**facts, "dut": dut or ""}
        case AttemptEnded(ended=ended):
            return "ended", {"fence": ended.fence, "outcome": ended.outcome}
        case AttemptLost(fence=fence, reason=reason):
            return "lost", {"fence": fence, "reason": reason}
        case JobMoved(job=job, cause=cause) | JobJudged(job=job, cause=cause):
            return "moved", {"job": job, "cause": cause.value}
        case RunJudged(run=run, cause=cause):
            return "judged", {"job": run, "cause": cause.value}
        case _:
            return _of_agents(event)


def _of_agents(event: AnyEvent) -> tuple[str, dict[str, object]]:
    match event:
        case AgentMoved(agent=agent, cause=cause):
            return "agent_moved", {"agent": agent, "cause": cause.value}
        case DutMarked(dut=dut, faulty=faulty):
            return "dut_marked", {"dut": dut, "faulty": faulty}
        case SpoolApplied(agent=agent, spool=spool, upto=upto):
            return "applied", {"agent": agent, "spool": spool, "upto": upto}
        case ReportRefused(agent=agent, code=code, what=what):
            return "report_refused", {"agent": agent, "code": code, "what": what}
        case _:
            return "", {}
