from hypothesis import given, strategies as st

from tshrag_agent.slots import Slots
from tshrag_common import ids
from tshrag_common.commands import StartAttempt
from tshrag_common.ids import DEFAULT_ORG, DutId, Fence
from tshrag_common.inventory import Dut
from tshrag_common.jobs import JobSpec, Need, Target

RUN = ids.new_run(1, 1)
BOARD = DutId("board")
DUTS = {BOARD: Dut(id=BOARD, kind="pi", transports=("ssh",))}
ON_BOARD = JobSpec(kind="command", argv=("true",), need=Need(target=Target(runtime="ssh")))


def a_start(fence: int, dut: DutId | None = None) -> StartAttempt:
    return StartAttempt(
        fence=Fence(fence), org=DEFAULT_ORG, run=RUN, job=ids.job_of(RUN, 1), attempt=1,
        name="job", spec=0, dut=dut,
    )  # fmt: skip


def takes(slots: int) -> JobSpec:
    return JobSpec(kind="command", argv=("true",), need=Need(slots=slots))


def reason(slots: Slots, start: StartAttempt, spec: JobSpec) -> str:
    error = slots.refusal(start, spec)
    return "" if error is None else f"{error.code}: {error.message}"


@given(st.lists(st.one_of(st.integers(1, 4), st.just(0)), max_size=60))
def test_slots_are_never_oversold_and_always_given_back(moves: list[int]) -> None:
    slots = Slots(5, {})
    held: list[Fence] = []
    for number, wanted in enumerate(moves, 1):
        if wanted == 0 and held:
            slots.release(held.pop(), None)
        elif wanted and slots.refusal(a_start(number), takes(wanted)) is None:
            slots.take(a_start(number), takes(wanted))
            held.append(Fence(number))
        assert 0 <= slots.free <= 5
    for fence in held:
        slots.release(fence, None)
    assert slots.free == 5


def test_a_refusal_says_what_is_missing() -> None:
    slots = Slots(1, DUTS)
    assert reason(slots, a_start(1), takes(2)) == ("no_slots: 2 slots are needed, this host has 1")
    assert reason(slots, a_start(1, DutId("bord")), ON_BOARD) == (
        "unknown_dut: 'bord' is not known here; did you mean 'board'?"
    )
    assert reason(slots, a_start(1), ON_BOARD) == (
        "no_dut: the job wants a DUT over ssh, none is named"
    )
    serial = JobSpec(kind="command", need=Need(target=Target(runtime="serial")))
    assert reason(slots, a_start(1, BOARD), serial) == (
        "no_transport: DUT board is not reached over serial, but ssh"
    )
    slots.blame(BOARD, "its host key changed")
    assert reason(slots, a_start(1, BOARD), ON_BOARD) == (
        "dut_faulty: DUT board is out of service: its host key changed"
    )
    slots.blame(BOARD, "")
    assert reason(slots, a_start(1, BOARD), ON_BOARD) == ""


def test_a_newer_attempt_takes_a_dut_over_and_the_older_one_cannot_give_it_back() -> None:
    slots = Slots(0, DUTS)
    assert slots.take(a_start(1, BOARD), ON_BOARD) is None
    assert slots.take(a_start(2, BOARD), ON_BOARD) == 1
    slots.release(Fence(1), BOARD)
    assert slots.take(a_start(3, BOARD), ON_BOARD) == 2
