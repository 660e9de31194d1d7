"""What the world does to a lab: garbage, clocks, full disks, the curious: I19 to I21, I25."""

from collections import Counter
from collections.abc import Iterator

from tests.chaos.recorded import Recorded, at_s, fence_of
from tests.chaos.verdicts import SLACK_S, Beats, Broken, Rule, plans

SUSPECT_S, LOST_S = 15.0, 30.0
SHOWN_S, WELL_S = 10.0, 60.0
_EARLY_S = 1.0


def garbage_is_set_aside(recorded: Recorded) -> Iterator[Broken]:
    """I19: what nobody can read is set aside, each message of it; no exception escapes."""
    aside: Counter[str] = Counter(str(line["sha"][0]) for line in recorded.of("set_aside"))
    for line in recorded.of("garbage"):
        sha = str(line["sha"][0])
        if not aside[sha]:
            yield Broken("I19", f"a message on {line['subject']} was swallowed without a word")
        aside[sha] -= 1
    for line in recorded.of("escaped"):
        if "LabError" not in line["kinds"]:
            kind = line["kinds"][0]
            yield Broken("I19", f"{line['actor']}: {line['room']}: {kind}: {line['why']}")


def time_is_monotonic(recorded: Recorded) -> Iterator[Broken]:
    """I20: nobody is doubted, lost or out of time before that much of true time has gone."""
    beats, leads = Beats(), dict[int, float]()
    for line in recorded.of("leads", "renewed", "agent_moved"):
        if line["ev"] == "leads":
            leads[int(line["chosen"])] = at_s(line)
            continue
        agent, epoch = str(line["agent"]), int(line["epoch"])
        if line["ev"] == "renewed":
            beats.hear(agent, epoch, at_s(line))
        elif line["cause"] in ("doubt", "lose"):
            least = SUSPECT_S if line["cause"] == "doubt" else LOST_S
            silent = beats.silence_s(agent, epoch, leads.get(epoch, 0.0), at_s(line))
            if silent < least - SLACK_S:
                yield Broken("I20", f"{agent}: {line['cause']} after {silent:.1f} s of silence")
    yield from _limits(recorded)


def _limits(recorded: Recorded) -> Iterator[Broken]:
    planned = plans(recorded)
    taken: dict[int, tuple[float, str]] = {}
    for line in recorded.of("taken", "gone"):
        fence, job = fence_of(line), str(line["job"])
        if line["ev"] == "taken":
            taken[fence] = (at_s(line), job)
        elif line["outcome"] == "timeout" and fence in taken and job in planned:
            spec, lived = planned[job].spec, at_s(line) - taken[fence][0]
            if spec["simple"] and lived < float(spec["timeout_s"]) - _EARLY_S:
                limit = float(spec["timeout_s"])
                yield Broken("I20", f"{job} was out of time after {lived:.1f} of {limit:g} s")


def full_disks_are_shown(recorded: Recorded) -> Iterator[Broken]:
    """I21: whoever asks sees a full disk within 10 s, and within 60 s that it is well again."""
    full: dict[str, float] = {}
    freed: dict[str, float] = {}
    for line in recorded.of("disk_full", "disk_freed", "health"):
        at = at_s(line)
        if line["ev"] == "disk_full":
            full[str(line["what"])] = at
        elif line["ev"] == "disk_freed":
            what = str(line["what"])
            if at - full.pop(what, at) > SHOWN_S + SLACK_S:
                yield Broken("I21", f"{what} was full, and nobody was told within {SHOWN_S:g} s")
            freed[what] = at
        elif any("full" in str(reason) for reason in line["reasons"]):
            full = {what: since for what, since in full.items() if at - since > SHOWN_S}
        else:
            late = [what for what, since in freed.items() if at - since > WELL_S]
            freed = {}
            for what in late:
                yield Broken("I21", f"{what} was told to be full {WELL_S:g} s after it was freed")


def secrets_stay_secret(recorded: Recorded) -> Iterator[Broken]:
    """I25: who looked for the secrets of the lab, everywhere, has found none."""
    for line in recorded.of("secret_seen"):
        yield Broken("I25", f"{line['what']} stands in {line['where']} ({line['form']})")


RULES: tuple[Rule, ...] = (
    garbage_is_set_aside,
    time_is_monotonic,
    full_disks_are_shown,
    secrets_stay_secret,
)
