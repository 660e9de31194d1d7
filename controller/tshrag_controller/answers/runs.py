"""Answers about runs and jobs: submit, plan, cancel, list, why, watch."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec

from tshrag_common import ids, requests as r
from tshrag_common.criteria import CompiledCriterion
from tshrag_common.criteria_compile import compile_criteria
from tshrag_common.documents import MAX_BYTES
from tshrag_common.errors import Invalid, LabError, NotFound, Problem, Refused, shown
from tshrag_common.ids import JobId, OrgId
from tshrag_common.profile import Profile, canonical
from tshrag_common.reading import profile_of
from tshrag_common.reports import Ended
from tshrag_common.views import PlaceView, ReasonView, RunView, Stopped
from tshrag_common.why_requests import OutlookAnswer
from tshrag_controller.answers.asker import Asker
from tshrag_controller.answers.held import with_holds, with_reasons
from tshrag_controller.answers.planning import narrowed, plan_answer
from tshrag_controller.answers.turns import Turns
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.events import RunAdmitted
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.on_lease import unreachable
from tshrag_controller.core.on_run import AlreadyFinal, Stopping, on_cancel, on_submit, taken
from tshrag_controller.core.plan import plan
from tshrag_controller.core.why import Explanation, explain
from tshrag_controller.engine import Engine, LabClock
from tshrag_controller.feed import Feed
from tshrag_controller.intake.rates import Rates
from tshrag_controller.log.frames import MOST_EVENT_BYTES
from tshrag_controller.resolving import Resolving
from tshrag_controller.store import queries
from tshrag_controller.store.store import Store

NO_BASELINE = "none"
AT_ONCE_JOBS = 100
"""A plan of so many jobs is encoded in less time than a thread needs to begin."""


class RunAnswers:
    """Everything that is asked of runs."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        feed: Feed,
        resolving: Resolving,
        clock: LabClock,
        rates: Rates,
        outlook: Callable[[Asker, r.Named], Awaitable[OutlookAnswer]],
    ) -> None:
        self._rates, self._outlook = rates, outlook
        self._engine, self._store, self._feed = engine, store, feed
        self._resolving, self._clock = resolving, clock
        self._turns = Turns()

    async def submit(self, asker: Asker, asked: r.Submit) -> r.SubmitAnswer:
        """Validate, resolve, plan, persist; the same id or key again is the same run."""
        self._rates.take(asker.org)
        names = [asked.run, f"{asker.org} {asked.key}"] if asked.key else [asked.run]
        async with self._turns.of(*names):
            answer = await self._submit(asker, asked)
        if asked.outlook:
            with suppress(LabError):  # it is accepted: nothing that is wrong here may hide that
                found = await self._outlook(asker, r.Named(id=answer.run))
                answer = msgspec.structs.replace(answer, outlook=found)
        return answer

    async def _submit(self, asker: Asker, asked: r.Submit) -> r.SubmitAnswer:
        before = await self._known(asker.org, asked)
        if before is not None:
            view = await self._view(asker.org, before)
            return r.SubmitAnswer(run=before, created=False, jobs=view.total, state=view.state)
        admitted = await self.admitted(asker, asked)
        answer = await self._engine.ask(
            lambda decision: on_submit(decision, admitted, park=asked.park)
        )
        return r.SubmitAnswer(run=answer.run, created=answer.created, jobs=len(admitted.plan.jobs))

    async def plan(self, asker: Asker, asked: r.Submit) -> r.PlanAnswer:
        """Tell what a submit would do, and change nothing."""
        self._rates.take(asker.org)
        admitted = await self.admitted(asker, asked)
        return await self._engine.ask(lambda decision: plan_answer(decision.lab, admitted))

    async def _known(self, org: OrgId, asked: r.Submit) -> str | None:
        name = ids.run_id(asked.run)
        await self._store.wait_applied(self._engine.sequence)
        if asked.key:
            found = await self._store.query(lambda db: queries.run_by_key(db, org, asked.key))
            if found is not None:
                await self._check_same(found, asked)
                return found
        owner = await self._store.query(lambda db: queries.owner_of(db, name))
        if owner is not None and owner != org:
            raise taken(name)
        return name if owner else None

    async def _check_same(self, run: str, asked: r.Submit) -> None:
        """Refuse a key that was used for another profile: its verdict would be taken for this."""
        profile = canonical(profile_of(msgspec.json.decode(asked.profile)))
        if profile != await self._store.query(lambda db: queries.profile_of(db, run)):
            fix = "use another key; the same key stands for the same profile"
            raise Refused("key", f"{shown(asked.key)} was used by {run}", fix, code="key_conflict")

    async def admitted(self, asker: Asker, asked: r.Submit) -> RunAdmitted:
        """Validate, resolve and plan; nothing is changed."""
        _check(asked)
        profile: Profile = profile_of(_document(asked.profile))
        loads = await self._resolving.resolve_all(profile, asked.loads)
        declared = [info for load in loads.values() for info in load.manifest.metrics]
        criteria = compile_criteria(profile.criteria, declared)
        made = narrowed(await asyncio.to_thread(plan, profile, loads, asked.env, asker.org), asked)
        duration_s = asked.duration_s or profile.limits.duration or 0.0
        baseline = await self._baseline(asker.org, asked, profile.name, criteria)
        admitted = RunAdmitted(
            run=ids.run_id(asked.run),
            org=asker.org,
            by=asker.name,
            key=asked.key,
            name=profile.name,
            priority=asked.priority,
            profile=canonical(profile),
            plan=made,
            loads=tuple(load.ref for load in loads.values()),
            criteria=criteria,
            labels=profile.labels,
            not_before=asked.not_before,
            deadline=asked.deadline,
            duration_us=round(duration_s * 1e6),
            seed=asked.seed,
            retry_of=asked.retry_of,
            baseline=baseline,
            stop_early=profile.stop == "when_decided",
        )
        if len(made.jobs) <= AT_ONCE_JOBS:
            _check_size(admitted)
        else:
            await asyncio.to_thread(_check_size, admitted)
        return admitted

    async def _baseline(
        self, org: OrgId, asked: r.Submit, name: str, criteria: tuple[CompiledCriterion, ...]
    ) -> str:
        """Return the run to compare with, fixed when the run is accepted; "": there is none."""
        if asked.baseline == NO_BASELINE or not any(each.needs_baseline for each in criteria):
            return ""
        await self._store.wait_applied(self._engine.sequence)
        if asked.baseline:
            view = await self._view(org, ids.run_id(asked.baseline))
            if not view.ended_at:
                fix = "wait for it, or name another run"
                raise Refused("baseline", f"{view.id} has not ended", fix, code="not_ended")
            return view.id
        found = await self._store.query(lambda db: queries.last_passed(db, org, name))
        return found or ""

    async def cancel(self, asker: Asker, asked: r.Cancel) -> r.CancelAnswer:
        """Cancel, then wait a while for the agents to say what they stopped."""
        try:
            stopping, ends = await self._engine.ask(
                lambda decision: self._cancel(decision, asker.org, asked.id)
            )
        except NotFound:
            await self._refuse_ended(asker.org, asked.id)
            raise
        here = [end for job, end in ends.items() if job not in stopping.away]
        if here:
            await asyncio.wait(here, timeout=min(max(0.0, asked.wait_s), 60.0))
        jobs = tuple(
            _stopped(job, ends.get(job), stopping.away.get(job, "")) for job in stopping.jobs
        )
        return r.CancelAnswer(run=stopping.run, jobs=jobs)

    def _cancel(
        self, decision: Decision, org: OrgId, name: str
    ) -> tuple[Stopping, dict[JobId, "asyncio.Future[Ended | None]"]]:
        stopping = on_cancel(decision, org, name)
        attempts = (decision.lab.attempts[fence] for fence in stopping.fences)
        ends = {attempt.job: self._feed.end_of(attempt.fence) for attempt in attempts}
        away = {
            job: note
            for fence in stopping.fences
            if (note := unreachable(decision.lab, fence, decision.now))
            for job in (decision.lab.attempts[fence].job,)
        }
        return msgspec.structs.replace(stopping, away=away), ends

    async def _refuse_ended(self, org: OrgId, name: str) -> None:
        """Say how something ended that is no longer in memory."""
        await self._store.wait_applied(self._engine.sequence)
        if name.startswith("job-"):
            asked = r.ListJobs(id=name)
            jobs = await self._store.query(lambda db: queries.list_jobs(db, org, asked))
            raise AlreadyFinal(name, jobs.jobs[0].state)
        view = await self._view(org, name)
        raise AlreadyFinal(name, view.state)

    async def _view(self, org: OrgId, name: str) -> RunView:
        view = await self._store.query(lambda db: queries.get_run(db, org, name))
        return (await self._engine.ask(lambda decision: with_holds(decision.lab, (view,))))[0]

    async def runs(self, asker: Asker, asked: r.ListRuns) -> r.RunsAnswer:
        await self._store.wait_applied(self._engine.sequence)
        found = await self._store.query(lambda db: queries.list_runs(db, asker.org, asked))
        runs = await self._engine.ask(lambda decision: with_holds(decision.lab, found.runs))
        return msgspec.structs.replace(found, runs=runs)

    async def run(self, asker: Asker, asked: r.GetRun) -> r.RunAnswer:
        sequence = self._engine.sequence
        await self._store.wait_applied(sequence)
        view = await self._view(asker.org, asked.id)
        profile = b"null"
        if asked.profile:
            profile = await self._store.query(lambda db: queries.profile_of(db, asked.id))
        return r.RunAnswer(run=view, profile=msgspec.Raw(profile), seq=sequence)

    async def jobs(self, asker: Asker, asked: r.ListJobs) -> r.JobsAnswer:
        await self._store.wait_applied(self._engine.sequence)
        found = await self._store.query(lambda db: queries.list_jobs(db, asker.org, asked))
        jobs = await self._engine.ask(lambda decision: with_reasons(decision.lab, found.jobs))
        return msgspec.structs.replace(found, jobs=jobs)

    async def why(self, asker: Asker, asked: r.Named) -> r.WhyAnswer:
        """Explain a job; of a run, its first job that waits."""
        now = self._clock.now()
        found = await self._engine.ask_queues(
            lambda decision: _explain(decision.lab, asker.org, asked.id, now)
        )
        return _why(found) if found is not None else await self._why_ended(asker.org, asked.id)

    async def _why_ended(self, org: OrgId, name: str) -> r.WhyAnswer:
        await self._store.wait_applied(self._engine.sequence)
        if name.startswith("job-"):
            asked = r.ListJobs(id=name)
            page = await self._store.query(lambda db: queries.list_jobs(db, org, asked))
            job = page.jobs[0]
            sentence = job.error.message if job.error else f"it has {job.state}"
            return r.WhyAnswer(job=name, state=job.state, reason=job.state, sentence=sentence)
        view = await self._view(org, name)
        sentence = view.reason or f"it has {view.state}"
        return r.WhyAnswer(job=name, state=view.state, reason=view.state, sentence=sentence)

    async def watch(self, asker: Asker, asked: r.Watch) -> r.WatchAnswer:
        """Let news of a run flow for a while, and tell how it stands."""
        sequence = self._engine.sequence
        await self._store.wait_applied(sequence)
        view = await self._view(asker.org, asked.run)
        self._feed.watch(ids.run_id(asked.run), self._engine.sequence)
        if self._engine.sequence != sequence:  # it may have moved before the feed listened
            sequence = self._engine.sequence
            await self._store.wait_applied(sequence)
            view = await self._view(asker.org, asked.run)
        return r.WatchAnswer(seq=sequence, run=view)


def _document(raw: msgspec.Raw) -> object:
    size = len(memoryview(raw))
    if size > MAX_BYTES:
        what = f"{size} > {MAX_BYTES} bytes"
        raise Invalid([Problem(code="too_large", where="profile", what=what)])
    try:
        return msgspec.json.decode(raw)
    except RecursionError:
        raise Invalid([Problem(code="too_deep", where="profile", what="limit 32")]) from None


def _check_size(admitted: RunAdmitted) -> None:
    """Refuse a plan that no message of the LOG can hold."""
    size = len(msgspec.msgpack.encode(admitted))
    if size > MOST_EVENT_BYTES:
        fix = "split it into several runs, or give its steps shorter names and variables"
        what = f"the plan takes {size} > {MOST_EVENT_BYTES} bytes"
        raise Invalid([Problem(code="too_large", where="schedule", what=what, fix=fix)])


def _check(asked: r.Submit) -> None:
    problems: list[Problem] = []
    if not 0 <= asked.priority <= 100:
        problems.append(Problem(code="range", where="priority", what="0..100"))
    if asked.deadline and asked.deadline <= asked.not_before:
        what = "the deadline lies before the begin of the window"
        problems.append(Problem(code="range", where="deadline", what=what))
    if len(asked.key) > 200:
        problems.append(Problem(code="range", where="key", what="at most 200 characters"))
    if problems:
        raise Invalid(problems)


def _stopped(job: JobId, end: "asyncio.Future[Ended | None] | None", away: str) -> Stopped:
    if end is None:
        return Stopped(job=job, state="cancelled")
    if not end.done():
        return Stopped(job=job, state="cancelled", pending=True, note=away)
    ended = end.result()
    return Stopped(job=job, state="cancelled", stopped=ended.stopped if ended else ())


def _explain(lab: Lab, org: OrgId, name: str, now: int) -> Explanation | None:
    if name.startswith("job-"):
        job = lab.jobs.get(JobId(name))
        run = lab.runs.get(job.run) if job else None
    else:
        run = lab.runs.get(ids.run_id(name))
        job = None
    if run is None or run.org != org:
        return None
    if job is None:
        jobs = [lab.jobs[ids.job_of(run.id, each.serial)] for each in run.plan.jobs]
        waiting = [each for each in jobs if not each.ended_at]
        job = next(iter(waiting), jobs[-1])
    return explain(lab, job, now)


def _why(found: Explanation) -> r.WhyAnswer:
    places = tuple(
        PlaceView(
            host=place.host,
            dut=place.dut,
            fits=place.fits,
            reasons=tuple(ReasonView(code=each.code, text=each.text) for each in place.reasons),
        )
        for place in found.places
    )
    return r.WhyAnswer(
        job=found.job,
        state=found.state,
        reason=found.reason,
        sentence=found.sentence,
        places=places,
        ahead=found.ahead,
    )
