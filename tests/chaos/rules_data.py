"""What agents send: complete before a verdict, bounded, counted where dropped, each its own."""

from collections import defaultdict
from collections.abc import Iterator

from tests.chaos.recorded import Line, Recorded, agent_of, at_s, fence_of
from tests.chaos.verdicts import Broken, Rule, plans

OVERSHOOT_BYTES = 16 << 20
"""What was on its way into a spool when it became full."""
MOST_DESCRIPTORS, MOST_RSS_BYTES = 512, 1 << 30
_SETTLED_S = 30.0


class _Stores:
    """How far spools are stored, by each controller; what an attempt needs of them."""

    def __init__(self) -> None:
        self._spools: dict[tuple[str, str], str] = {}
        self._marks: dict[tuple[str, str], int] = defaultdict(int)  # (controller, spool)
        self._agents: dict[int, str] = {}
        self._newest: dict[str, int] = {}
        self._needs: dict[int, list[tuple[str, int]]] = {}
        self._leaders: dict[int, str] = {}  # epoch -> controller

    def take(self, line: Line) -> None:
        match line["ev"]:
            case "spooled":
                agent = agent_of(line)
                self._spools[agent, str(line["kind"])] = str(line["spool"])
            case "leads":
                self._leaders[int(line["chosen"])] = f"controller {line['node']}"
            case "assigned":
                self._newest[str(line["job"])] = fence_of(line)
                self._agents[fence_of(line)] = str(line.get("agent", ""))
            case "ended":
                agent = self._agents.get(fence_of(line), "")
                self._needs[fence_of(line)] = [
                    (self._spools.get((agent, kind), ""), int(last))
                    for kind, last in line.get("upto", {}).items()
                ]
            case _:
                key = (str(line["actor"]), str(line["spool"]))
                self._marks[key] = max(self._marks[key], int(line["upto"]))

    def missing(self, job: str, epoch: int) -> Iterator[str]:
        """Say what of a job is not stored where its verdict was made."""
        for spool, last in self._needs.get(self._newest.get(job, 0), ()):
            stored = self._marks[self._leaders.get(epoch, ""), spool]
            if last > stored:
                yield f"{stored} of {last} of {spool} are stored"


def verdicts_wait_for_data(recorded: Recorded) -> Iterator[Broken]:
    """I13: passed or failed comes after all that the attempt said is stored, there."""
    stores = _Stores()
    kinds = ("spooled", "stored", "recalled", "assigned", "ended", "leads")
    for line in recorded.of(*kinds, "moved"):
        if line["ev"] != "moved":
            stores.take(line)
        elif line["cause"] in ("pass", "fail"):
            for missing in stores.missing(str(line["job"]), int(line["epoch"])):
                yield Broken("I13", f"{line['job']} is a {line['cause']} while {missing}")


def all_is_bounded(recorded: Recorded) -> Iterator[Broken]:
    """I22: spools keep their quota, output its cap, processes their memory and descriptors."""
    planned = plans(recorded)
    caps: dict[int, int] = {}
    told: set[tuple[str, str]] = set()
    for line in recorded.of("assigned", "ended", "spooled", "footprint"):
        if line["ev"] == "assigned" and str(line["job"]) in planned:
            caps[fence_of(line)] = int(planned[str(line["job"])].spec["output_bytes"])
        elif line["ev"] == "ended" and fence_of(line) in caps:
            most = caps[fence_of(line)]
            for length, cut in line.get("said", ()):
                if length - cut > most:
                    yield Broken("I22", f"{fence_of(line)} kept {length - cut} of {most} bytes")
        else:
            for what, value, most in _measures(dict(line)):
                if value > most and (str(line["actor"]), what) not in told:
                    told.add((str(line["actor"]), what))
                    yield Broken("I22", f"{line['actor']}: {what} {value}, the bound is {most}")


def _measures(line: dict[str, object]) -> Iterator[tuple[str, int, int]]:
    if line["ev"] == "spooled" and "quota" in line:
        yield f"spool of {line['kind']}", _int(line["size"]), _int(line["quota"]) + OVERSHOOT_BYTES
    elif line["ev"] == "footprint":
        yield f"descriptors of {line['of']}", _int(line["descriptors"]), MOST_DESCRIPTORS
        yield f"memory of {line['of']}", _int(line["rss_bytes"]), MOST_RSS_BYTES


def _int(value: object) -> int:
    return int(str(value))


class _Samples:
    """The samples of one life of an agent: offered to its journal, on its disk, dropped."""

    def __init__(self) -> None:
        self._offers: list[tuple[float, int]] = []
        self._kept = self.dropped = 0
        self._last_s = 0.0
        self._stuck = False

    def take(self, line: Line) -> None:
        self._last_s = at_s(line)
        if line["ev"] == "write_failed":
            self._stuck = True
        elif line.get("kind") != "samples":
            return
        elif line["ev"] == "spooled":
            self._kept += len(line["sha"])
        elif line["ev"] == "offered":
            self._offers.append((at_s(line), int(line["count"])))
        else:
            self.dropped += int(line["count"])

    def fault(self) -> str:
        """Say how the count differs from the loss; empty where it does not."""
        known = self._kept + self.dropped
        offered = sum(count for _, count in self._offers)
        settled = sum(count for at, count in self._offers if at < self._last_s - _SETTLED_S)
        if offered and known > offered:
            return f"counts {known - offered} batches as dropped that it has"
        if known < settled and not self._stuck:
            return f"lost {settled - known} batches of samples without a count"
        return ""


def losses_are_counted(recorded: Recorded) -> Iterator[Broken]:
    """I23: samples that were offered are kept, or dropped and counted; the count is told."""
    found: dict[tuple[str, str], _Samples] = defaultdict(_Samples)
    counts: dict[str, set[int]] = defaultdict(lambda: {0})
    for line in recorded.of("offered", "spooled", "dropped", "write_failed", "renewed", "gone"):
        if line["ev"] == "renewed":
            agent, said = str(line["agent"]), int(line.get("dropped", 0))
            if said not in counts[agent]:
                yield Broken("I23", f"{agent} tells of {said} dropped batches, which it never had")
        else:
            one = found[str(line["actor"]), str(line.get("boot"))]
            one.take(line)
            counts[agent_of(line)].add(one.dropped)
    for (actor, boot), one in found.items():
        if one.fault():
            yield Broken("I23", f"{actor} ({boot}) {one.fault()}")


def ends_are_of_their_holders(recorded: Recorded) -> Iterator[Broken]:
    """I24: the end of an attempt counts only from the agent that holds it.

    Reports stand in a frame before the line that says whose they were, and how far.
    """
    holder: dict[int, str] = {}
    waiting: dict[int, list[int]] = defaultdict(list)  # frame -> ended fences
    for line in recorded.of("assigned", "ended", "applied"):
        agent = str(line.get("agent", ""))
        if line["ev"] == "assigned":
            holder[fence_of(line)] = agent
        elif line["ev"] == "ended":
            waiting[int(line["seq"])].append(fence_of(line))
        else:
            for fence in waiting.pop(int(line["seq"]), []):
                if holder.get(fence, agent) != agent:
                    yield Broken("I24", f"{agent} ended {fence} of {holder[fence]}")


def data_are_of_their_agents(recorded: Recorded) -> Iterator[Broken]:
    """I24: data count only for whose spool they are in, marks only of who reaches the DUT."""
    owner: dict[str, str] = {}
    duts: dict[str, set[str]] = defaultdict(set)
    for line in recorded.of("spooled", "applied", "stored", "agent_seen", "dut_marked"):
        agent, spool = str(line.get("agent", "")), str(line.get("spool", ""))
        if line["ev"] == "spooled":
            owner[spool] = agent_of(line)
        elif line["ev"] == "agent_seen":
            duts[agent] |= {str(dut) for dut, _ in line["duts"]}
        elif line["ev"] == "dut_marked":
            if agent in duts and line["dut"] not in duts[agent]:
                yield Broken("I24", f"{agent} marked {line['dut']}, which it does not reach")
        elif agent and owner.get(spool, agent) != agent:
            yield Broken("I24", f"{spool} of {owner[spool]} counts as of {agent}")


RULES: tuple[Rule, ...] = (
    verdicts_wait_for_data,
    all_is_bounded,
    losses_are_counted,
    ends_are_of_their_holders,
    data_are_of_their_agents,
)
