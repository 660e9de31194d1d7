"""Holds what the world saw against what the lab says: the invariants at the end of a seed."""

import sqlite3
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

from tests.chaos import rules_data, rules_grants, rules_world
from tests.chaos.recorded import Recorded
from tests.simulation.history import History
from tests.simulation.lab import AgentProcess
from tests.simulation.log_watch import JobSeen, LogWatch
from tests.simulation.machines import Script
from tests.simulation.steps import line
from tshrag_common import ids
from tshrag_common.states import JobState
from tshrag_controller.store.columns import columns

_SLACK_S = 0.5
_GRACE_S = 70.0
"""Beyond its limit: ends that nobody minds, and a host that waits for an agent to adopt."""


class Checker:
    """One look at everything, when all is quiet."""

    def __init__(
        self,
        history: History,
        log: LogWatch,
        agents: list[AgentProcess],
        stores: list[Path],
        at: float,
    ) -> None:
        self._history, self._log, self._agents = history, log, agents
        self._stores, self._at = stores, at
        self._store = stores[0]
        self._works = self._intervals()

    def check(self) -> None:
        self._all_ended()
        self._one_run_a_key()
        self._nothing_twice()
        self._states_are_true()
        self._nothing_lives()
        self._rules_hold()
        for store in self._stores:  # of every controller: each of them may lead next
            self._store = store
            self._data_are_whole()
            self._projection_agrees()

    def _violate(self, rule: str, what: str) -> None:
        self._history.violate(self._at, rule, what)

    def _rules_hold(self) -> None:
        """Hold the product's own history against the rules that read those of ``make chaos``."""
        recorded = Recorded(self._history.lines_of_product)
        for rule in (*rules_data.RULES, *rules_grants.RULES, *rules_world.RULES):
            for broken in rule(recorded):
                self._violate(broken.rule, broken.what)

    def _all_ended(self) -> None:
        for _, (_, _, run) in self._history.of("accepted"):
            seen = self._log.runs.get(str(run))
            if seen is None:
                self._violate("I1", f"{run} was accepted and is not in the LOG")
            elif seen.judged is None:
                open_jobs = [name for name in seen.jobs if self._log.jobs[name].final is None]
                self._violate("I1", f"{run} has not ended, open: {open_jobs}")

    def _one_run_a_key(self) -> None:
        runs: dict[object, object] = {}
        for _, (key, asked, run) in self._history.of("accepted"):
            if runs.setdefault(key or asked, run) != run:
                self._violate("I16", f"{key or asked} is {run} and {runs[key or asked]}")

    def _intervals(self) -> dict[int, list[tuple[float, float, str]]]:
        """Return when the work of each fence lived, and how it ended."""
        works: dict[int, list[tuple[float, float, str]]] = defaultdict(list)
        for at, what, facts in self._history.entries:
            if what in ("host_began", "board_began"):
                works[int(str(facts[1]))].append((at, 1e12, ""))
            elif what in ("host_ended", "board_ended"):
                began, _, _ = works[int(str(facts[1]))].pop()
                works[int(str(facts[1]))].append((began, at, str(facts[2])))
        return works

    def _nothing_twice(self) -> None:
        spans: dict[str, list[tuple[float, float, int]]] = defaultdict(list)
        for fence, works in self._works.items():
            attempt = self._log.attempts.get(fence)
            if attempt is None:
                self._violate("I4", f"work under fence {fence} that nobody gave")
                continue
            if len(works) > 1:
                self._violate("I14", f"attempt {fence} of {attempt.job} was made again: {works}")
            spans[attempt.job] += [(began, ended, fence) for began, ended, _ in works]
        for job, lives in spans.items():
            self._one_after_the_other(job, sorted(lives))

    def _one_after_the_other(self, job: str, lives: list[tuple[float, float, int]]) -> None:
        limit_s = self._log.jobs[job].spec.timeout_s + _GRACE_S
        for began, ended, fence in lives:
            if ended - began > limit_s:
                self._violate("I5", f"{fence} of {job} lived for {ended - began:.1f} s")
        for (_, ended, one), (began, _, other) in pairwise(lives):
            if began < ended and one != other:
                self._violate("I14", f"{job} lives twice, as {one} and {other}")

    def _states_are_true(self) -> None:
        """No silent success, no invented end: every final state has its reason in the world."""
        for name, job in self._log.jobs.items():
            if job.final is None or not job.spec.is_placed or self._is_true(name, job):
                continue
            works = [work for fence in job.fences for work in self._works.get(fence, ())]
            script, ends = Script.of(job.spec.argv), self._ends(job.fences)
            what = f"{name} is {job.final}: {script}, works {works}, attempts {ends}"
            self._violate("I20" if job.final is JobState.TIMEOUT else "promise 2", what)

    def _is_true(self, name: str, job: JobSeen) -> bool:
        script = Script.of(job.spec.argv)
        works = [work for fence in job.fences for work in self._works.get(fence, ())]
        by_itself = any(cause == "exited" for _, _, cause in works)
        match job.final:
            case JobState.PASSED:
                return by_itself and script.ends in ("pass", "poison")
            case JobState.FAILED:
                return by_itself and script.ends == "fail"
            case JobState.TIMEOUT:
                took_s = max(self._log.attempts[fence].took_s for fence in job.fences)
                return took_s > job.spec.timeout_s - _SLACK_S
            case JobState.CANCELLED:
                wanted = {facts[0] for _, facts in self._history.of("wants_cancel")}
                return name in wanted or ids.run_of(ids.JobId(name)) in wanted
            case JobState.ERROR:
                return bool({"error", "lost", "refused"} & set(self._ends(job.fences)))
            case _:
                return True

    def _ends(self, fences: list[int]) -> list[str]:
        return [self._log.attempts[fence].end for fence in fences]

    def _nothing_lives(self) -> None:
        for agent in self._agents:
            for work in agent.machine.alive():
                self._violate("I8", f"{work.name} of {work.job} lives on {agent.name}")
            for board in agent.machine.boards.values():
                for work in board.sessions:
                    self._violate("I7", f"{work.name} of {work.job} lives on {board.name}")
            self._holds_nothing(agent)
        for fence, attempt in self._log.attempts.items():
            if not attempt.end:
                self._violate("I1", f"attempt {fence} of {attempt.job} has no end")

    def _holds_nothing(self, agent: AgentProcess) -> None:
        roster = agent.roster
        if roster is None:
            self._violate("I8", f"{agent.name} is down")
        elif roster.live or roster.digest or roster.slots.free != agent.machine.slots:
            free = roster.slots.free
            self._violate("I17", f"{agent.name} holds {sorted(roster.live)}, {free} slots are free")

    def _data_are_whole(self) -> None:
        """Every line whose record was synced is stored once; nothing else is."""
        stored: Counter[tuple[str, int, float]] = Counter()
        with sqlite3.connect(f"file:{self._store}/projection.db?mode=ro", uri=True) as db:
            db.execute("ATTACH ? AS hot", (f"file:{self._store}/hot.db?mode=ro",))
            numbers = dict(db.execute("SELECT no, id FROM runs"))
            found = [
                (run, each) for no, run in numbers.items() for each in columns(db, no, "sim.line")
            ]
        db.close()
        for run, column in found:
            job = ids.job_of(run, column.serial)
            stored.update((job, column.attempt, value) for value in column.values)
        for (name, attempt, value), count in stored.items():
            if count > 1:
                self._violate("I11", f"line {value} of {name}.{attempt} is stored {count} times")
        self._all_stored(stored)
        self._nothing_invented(stored)

    def _all_stored(self, stored: Counter[tuple[str, int, float]]) -> None:
        files: dict[tuple[str, int], bytes] = {}
        for _, (job, attempt, values) in self._history.of("spooled"):
            key = (str(job), int(str(attempt)))
            if key not in files:
                files[key] = self._output(*key)
            for value in values if isinstance(values, tuple) else ():
                if (*key, value) not in stored:
                    self._violate("I10", f"line {value} of {job}.{attempt} is lost")
                if files[key].count(b"%23.0f\n" % value) != 1:
                    self._violate("I10", f"output {value} of {job}.{attempt} is lost or doubled")

    def _output(self, job: str, attempt: int) -> bytes:
        """Return a file of output."""
        name = ids.JobId(job)
        file = f"{ids.serial_of(name):06d}.{attempt}.stdout"
        path = self._store / "output" / ids.run_of(name) / file
        return path.read_bytes() if path.exists() else b""

    def _nothing_invented(self, stored: Counter[tuple[str, int, float]]) -> None:
        for job, attempt, value in stored:
            fences = self._log.jobs[job].fences
            fence = fences[attempt - 1] if attempt <= len(fences) else 0
            lines = Script.of(self._log.jobs[job].spec.argv).lines
            if value not in {line(fence, number) for number in range(lines)}:
                self._violate("I11", f"line {value} of {job}.{attempt} was never said")

    def _projection_agrees(self) -> None:
        db = sqlite3.connect(f"file:{self._store}/projection.db?mode=ro", uri=True)
        rows = db.execute(
            "SELECT r.id, j.serial, j.state FROM jobs j JOIN runs r ON r.no = j.run"
        ).fetchall()
        db.close()
        told = {str(ids.job_of(run, serial)): state for run, serial, state in rows}
        for name, job in self._log.jobs.items():
            if told.get(ids.JobId(name)) != job.final:
                self._violate(
                    "I14", f"{name} is {job.final}, projected as {told.get(ids.JobId(name))}"
                )
