"""Answers to those who wait: how it looks for a job, who stands in the line."""

from tshrag_common import requests as r, why_requests as wr
from tshrag_common.errors import NotFound
from tshrag_common.ids import JobId, OrgId
from tshrag_common.states import JobState
from tshrag_controller.answers.asker import Asker
from tshrag_controller.core.free_at import Span
from tshrag_controller.core.lab import Job, Lab
from tshrag_controller.core.on_run import find_run, open_jobs
from tshrag_controller.core.outlook import Change, Outlook, outlook
from tshrag_controller.core.the_line import Class, lines
from tshrag_controller.core.why import explain
from tshrag_controller.durations import Durations
from tshrag_controller.engine import Engine, LabClock

PLACELESS = ("dependency", "backoff", "on_hold")
"""What waits for one of these waits for no place yet: nobody can say when it starts."""
MOST_HOLDERS = 200


class OutlookAnswers:
    """Estimates; the scheduler does not look at them."""

    def __init__(self, engine: Engine, durations: Durations, clock: LabClock) -> None:
        self._engine, self._durations, self._clock = engine, durations, clock

    async def outlook(self, asker: Asker, asked: r.Named) -> wr.OutlookAnswer:
        """Tell of a job, or of the first job of a run that waits."""
        now = self._clock.now()
        return await self._engine.ask_queues(
            lambda decision: self._outlook(decision.lab, asker.org, asked.id, now)
        )

    def _outlook(self, lab: Lab, org: OrgId, name: str, now: int) -> wr.OutlookAnswer:
        job = _job_named(lab, org, name)
        said = explain(lab, job, now)
        answer = wr.OutlookAnswer(
            job=job.id, state=job.state, reason=said.reason, sentence=said.sentence
        )
        is_placed = lab.runs[job.run].spec(job).is_placed
        if job.state is not JobState.WAITING or said.reason in PLACELESS or not is_placed:
            return answer
        found = outlook(lab, job, now, self._durations.typical)
        if said.reason == "window":
            found = _in_window(found, lab.runs[job.run].not_before)
        return _answer(answer, found)

    async def queue(self, asker: Asker, asked: r.Nothing) -> wr.QueueAnswer:
        """Tell of every line; who is at its head is named to its own org only."""
        now = self._clock.now()
        found, more = await self._engine.ask_queues(
            lambda decision: lines(decision.lab, now, self._durations.typical)
        )
        return wr.QueueAnswer(classes=tuple(_line(each, asker.org) for each in found), more=more)


def _line(each: Class, org: OrgId) -> wr.QueueClass:
    return wr.QueueClass(
        target=each.target,
        waiting=each.waiting,
        people=each.people,
        orgs=dict(each.orgs),
        head=each.head if each.head_org == org else f"of {each.head_org}",
        since=each.since,
        places=each.places,
        free=each.free,
        next=view(each.next),
        last=view(each.last),
    )


def _job_named(lab: Lab, org: OrgId, name: str) -> Job:
    run = find_run(lab, org, name)
    if name.startswith("job-"):
        return lab.jobs[JobId(name)]
    unfinished = open_jobs(lab, run)
    if not unfinished:
        raise NotFound("job", name)
    waiting = (each for each in unfinished if each.state is JobState.WAITING and not each.missing)
    return next(waiting, unfinished[0])


def view(span: Span | None) -> wr.SpanView | None:
    return wr.SpanView(low=span.low, mid=span.mid, high=span.high) if span else None


def _in_window(found: Outlook, opens: int) -> Outlook:
    """Return the outlook of a job whose window opens later: nothing but that starts it sooner."""
    if found.start is None:
        return found
    start = Span(*(max(opens, each) for each in found.start))
    if start == found.start:
        return found
    sooner = Change("with a window that opens now (reschedule)", found.start)
    return found._replace(start=start, changes=(sooner,))


def _answer(answer: wr.OutlookAnswer, found: Outlook) -> wr.OutlookAnswer:
    return wr.OutlookAnswer(
        job=answer.job,
        state=answer.state,
        reason=answer.reason,
        sentence=answer.sentence,
        ahead=found.ahead,
        start=view(found.start),
        observed=found.observed,
        holders=tuple(
            wr.HolderView(
                host=each.host,
                dut=each.dut,
                holder=each.holder,
                until=each.until,
                free=view(each.free),
            )
            for each in found.servers[:MOST_HOLDERS]
        ),
        changes=tuple(
            wr.ChangeView(what=each.what, start=made)
            for each in found.changes
            if (made := view(each.start)) is not None
        ),
    )
