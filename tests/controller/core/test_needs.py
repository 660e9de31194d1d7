from hypothesis import given, strategies as st

from tests.support.builders import a_dut, facts
from tshrag_common.ids import AgentId, DutId, Fence, RunId
from tshrag_common.inventory import AgentFacts, Dut
from tshrag_common.jobs import Need, Target
from tshrag_common.states import AgentState
from tshrag_controller.core.lab import Agent, DutRow
from tshrag_controller.core.needs import blocked, misfits

words = st.sampled_from(("x", "y", "z"))
labels = st.dictionaries(words, words, max_size=3)
needs = st.builds(
    Need,
    target=st.builds(
        Target,
        runtime=st.sampled_from(("host", "dut", "ssh", "serial")),
        kind=st.sampled_from(("", "pi", "hub")),
        labels=labels,
        duts=st.sampled_from(((), ("b1",), ("b1", "b2"))),
        hosts=st.sampled_from(((), ("a1",), ("a2", "a3"))),
    ),
    platforms=st.sampled_from(((), (("linux", "arm64"),), (("linux", "x86_64"),))),
    tools=st.sampled_from(((), ("git",), ("git", "iperf3"))),
    slots=st.integers(1, 3),
)


def texts(need: Need, host: AgentFacts, dut: Dut | None) -> list[str]:
    return [reason.text for reason in misfits(need, host, dut)]


@given(needs, labels)
def test_asking_for_less_never_fits_less(need: Need, has: dict[str, str]) -> None:
    host = AgentFacts(
        agent=AgentId("a1"), boot="b", version="0", slots=2, labels=has, tools=("git",)
    )
    dut = a_dut("b1", labels=has, arch="arm64") if need.wants_dut else None
    easy = Need(target=Target(runtime=need.target.runtime), slots=1)
    assert len(misfits(easy, host, dut)) <= len(misfits(need, host, dut))


@given(needs)
def test_a_place_that_fits_and_is_not_blocked_is_free_and_the_reasons_have_words(
    need: Need,
) -> None:
    dut = a_dut("b1") if need.wants_dut else None
    for reason in misfits(need, facts(), dut):
        assert reason.code
        assert reason.text


def test_all_reasons_are_told_at_once() -> None:
    target = Target(runtime="serial", kind="hub", labels={"arch": "arm64", "rack": "7"})
    need = Need(target=target, tools=("git",), platforms=(("linux", "riscv64"),))
    dut = a_dut("b1", labels={"rack": "6"}, arch="arm64")
    assert texts(need, facts(), dut) == [
        "host lacks git",
        "kind is pi, not hub",
        "reached by ssh, not by serial",
        "label arch is missing",
        "label rack is 6, not 7",
        "the load has no entry for linux/arm64, only for linux/riscv64",
    ]


def test_labels_of_a_board_come_before_those_of_its_host() -> None:
    host = AgentFacts(agent=AgentId("a1"), boot="b", version="0", slots=1, labels={"rack": "7"})
    need = Need(target=Target(runtime="ssh", labels={"rack": "7"}))
    assert texts(need, host, a_dut("b1")) == []
    assert texts(need, host, a_dut("b1", labels={"rack": "8"})) == ["label rack is 8, not 7"]


def test_a_host_without_boards_and_a_job_too_large_for_it() -> None:
    assert texts(Need(target=Target(runtime="ssh")), facts(), None) == ["host has no DUT"]
    assert texts(Need(slots=9), facts(slots=2), None) == ["needs 9 slots, host has 2"]


def test_names_are_compared_whole() -> None:
    need = Need(target=Target(runtime="ssh", duts=("b2",), hosts=("a2",)))
    assert texts(need, facts("a1"), a_dut("b1")) == [
        "host a1 is not one of a2", "DUT b1 is not one of b2",
    ]  # fmt: skip


def test_what_is_in_the_way_now() -> None:
    need = Need(target=Target(runtime="ssh"))
    agent = Agent(facts=facts(slots=2), state=AgentState.DRAINING, host_slots=2)
    row = DutRow(a_dut("b1"), AgentId("a1"), holder=Fence(9), faulty="hot", gone=True)
    assert [reason.code for reason in blocked(need, agent, row, "run-1")] == [
        "agent", "gone", "faulty", "held",
    ]  # fmt: skip
    kept = DutRow(a_dut("b1"), AgentId("a1"), kept_by=RunId("run-2"))
    agent.state = AgentState.ONLINE
    assert [each.text for each in blocked(need, agent, kept, "run-1")] == [
        "DUT b1 is kept by run-2"
    ]
    assert not blocked(need, agent, kept, "run-2")
    assert [each.text for each in blocked(Need(), agent, None, "")] == ["2 of 2 slots taken"]
    assert DutId("b1") == kept.dut.id
