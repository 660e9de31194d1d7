from typing import Any

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.support.builders import S
from tests.support.lab_drill import (
    AGENTS,
    ALL_DUTS,
    CRITERION,
    DUTS,
    OUTCOMES,
    SPECS,
    Drill,
    history,
)
from tshrag_common.states import AgentCause

agents = st.sampled_from(AGENTS)
numbers = st.integers(0, 400)
boards = st.sampled_from(sorted(dut for duts in DUTS.values() for dut in duts))


@st.composite
def shapes(draw: st.DrawFn) -> list[list[int]]:
    count = draw(st.integers(1, 5))
    return [
        draw(st.lists(st.integers(1, serial - 1), max_size=2)) if serial > 1 else []
        for serial in range(1, count + 1)
    ]


class LabMachine(RuleBasedStateMachine):
    """Everything that may befall a lab, in any order; Drill holds what must stay true."""

    def __init__(self) -> None:
        super().__init__()
        self.drill = Drill()
        self.drill.hello("a1")

    @rule(
        after=shapes(),
        specs=st.lists(st.integers(0, len(SPECS) - 1), min_size=1, max_size=3),
        priority=st.sampled_from((0, 50, 100)),
        judged=st.booleans(),
        key=st.sampled_from(("", "", "k1", "k2")),
        window=st.sampled_from((0, 0, 0, 5)),
        deadline=st.sampled_from((0, 0, 0, 60)),
        limit=st.sampled_from((0, 0, 0, 90)),
    )
    def submit(
        self, after: list[list[int]], specs: list[int], priority: int, judged: bool, key: str,
        window: int, deadline: int, limit: int,
    ) -> None:  # fmt: skip
        now = self.drill.now
        self.drill.submit(
            after,
            specs,
            priority=priority,
            key=key,
            criteria=(CRITERION,) if judged else (),
            not_before=now + window * S if window else 0,
            deadline=now + deadline * S if deadline else 0,
            duration_us=limit * S,
        )

    @rule(name=agents, slots=st.integers(0, 3), fresh=st.booleans(), forgets=st.integers(0, 1))
    def hello(self, name: str, slots: int, fresh: bool, forgets: int) -> None:
        self.drill.hello(name, slots, fresh=fresh, forgets=forgets)

    @rule(name=agents, lost=st.integers(0, 2))
    def hello_without_some_duts(self, name: str, lost: int) -> None:
        self.drill.hello(name, duts=DUTS[name][lost:])

    @rule(name=agents)
    def goodbye(self, name: str) -> None:
        self.drill.goodbye(name)

    @rule(name=agents, number=numbers)
    def accepted(self, name: str, number: int) -> None:
        self.drill.say(name, "accepted", number)

    @rule(name=agents, number=numbers)
    def started(self, name: str, number: int) -> None:
        self.drill.say(name, "started", number)

    @rule(name=agents, number=numbers, outcome=st.sampled_from(OUTCOMES))
    def ended(self, name: str, number: int, outcome: str) -> None:
        self.drill.say(name, "ended", number, outcome=outcome)

    @rule(name=agents, number=numbers, samples=st.integers(0, 9), output=st.integers(0, 9))
    def ended_with_data(self, name: str, number: int, samples: int, output: int) -> None:
        more: dict[str, Any] = {"samples_upto": samples, "output_upto": output}
        self.drill.say(name, "ended", number, outcome="passed", **more)

    @rule(name=agents, samples=st.integers(0, 9), output=st.integers(0, 9))
    def stored(self, name: str, samples: int, output: int) -> None:
        self.drill.stored(name, samples, output)

    @rule(name=agents, number=numbers)
    def again(self, name: str, number: int) -> None:
        self.drill.again(name, number)

    @rule(name=agents)
    def gap(self, name: str) -> None:
        self.drill.gap(name)

    @rule(name=agents, cause=st.sampled_from((AgentCause.DOUBT, AgentCause.LOSE)))
    def silence(self, name: str, cause: AgentCause) -> None:
        self.drill.silence(name, cause)

    @rule(name=agents, silent_s=st.sampled_from((15.0, 30.0, 49.0, 50.0, 100.0)))
    def contact_over(self, name: str, silent_s: float) -> None:
        self.drill.contact_over(name, silent_s)

    @rule(number=numbers)
    def resolve(self, number: int) -> None:
        self.drill.resolve(number)

    @rule(name=agents, draining=st.booleans())
    def beat(self, name: str, draining: bool) -> None:
        self.drill.beat(name, draining)

    @rule(name=boards, faulty=st.sampled_from(("", "no answer")))
    def dut(self, name: str, faulty: str) -> None:
        self.drill.dut(name, faulty)

    @rule(number=numbers, job=st.integers(0, 6))
    def cancel(self, number: int, job: int) -> None:
        self.drill.cancel(number, job)

    @rule(number=numbers, verdict=st.sampled_from(("pass", "fail", "error")))
    def judge(self, number: int, verdict: str) -> None:
        self.drill.judge(number, verdict)

    @rule(
        number=st.integers(0, 12),
        by=st.sampled_from(("jo", "al")),
        what=st.sampled_from((*ALL_DUTS, "pi", "hub", "nothing")),
        for_s=st.sampled_from((1, 20, 300)),
        wait=st.booleans(),
    )
    def lease(self, number: int, by: str, what: str, for_s: int, wait: bool) -> None:
        self.drill.lease(number, by, what, for_s, wait)

    @rule(
        thing=st.sampled_from((*AGENTS, *ALL_DUTS)),
        what=st.sampled_from(
            ("cordoned", "draining", "maintenance", "quarantined", "in_service", "in_service")
        ),
        for_s=st.sampled_from((0, 20)),
        now_too=st.booleans(),
    )
    def intend(self, thing: str, what: str, for_s: int, now_too: bool) -> None:
        self.drill.intend(thing, what, for_s, now_too)

    @rule(
        number=numbers,
        job=st.integers(0, 5),
        how=st.sampled_from(("hold", "release", "release", "reschedule")),
        seconds=st.integers(0, 30),
    )
    def suspend(self, number: int, job: int, how: str, seconds: int) -> None:
        self.drill.suspend(number, job, how, seconds)

    @rule(
        number=st.integers(0, 5),
        dut=boards,
        in_s=st.sampled_from((1, 10, 90, 200)),
        for_s=st.sampled_from((5, 60)),
    )
    def reserve(self, number: int, dut: str, in_s: int, for_s: int) -> None:
        self.drill.reserve(number, dut, in_s, for_s)

    @rule(number=numbers, how=st.sampled_from(("renew", "hand", "share", "give_up", "release")))
    def lease_done(self, number: int, how: str) -> None:
        self.drill.lease_done(number, how)

    @rule(seconds=st.sampled_from((0.1, 1.0, 3.0, 31.0, 61.0, 100.0)))
    def pass_time(self, seconds: float) -> None:
        self.drill.pass_time(seconds)

    @rule(whole=st.booleans())
    def restart(self, whole: bool) -> None:
        self.drill.restart(whole)

    @invariant()
    def what_must_hold(self) -> None:
        self.drill.check()

    def teardown(self) -> None:
        if not self.drill.broken:
            self.drill.heal()


TestLabMachine = pytest.mark.timeout(300)(LabMachine.TestCase)  # a failure is made small first
TestLabMachine.settings = settings(
    max_examples=200,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    report_multiple_bugs=False,
)


@pytest.mark.parametrize("seed", range(40))
def test_a_lab_with_a_long_history_heals_and_every_run_ends(seed: int) -> None:
    drill = history(seed, 80)
    drill.check()
    drill.heal()


@pytest.mark.parametrize("seed", range(40))
def test_a_lab_whose_last_frame_was_torn_finishes_what_was_half_decided(seed: int) -> None:
    drill = history(500 + seed, 40 + seed % 7)
    drill.tear(seed % 5 / 5)
    drill.check()
    drill.heal()
