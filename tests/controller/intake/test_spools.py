from hypothesis import given, strategies as st

from tshrag_common.ids import AgentId, Epoch
from tshrag_common.reports import Heartbeat, SpoolState
from tshrag_controller.intake.spools import STUCK_S, Spools

A1 = AgentId("a1")


class FakeClock:
    """Time that a test turns."""

    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> int:
        return round(self.at * 1e6)

    def monotonic(self) -> float:
        return self.at


def a_beat(journal: str = "j1", last: int = 9, confirmed: int = 0) -> Heartbeat:
    return Heartbeat(
        agent=A1, boot="b", at=1, digest=0, heard=(Epoch(1), 1),
        reports=SpoolState(f"r-{journal}", last, confirmed),
        samples=SpoolState(f"s-{journal}", last, confirmed),
        output=SpoolState(f"o-{journal}", last, confirmed),
    )  # fmt: skip


def test_a_gap_is_asked_for_with_the_next_beat_and_once() -> None:
    spools = Spools(FakeClock())
    spools.gap(A1, "samples", 4)
    spools.hear(a_beat())
    assert spools.again(A1, "samples", 3) == 4
    assert spools.again(A1, "samples", 3) == 0, "it is on its way"
    assert spools.again(A1, "output", 9) == 0


def test_what_was_lost_without_a_gap_is_asked_for_when_nothing_moves() -> None:
    clock = FakeClock()
    spools = Spools(clock)
    spools.hear(a_beat(last=9))
    assert spools.again(A1, "reports", 7) == 0, "it may be on its way"
    clock.at += STUCK_S - 1
    assert spools.again(A1, "reports", 7) == 0
    clock.at += 2
    assert spools.again(A1, "reports", 7) == 8
    clock.at += STUCK_S - 1
    assert spools.again(A1, "reports", 7) == 0, "not with every beat"
    assert spools.again(A1, "reports", 8) == 0, "it moves"
    clock.at += STUCK_S + 1
    assert spools.again(A1, "reports", 8) == 9
    assert spools.again(A1, "reports", 9) == 0


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.floats(0, 30)), max_size=30))
def test_nothing_is_asked_for_that_we_have_or_that_the_agent_has_not(
    steps: list[tuple[int, int, float]],
) -> None:
    clock = FakeClock()
    spools = Spools(clock)
    for last, have, pause in steps:
        clock.at += pause
        spools.hear(a_beat(last=last))
        asked = spools.again(A1, "output", have)
        assert asked in (0, have + 1)
        assert asked <= last


def test_numbers_count_only_beside_the_spool_that_the_agent_has_now() -> None:
    spools = Spools(FakeClock())
    changed: list[str] = []
    spools.on_change(changed.append)
    assert not spools.is_current(A1, "samples", "s-j1")
    spools.hear(a_beat("j1", confirmed=5))
    spools.hear(a_beat("j1", confirmed=6))
    assert changed == [A1]
    assert spools.is_current(A1, "samples", "s-j1")
    assert spools.confirmed(A1, "samples", "s-j1") == 6
    assert spools.confirmed(A1, "samples", "s-j2") == 0
    spools.hear(a_beat("j2"))
    assert changed == [A1, A1]
    assert not spools.is_current(A1, "samples", "s-j1")
    spools.doubt(A1)
    assert not spools.is_known(A1)
    spools.hear(a_beat("j2"))
    assert changed == [A1] * 3
