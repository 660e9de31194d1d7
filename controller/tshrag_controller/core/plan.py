"""PURE: a profile and its resolved loads -> the DAG of its jobs.

Steps of a sequence come after each other, those of a parallel stand side by side. Where many
follow many, a ``nop`` between them (``*join``) keeps the edges few. A step that needs another
comes after all of it. Cost: O(jobs + edges); 10,000 equal jobs share one spec.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from tshrag_common.findings import Findings
from tshrag_common.jobs import MAX_JOBS, Plan, PlannedJob
from tshrag_common.manifest import ResolvedLoad
from tshrag_common.needs import needed_steps
from tshrag_common.positions import At
from tshrag_common.profile import Profile, canonical
from tshrag_common.schedule import AxisValue, Step, cells, count_jobs
from tshrag_controller.core import dag
from tshrag_controller.core.ganging import ROLE, ROLES, check_gang
from tshrag_controller.core.grouping import check_used, grouped, grouping_of
from tshrag_controller.core.roles import needs_of_steps
from tshrag_controller.core.scopes import Core, Scope, Scopes
from tshrag_controller.core.specs import BARRIER, Specs

MAX_BYTES = 480 * 1024
"""Of plan and profile together: they have to fit into one frame of the LOG."""

Jobs = tuple[int, ...]
"""Numbers of jobs, from 0, in the order in which they were made."""


def plan(
    profile: Profile,
    loads: Mapping[str, ResolvedLoad],
    env: Mapping[str, str] | None = None,
    org: str = "",
) -> Plan:
    """Return the plan of `profile`; `env` (of the submit) goes before that of the profile.

    `org` is whose it is: nobody shares a setup with another org.

    Raises:
        Invalid: with every problem: parameters, targets, circles, limits.

    """
    findings = Findings()
    roots = [root for root in (profile.distribution, profile.schedule) if root]
    total = sum(count_jobs(root) for root in roots)
    if total > MAX_JOBS:
        findings.add("limit", ("schedule",), f"{total} jobs > {MAX_JOBS}")
        findings.check()
    all_env = {**profile.env, **(env or {})}
    grouping = grouping_of(profile, all_env, org, findings)
    needs = needs_of_steps(profile, loads, findings)
    if grouping is not None:
        needs = {own: grouped(need, grouping.group) for own, need in needs.items()}
    setup = grouping.setup if grouping is not None else None
    specs = Specs(profile, loads, needs, findings, setup)
    builder = _Builder(profile, specs, findings)
    builder.build_all(profile, all_env)
    findings.check()
    made = builder.plan()
    check_used(profile, made.specs, findings)
    _check_size(profile, made, findings)
    return made


def _check_size(profile: Profile, made: Plan, findings: Findings) -> None:
    if len(made.jobs) > MAX_JOBS:
        findings.add("limit", ("schedule",), f"{len(made.jobs)} jobs with barriers > {MAX_JOBS}")
    size = len(msgspec.msgpack.encode(made)) + len(canonical(profile))
    if size > MAX_BYTES:
        fix = "shorten names, env and params, or split the profile"
        findings.add("limit", ("schedule",), f"its plan is {size} > {MAX_BYTES} bytes", fix)
    findings.check()


@dataclass(slots=True)
class _Draft:
    """A job on its way."""

    name: str
    spec: int
    after: Jobs
    env: Mapping[str, str]
    gang: int = -1  # number of the first of its gang


@dataclass(slots=True)
class _Frame:
    """One copy of what a repeat or matrix repeats; names are looked for in it, then outside."""

    outer: "_Frame | None" = None
    ends: dict[int, Jobs] = field(default_factory=dict[int, Jobs])  # id of step -> its last jobs

    def last_of(self, step: Step) -> Jobs:
        frame: _Frame | None = self
        while frame is not None:
            if id(step) in frame.ends:
                return frame.ends[id(step)]
            frame = frame.outer
        return ()


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where a step is built: path in the document, name of what is around, what is before it."""

    at: At
    name: str
    scope: Scope
    frame: _Frame
    after: Jobs = ()


class _Builder:
    def __init__(self, profile: Profile, specs: Specs, findings: Findings) -> None:
        self._profile = profile
        self._specs = specs
        self._findings = findings
        self._scopes = Scopes()
        self._drafts: list[_Draft] = []
        self._names: dict[str, int] = {}
        self._needed: dict[int, tuple[Step, ...]] = {}
        self._wanted: set[int] = set()
        self._waiting: list[tuple[int, _Frame, Step]] = []  # job, where, the step that it needs

    def build_all(self, profile: Profile, env: Mapping[str, str]) -> None:
        """Build what distributes, and behind it the schedule."""
        core = Core(
            env=dict(env),
            cwd="",
            timeout_s=profile.limits.timeout,
            attempts=profile.retries.attempts or profile.limits.attempts,
            retry_on=profile.retries.on or (),
            retry_elsewhere=bool(profile.retries.elsewhere),
            on_fail="continue" if profile.tolerant else "stop",
            disconnect_s=profile.limits.disconnect or 0.0,
            preemptible=profile.limits.preemptible,
        )
        last: Jobs = ()
        if profile.distribution:
            spot = _Spot(("distribution",), "distribution", Scope(core), _Frame())
            last = self._build_root(profile.distribution, spot)
        self._build_root(profile.schedule, _Spot(("schedule",), "", Scope(core), _Frame(), last))

    def plan(self) -> Plan:
        """Number the jobs in an order in which they can go, near to that of the document."""
        after = {number: draft.after for number, draft in enumerate(self._drafts)}
        order: Sequence[int] = range(len(after)) if dag.is_ordered(after) else dag.order(after)
        serials = {number: serial for serial, number in enumerate(order, start=1)}
        drafts = [self._drafts[number] for number in order]
        jobs = tuple(
            PlannedJob(
                serial=serial,
                name=draft.name,
                spec=draft.spec,
                after=tuple(sorted(serials[each] for each in draft.after)),
                env=dict(draft.env),
                gang=serials[draft.gang] if draft.gang >= 0 else 0,
            )
            for serial, draft in enumerate(drafts, start=1)
        )
        return Plan(specs=tuple(self._specs.all), jobs=jobs)

    def _build_root(self, root: Step, spot: _Spot) -> Jobs:
        self._needed = needed_steps(root, spot.at, self._findings)
        self._wanted = {id(each) for needed in self._needed.values() for each in needed}
        self._findings.check()
        last = self._build(root, spot)
        for number, frame, step in self._waiting:  # all that can be needed has been built
            draft = self._drafts[number]
            draft.after = _union((draft.after, frame.last_of(step)))
        self._waiting.clear()
        return last

    def _build(self, step: Step, spot: _Spot, own_name: str = "") -> Jobs:
        """Make the jobs of `step`; return its last ones."""
        name = own_name or self._unique(f"{spot.name}.{step.label}" if spot.name else step.label)
        scope = self._scopes.inner(step, spot.scope)
        needed = self._needed.get(id(step), ())
        after = spot.after
        if step.body is not None or step.steps:
            if needed or self._is_wide(step, after):
                after = self._job(f"{name}.*join", self._specs.add(BARRIER), after, scope)
                self._wait(after, needed, spot.frame)
            last = self._inside(step, _Spot(spot.at, name, scope, spot.frame, after))
        else:
            last = self._job(name, self._specs.index(step, spot.at, scope), after, scope)
            self._wait(last, needed, spot.frame)
        if id(step) in self._wanted:
            spot.frame.ends[id(step)] = last
        return last

    def _inside(self, step: Step, spot: _Spot) -> Jobs:
        if step.repeat:
            copies: Iterable[Mapping[str, AxisValue]] = ({} for _ in range(step.repeat.times))
            return self._copies(step.repeat.of, spot, copies, step.repeat.parallel)
        if step.matrix:
            return self._copies(step.matrix.of, spot, cells(step.matrix), step.matrix.parallel)
        if step.gang:
            return self._gang(step.gang, spot)
        last = spot.after
        ends: list[Jobs] = []
        for number, child in enumerate(step.steps):
            after = last if step.sequence else spot.after
            at = (*spot.at, step.kind, number)
            last = self._build(child, _Spot(at, spot.name, spot.scope, spot.frame, after))
            ends.append(last)
        return last if step.sequence else _union(ends)

    def _gang(self, members: Mapping[str, Step], spot: _Spot) -> Jobs:
        """Build jobs that start together, each as the role that it is called by."""
        check_gang(self._profile, members, (*spot.at, "gang"), self._findings)
        first = len(self._drafts)
        roles = ",".join(members)
        for name, member in members.items():
            at = (*spot.at, "gang", name)
            own = member.name or name
            inner = _Spot(at, spot.name, spot.scope, spot.frame, spot.after)
            self._build(member, inner, self._unique(f"{spot.name}.{own}"))
            for draft in self._drafts[-1:]:
                draft.env = {**draft.env, ROLE: name, ROLES: roles}
        for draft in self._drafts[first:]:
            draft.gang = first
        return tuple(range(first, len(self._drafts)))

    def _copies(
        self,
        body: Step,
        spot: _Spot,
        copies: Iterable[Mapping[str, AxisValue]],
        parallel: bool | int,
    ) -> Jobs:
        """Build one copy after the other, in as many lanes as may run side by side."""
        lanes = 0 if parallel is True else int(parallel) or 1
        ends: list[Jobs] = []
        for number, axes in enumerate(copies):
            after = ends[number - lanes] if lanes and number >= lanes else spot.after
            scope = spot.scope.copy(number + 1, axes)
            mark = ",".join(str(value)[:20] for value in axes.values()) or str(number + 1)
            name = self._unique(f"{spot.name}[{mark}]")
            at = (*spot.at, "matrix" if axes else "repeat", "of")
            copy = _Spot(at, name, scope, _Frame(spot.frame), after)
            own = f"{name}.{body.name}" if body.name else name
            ends.append(self._build(body, copy, own))
        return _union(ends[-lanes:] if lanes else ends)

    def _job(self, name: str, spec: int, after: Jobs, scope: Scope) -> Jobs:
        self._drafts.append(_Draft(name, spec, after, scope.env))
        return (len(self._drafts) - 1,)

    def _is_wide(self, step: Step, after: Jobs) -> bool:
        """Tell whether an edge from each of `after` to each first job would be too many."""
        if len(after) < 2:
            return False
        first = _first_jobs(step)
        return len(after) * first > len(after) + first

    def _wait(self, jobs: Jobs, needed: Iterable[Step], frame: _Frame) -> None:
        self._waiting.extend((jobs[0], frame, step) for step in needed)

    def _unique(self, name: str) -> str:
        count = self._names.get(name, 0) + 1
        self._names[name] = count
        return name if count == 1 else self._unique(f"{name}#{count}")


def _first_jobs(step: Step) -> int:
    """Return how many jobs of `step` can begin at once."""
    if step.sequence:
        return _first_jobs(step.sequence[0])
    if step.steps:
        return sum(_first_jobs(each) for each in step.steps)
    copied = step.repeat or step.matrix
    if not copied:
        return 1
    total = count_jobs(step) // count_jobs(copied.of)
    lanes = total if copied.parallel is True else min(total, int(copied.parallel) or 1)
    return lanes * _first_jobs(copied.of)


def _union(groups: Iterable[Jobs]) -> Jobs:
    return tuple(dict.fromkeys(job for group in groups for job in group))
