"""Who gets what, and when: I6, I17 and I27, as a history tells of them."""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from tests.chaos.recorded import Line, Recorded, at_s, fence_of, run_of
from tests.chaos.verdicts import FINAL, SLACK_S, Beats, Broken, Planned, Rule, jobs_of, plans

SHARED_S, GRANT_S = 30.0, 10.0
"""A shared DUT is granted again 30 s after the last renewal, or T + 10 s with ``disconnect: T``."""
LATE_S = 35.0
PARTIAL_S = 30.0
IDLE_S = 10.0
"""A job that would fit on any host starts before a free slot was there for so long."""
_DEAF_S = 2.0  # a controller that hears nobody for so long begins to count anew
_SPOILT = ("error", "failed", "timeout", "refused", "lost")


class Grant(NamedTuple):
    """What was given to an attempt."""

    fence: int
    job: str
    agent: str
    at: float
    is_shared: bool


class _Holds:
    """Who holds each DUT, and how the last hold ended."""

    def __init__(self, planned: dict[str, Planned]) -> None:
        self._planned = planned
        self._newest: dict[str, Grant] = {}
        self._ended: set[int] = set()
        self._lost: dict[int, tuple[int, int]] = {}  # fence -> frame and epoch
        self._resolved: set[int] = set()
        self._spoke: dict[tuple[str, int], bool] = {}  # (agent, frame) of its own word
        self._shared: dict[tuple[str, str], bool] = {}  # (agent, DUT)
        self._told: dict[str, float] = {}  # when an agent last told of its DUTs
        self._beats = Beats()
        self._others: dict[int, list[tuple[float, str]]] = defaultdict(list)  # epoch -> beats
        self._leads: dict[int, float] = defaultdict(float)

    def take(self, line: Line) -> Iterator[Broken]:
        match line["ev"]:
            case "renewed":
                epoch = int(line["epoch"])
                self._beats.hear(str(line["agent"]), epoch, at_s(line))
                self._others[epoch].append((at_s(line), str(line["agent"])))
            case "leads":
                self._leads[int(line["chosen"])] = at_s(line)
            case "agent_seen" | "agent_moved":
                self._spoken(line)
            case "ended":
                self._ended.add(fence_of(line))
            case "resolved":
                self._resolved.add(fence_of(line))
            case "lost":
                self._lost[fence_of(line)] = (int(line["seq"]), int(line["epoch"]))
                yield from self._too_late(line)
            case _:
                yield from self._granted(line)

    def _spoken(self, line: Line) -> None:
        agent = str(line["agent"])
        if line["ev"] == "agent_seen":
            self._told[agent] = at_s(line)
            self._shared |= {(agent, str(dut)): bool(shared) for dut, shared in line["duts"]}
        if line["ev"] == "agent_seen" or line["cause"] == "leave":
            self._spoke[agent, int(line["seq"])] = True

    def _granted(self, line: Line) -> Iterator[Broken]:
        dut, agent = str(line.get("dut") or ""), str(line.get("agent", ""))
        if not dut:
            return
        before = self._newest.get(dut)
        fence, shared = fence_of(line), self._shared.get((agent, dut), False)
        self._newest[dut] = Grant(fence, str(line["job"]), agent, at_s(line), shared)
        if before is not None and not (
            before.fence in self._ended or before.fence in self._resolved
        ):
            yield from self._taken_from(before, dut, agent, at_s(line))

    def _taken_from(self, before: Grant, dut: str, agent: str, at: float) -> Iterator[Broken]:
        """Judge a grant of what somebody had who never said that he has ended."""
        if before.fence not in self._lost:
            yield Broken("I6", f"{dut} was granted while {before.fence} has it")
        elif self._own_word(before):
            return
        elif before.is_shared:
            silent = self._silence_s(before, self._lost[before.fence][1], at)
            if silent < self._lease_s(before):
                yield Broken("I6", f"{dut} was granted again {silent:.1f} s after it was held")
        elif agent != before.agent and self._told.get(before.agent, 0.0) <= before.at:
            yield Broken("I6", f"{dut} of {before.agent} was granted through {agent}: is it free?")

    def _own_word(self, grant: Grant) -> bool:
        return self._spoke.get((grant.agent, self._lost[grant.fence][0]), False)

    def _silence_s(self, grant: Grant, epoch: int, at: float) -> float:
        """Return how long the controller that gave it up had not heard of its agent."""
        since = max(grant.at, self._leads[epoch])
        return self._beats.silence_s(grant.agent, epoch, since, at)

    def _lease_s(self, grant: Grant) -> float:
        planned = self._planned.get(grant.job)
        disconnect_s = float(planned.spec["disconnect_s"]) if planned is not None else 0.0
        return (disconnect_s + GRANT_S if disconnect_s else SHARED_S) - SLACK_S

    def _too_late(self, line: Line) -> Iterator[Broken]:
        """A controller that heard others all the time gives a shared DUT up in time."""
        grant = next((each for each in self._newest.values() if each.fence == fence_of(line)), None)
        if grant is None or not grant.is_shared or self._own_word(grant):
            return
        epoch = int(line["epoch"])
        since = at_s(line) - self._silence_s(grant, epoch, at_s(line))
        late = at_s(line) - since - (self._lease_s(grant) + LATE_S - SHARED_S + SLACK_S)
        beats = [at for at, agent in self._others[epoch] if agent != grant.agent and at >= since]
        pauses = zip([since, *beats], [*beats, at_s(line)], strict=True)
        if late > 0 and all(after - before <= _DEAF_S for before, after in pauses):
            yield Broken("I6", f"what {grant.agent} held was given up {late:.1f} s too late")


def grants_wait(recorded: Recorded) -> Iterator[Broken]:
    """I6: what an agent that vanished held is granted when it can live no more, not before."""
    holds = _Holds(plans(recorded))
    kinds = ("assigned", "ended", "lost", "resolved", "agent_seen", "agent_moved")
    for line in recorded.of(*kinds, "renewed", "leads"):
        yield from holds.take(line)


def gangs_hold_together(recorded: Recorded) -> Iterator[Broken]:
    """I17: a gang gets its places in one frame; where one fails, the others go within 30 s."""
    planned = plans(recorded)
    mates: dict[tuple[str, int], set[str]] = defaultdict(set)
    for each in planned.values():
        if each.gang:
            mates[each.run, each.gang].add(each.job)
    final = _finals(recorded) if mates else {}
    for seq, jobs in sorted(_frames(recorded).items()) if mates else ():
        for key in {(planned[job].run, planned[job].gang) for job in jobs & planned.keys()}:
            open_ = {job for job in mates.get(key, ()) if final.get(job, seq) >= seq}
            if open_ - jobs:
                what = f"frame {seq} gave places to a gang, none to {sorted(open_ - jobs)}"
                yield Broken("I17", what)
    yield from _partial_holds(recorded, planned)


def _frames(recorded: Recorded) -> dict[int, set[str]]:
    """Return the jobs that each frame of the LOG gave a place."""
    frames: dict[int, set[str]] = defaultdict(set)
    for line in recorded.of("assigned"):
        frames[int(line["seq"])].add(str(line["job"]))
    return frames


def _finals(recorded: Recorded) -> dict[str, int]:
    """Return the frame in which each job ended."""
    moved = [line for line in recorded.of("moved") if line["cause"] in FINAL]
    return {str(line["job"]): int(line["seq"]) for line in reversed(moved)}


def _partial_holds(recorded: Recorded, planned: dict[str, Planned]) -> Iterator[Broken]:
    held: dict[int, tuple[str, str, int]] = {}  # fence -> job, agent, frame
    spoilt: dict[tuple[str, int, int], float] = {}  # (run, gang, frame) -> when
    told: set[int] = set()
    for line in recorded.of("assigned", "ended", "lost", "answered"):
        if line["ev"] == "assigned":
            job = str(line["job"])
            if job in planned and planned[job].gang:
                held[fence_of(line)] = (job, str(line["agent"]), int(line["seq"]))
        elif line["ev"] == "answered":
            for fence, (job, agent, seq) in held.items():
                since = spoilt.get((planned[job].run, planned[job].gang, seq), 1e18)
                late = at_s(line) - since
                if agent == line["agent"] and late > PARTIAL_S + SLACK_S and fence not in told:
                    told.add(fence)
                    yield Broken("I17", f"{job} holds its place {late:.0f} s after its gang failed")
        else:
            job, _, seq = held.pop(fence_of(line), ("", "", 0))
            if job and line.get("outcome", "lost") in _SPOILT:
                spoilt.setdefault((planned[job].run, planned[job].gang, seq), at_s(line))


class _Line:
    """Jobs that wait for a host, none of which may be passed by one that comes behind it."""

    def __init__(self) -> None:
        self._count = 0
        self._waiting: dict[str, tuple[Planned, int]] = {}  # job -> plan, ready since frame
        self._after: dict[str, list[Planned]] = defaultdict(list)
        self._missing: dict[str, int] = {}
        self._over: set[str] = set()
        self.anywhere: set[str] = set()

    def admit(self, line: Line) -> None:
        self._count += 1
        for each in jobs_of(line, self._count):
            self._missing[each.job] = len(each.after)
            for before in each.after:
                self._after[before].append(each)
            if not each.after:
                self._ready(each, int(line["seq"]))

    def end(self, job: str, seq: int) -> None:
        """Take a job out that has ended without a place, and let those behind it come."""
        self.leave(job)
        self._over.add(job)
        for each in self._after.pop(job, ()):
            self._missing[each.job] -= 1
            if not self._missing[each.job]:
                self._ready(each, seq)

    def leave(self, job: str) -> Planned | None:
        self.anywhere.discard(job)
        found = self._waiting.pop(job, None)
        return found[0] if found else None

    def forget(self, run: str) -> None:
        """Let go of a run that people hold back: it starts when they say so."""
        for job in [job for job, (each, _) in self._waiting.items() if each.run == run]:
            self.leave(job)

    def before(self, one: Planned, seq: int) -> Planned | None:
        """Return a job that waits since an earlier frame, and comes before `one`."""
        for each, since in self._waiting.values():
            same = (each.spec["need"], each.org) == (one.spec["need"], one.org)
            if same and since < seq and each.priority >= one.priority and each.order < one.order:
                return each
        return None

    def _ready(self, each: Planned, seq: int) -> None:
        if each.spec["simple"] and not each.gang and each.job not in self._over:
            self._waiting[each.job] = (each, seq)
            if each.spec["anywhere"] and each.spec["slots"] == 1:
                self.anywhere.add(each.job)


def the_line_holds(recorded: Recorded) -> Iterator[Broken]:
    """I27: of equal jobs for a host nobody is passed; what fits anywhere does not wait beside room.

    Only first attempts count: one that failed on a host waits for another.
    """
    line_up, room = _Line(), _Room()
    kinds = ("admitted", "assigned", "moved", "suspended", "ended", "lost", "answered")
    for line in recorded.of(*kinds, "agent_seen", "agent_moved", "leads"):
        job = str(line.get("job", ""))
        match line["ev"]:
            case "admitted":
                line_up.admit(line)
            case "assigned":
                one = line_up.leave(job)
                passed = line_up.before(one, int(line["seq"])) if one is not None else None
                if passed is not None:
                    yield Broken("I27", f"{job} was given a place before {passed.job}")
            case "moved" if line["cause"] in FINAL:
                line_up.end(job, int(line["seq"]))
            case "suspended":
                line_up.forget(run_of(job))
            case _:
                pass
        yield from room.take(line, sorted(line_up.anywhere)[:1])


class _Room:
    """Free slots of hosts that are heard, and since when somebody waits beside them."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._used: dict[int, tuple[str, int]] = {}
        self._sizes: dict[str, int] = {}
        self._since: dict[str, float] = {}
        self._answered: dict[str, float] = {}
        self._away: set[str] = set()

    def take(self, line: Line, waits: list[str]) -> Iterator[Broken]:
        agent = str(line.get("agent", ""))
        match line["ev"]:
            case "admitted":
                self._sizes |= {each.job: int(each.spec["slots"]) for each in jobs_of(line, 0)}
            case "assigned":
                self._used[fence_of(line)] = (agent, self._sizes.get(str(line["job"]), 0))
                self._since.clear()
            case "ended" | "lost":
                self._used.pop(fence_of(line), None)
            case "agent_seen":
                self._slots[agent] = int(line.get("slots", 0))
                self._away.discard(agent)
            case "agent_moved":
                (self._away.discard if line["cause"] == "beat" else self._away.add)(agent)
            case "leads":
                self._since.clear()
            case "answered":
                yield from self._looked(agent, line, waits)
            case _:
                pass

    def _looked(self, agent: str, line: Line, waits: list[str]) -> Iterator[Broken]:
        at, was = at_s(line), self._answered.get(agent, 0.0)
        self._answered[agent] = at
        used = sum(size for name, size in self._used.values() if name == agent)
        is_free = self._slots.get(agent, 0) > used and agent not in self._away
        if not waits or not is_free or line.get("draining") or at - was > IDLE_S:
            self._since.pop(agent, None)
            return
        since = self._since.setdefault(agent, at)
        if at - since > IDLE_S:
            self._since.pop(agent)
            what = f"{waits[0]} waits though {agent} has had a free slot for {at - since:.0f} s"
            yield Broken("I27", what)


RULES: tuple[Rule, ...] = (grants_wait, gangs_hold_together, the_line_holds)
