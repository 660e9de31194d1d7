"""Holds a recorded history against the invariants, as far as it tells; offline, knows no product.

Each rule yields sentences, one a violation. Times are those of the machine's one monotonic clock.
Which invariant is held by which rule, or by which test: docs/explanation/proving-it.md.
"""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from tests.chaos import rules_data, rules_grants, rules_world
from tests.chaos.recorded import Line, Recorded, at_s, fence_of, run_of
from tests.chaos.verdicts import FINAL, SLACK_S, Broken, Life, Rule, lives

DEAD_WITHIN_S = 10.0
"""After an end, a cancel, a verdict: whatever lives longer is a survivor."""
_MOST_FAULTS = 3


def check(recorded: Recorded) -> list[Broken]:
    """Return all that does not hold."""
    return [broken for rule in RULES for broken in rule(recorded)]


def accepted_runs_end(recorded: Recorded) -> Iterator[Broken]:
    """I1: what was accepted is admitted, and it and each of its jobs reach a final state."""
    admitted = {str(line["job"]): int(line["jobs"]) for line in recorded.of("admitted")}
    judged = {str(line["job"]) for line in recorded.of("judged")}
    ended: dict[str, set[str]] = defaultdict(set)
    for line in recorded.of("moved"):
        if line["cause"] in FINAL:
            ended[run_of(str(line["job"]))].add(str(line["job"]))
    for line in recorded.of("accepted"):
        run = str(line["job"])
        if run not in admitted:
            yield Broken("I1", f"{run} was accepted and is in no frame")
        elif run not in judged:
            yield Broken("I1", f"{run} was accepted and has no final state")
        elif len(ended[run]) != admitted[run]:
            yield Broken("I1", f"{len(ended[run])} of {admitted[run]} jobs of {run} have ended")


def final_states_stay(recorded: Recorded) -> Iterator[Broken]:
    """I2: after a final state nothing is assigned and nothing moves."""
    final: dict[str, str] = {}
    for line in recorded.of("assigned", "moved", "judged"):
        job, cause = str(line["job"]), str(line.get("cause", "assign"))
        if job in final:
            yield Broken("I2", f"{job} was {final[job]}, then came {cause}")
        if cause in FINAL:
            final[job] = cause


def one_attempt_a_dut(recorded: Recorded) -> Iterator[Broken]:
    """I3: the life times of attempts on one DUT, and of attempts of one job, never meet."""
    by_dut: dict[str, list[Life]] = defaultdict(list)
    by_job: dict[str, list[Life]] = defaultdict(list)
    for life in lives(recorded):
        by_job[life.job].append(life)
        if life.dut:
            by_dut[life.dut].append(life)
    for rule, groups in (("I3", by_dut), ("I14", by_job)):
        for place, group in groups.items():
            yield from _meeting(rule, place, sorted(group, key=lambda life: life.first_s))


def _meeting(rule: str, place: str, group: list[Life]) -> Iterator[Broken]:
    for number, one in enumerate(group):
        for other in group[number + 1 :]:
            same = (one.job, one.attempt) == (other.job, other.attempt)
            if not same and other.first_s < one.last_s:
                names = f"{one.job}#{one.attempt} and {other.job}#{other.attempt}"
                yield Broken(rule, f"{names} lived together on {place}")


def no_attempt_runs_twice(recorded: Recorded) -> Iterator[Broken]:
    """I14: an attempt that has died does not live again; no fence is taken twice."""
    seen: set[tuple[str, int]] = set()
    for life in sorted(lives(recorded), key=lambda each: each.first_s):
        key = (life.job, life.attempt)
        if key in seen:
            yield Broken("I14", f"{life.job}#{life.attempt} ran twice")
        seen.add(key)
    taken: set[int] = set()
    for line in recorded.of("taken"):
        if fence_of(line) in taken:
            yield Broken("I14", f"fence {fence_of(line)} of {line['job']} was taken twice")
        taken.add(fence_of(line))


def fences_only_grow(recorded: Recorded) -> Iterator[Broken]:
    """I4: on each DUT, for the controller, the agent and the board itself; none without a grant."""
    newest: dict[tuple[str, str], int] = {}
    granted = {fence_of(line) for line in recorded.of("assigned")}
    for line in recorded.of("assigned", "taken", "fence_taken"):
        fence, dut = fence_of(line), str(line.get("dut") or "")
        if granted and fence not in granted and line["ev"] == "taken":
            yield Broken("I4", f"fence {fence} was taken and granted by nobody")
        if not dut:
            continue
        where = (str(line["ev"]), dut)
        step = line["ev"] == "fence_taken"  # steps of one attempt share its fence
        if fence < newest.get(where, 0) or (fence == newest.get(where) and not step):
            yield Broken("I4", f"{dut}: {where[0]} {fence} after {newest[where]}")
        newest[where] = max(fence, newest.get(where, 0))


def ends_are_ends(recorded: Recorded) -> Iterator[Broken]:
    """I5, I7, I26: nothing lives 10 s after its end was told, its run cancelled or judged."""
    told: dict[str, tuple[float, str, str]] = {}
    names = {fence_of(line): line for line in recorded.of("assigned")}
    hung = {str(line["job"]) for line in recorded.of("hangs")}  # on purpose, in the kernel: F24
    for line in recorded.of("ended", "cancelled", "judged"):
        if line["ev"] == "ended" and fence_of(line) in names:
            assigned = names[fence_of(line)]
            key = f"{assigned['job']}#{assigned['attempt']}"
            told[key] = (at_s(line), "I5", f"the end of {key}")
        elif line["ev"] == "judged" or (line["ev"] == "cancelled" and not line["pending"]):
            rule = "I26" if line["ev"] == "judged" else "I7"
            told.setdefault(str(line["job"]), (at_s(line), rule, f"{line['job']} {line['ev']}"))
    for life in lives(recorded):
        if run_of(life.job) in hung:
            continue
        for key in (f"{life.job}#{life.attempt}", life.job, run_of(life.job)):
            at, rule, what = told.get(key, (1e18, "", ""))
            if life.last_s > at + DEAD_WITHIN_S + SLACK_S and life.first_s < at:
                late = life.last_s - at
                yield Broken(rule, f"{life.job}#{life.attempt} lives {late:.1f} s after {what}")
                break


def every_attempt_ends(recorded: Recorded) -> Iterator[Broken]:
    """I8: an attempt that an agent took is told as ended, or the controller gave it up."""
    over = {fence_of(line) for line in recorded.of("ended", "lost")}
    for line in recorded.of("assigned"):
        if fence_of(line) not in over:
            yield Broken("I8", f"attempt {fence_of(line)} of {line['job']} has no end")


def spools_are_kept(recorded: Recorded) -> Iterator[Broken]:
    """I9 to I12: trimmed only what is committed, all that is spooled is, nothing else, in order."""
    bodies: dict[tuple[str, int], str] = {}
    last: dict[str, int] = defaultdict(int)
    committed: dict[str, int] = defaultdict(int)
    each: dict[str, int] = defaultdict(int)
    boots: dict[str, str] = {}
    for line in recorded.of("spooled", "trimmed", "applied", "stored"):
        spool, ev = str(line["spool"]), line["ev"]
        if ev == "spooled":
            yield from _spooled(line, spool, bodies, last, boots)
        elif ev == "trimmed":
            if int(line["seq"]) > committed[spool]:
                upto = committed[spool]
                yield Broken("I9", f"{spool} trimmed to {line['seq']}, committed {upto}")
        else:
            yield from _committed(line, spool, committed, each)
    yield from _all_committed(last, committed)


def _all_committed(last: dict[str, int], committed: dict[str, int]) -> Iterator[Broken]:
    for spool in sorted(last.keys() | committed.keys()):
        if committed[spool] < last[spool]:
            missing = f"{committed[spool] + 1}..{last[spool]}"
            yield Broken("I10", f"{spool}: {missing} are spooled and not committed")
        elif committed[spool] > last[spool]:
            yield Broken("I11", f"{spool}: {committed[spool]} committed, {last[spool]} spooled")


def _spooled(
    line: Line,
    spool: str,
    bodies: dict[tuple[str, int], str],
    last: dict[str, int],
    boots: dict[str, str],
) -> Iterator[Broken]:
    first = int(line["seq"])
    writer, boots[spool] = boots.get(spool, line["boot"]), str(line["boot"])
    if first > last[spool] + 1 and writer == line["boot"]:  # another may have died before its line
        yield Broken("I12", f"spool {spool} goes from {last[spool]} to {first}")
    for number, sha in enumerate(line["sha"], first):
        if bodies.setdefault((spool, number), sha) != sha:
            yield Broken("I11", f"{spool} number {number} has two bodies")
        last[spool] = max(last[spool], number)


def _committed(
    line: Line, spool: str, committed: dict[str, int], each: dict[str, int]
) -> Iterator[Broken]:
    upto, own = int(line["upto"]), f"{spool} of {line.get('boot')}"
    if upto < each[own]:  # of each controller by itself: a standby stores what the leader does
        yield Broken("I12", f"{spool}: committed {each[own]}, then only {upto}")
    each[own] = max(each[own], upto)
    committed[spool] = max(committed[spool], upto)


def epochs_only_grow(recorded: Recorded) -> Iterator[Broken]:
    """I15: one controller an epoch; frames and obeyed commands never fall back."""
    leaders: dict[int, str] = {}
    for line in recorded.of("leads"):
        epoch, who = int(line["chosen"]), str(line["node"])
        if epoch in leaders:
            yield Broken("I15", f"epoch {epoch} has two leaders: {leaders[epoch]}, {who}")
        leaders[epoch] = who
    by_seq = sorted(
        (int(line["seq"]), int(line["epoch"])) for line in recorded.of("assigned", "moved")
    )
    for (seq, epoch), (_, other) in pairwise(by_seq):
        if other < epoch:
            yield Broken("I15", f"epoch {other} wrote behind frame {seq} of epoch {epoch}")
    heard: dict[str, int] = {}
    for line in recorded.of("taken"):
        actor, epoch = str(line["actor"]), int(line["epoch"])
        if epoch < heard.get(actor, 0):
            yield Broken("I15", f"{actor} obeyed epoch {epoch} after {heard[actor]}")
        heard[actor] = max(epoch, heard.get(actor, 0))


def one_run_a_key(recorded: Recorded) -> Iterator[Broken]:
    """I16: one idempotency key, one run; one run is admitted once."""
    runs: dict[str, str] = {}
    for line in recorded.of("accepted"):
        key, run = str(line.get("key") or ""), str(line["job"])
        if key and runs.setdefault(key, run) != run:
            yield Broken("I16", f"key {key} is {runs[key]} and {run}")
    admitted: set[str] = set()
    for line in recorded.of("admitted"):
        if str(line["job"]) in admitted:
            yield Broken("I16", f"{line['job']} was admitted twice")
        admitted.add(str(line["job"]))


def poison_is_given_up(recorded: Recorded) -> Iterator[Broken]:
    """I18: a job whose attempts fail by the fault of the lab is given up after the third."""
    faults: dict[str, int] = defaultdict(int)
    jobs = {fence_of(line): str(line["job"]) for line in recorded.of("assigned")}
    for line in recorded.of("ended", "lost", "assigned"):
        job = jobs.get(fence_of(line), "")
        if line["ev"] == "lost" or line.get("outcome") == "error":
            faults[job] += 1
        elif line["ev"] == "assigned" and faults[job] >= _MOST_FAULTS:
            yield Broken("I18", f"{job} was tried again after {faults[job]} faults")


RULES: tuple[Rule, ...] = (
    accepted_runs_end,
    final_states_stay,
    one_attempt_a_dut,
    no_attempt_runs_twice,
    fences_only_grow,
    ends_are_ends,
    every_attempt_ends,
    spools_are_kept,
    epochs_only_grow,
    one_run_a_key,
    poison_is_given_up,
    *rules_data.RULES,
    *rules_grants.RULES,
    *rules_world.RULES,
)
