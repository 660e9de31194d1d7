import pytest
from hypothesis import given, strategies as st

from tshrag_agent.attempts.fences import Fences
from tshrag_common.errors import StaleFence
from tshrag_common.ids import DutId, Fence

B1, B2 = DutId("b1"), DutId("b2")


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5))))
def test_of_commands_in_any_order_only_newer_ones_are_heard(
    messages: list[tuple[int, int]],
) -> None:
    fences = Fences()
    heard = [message for message in messages if fences.hear(*message)]
    assert heard == sorted(set(heard))
    assert fences.heard == max([(0, 0), *messages])


@given(st.lists(st.tuples(st.sampled_from([B1, B2]), st.integers(1, 20))))
def test_what_a_dut_accepts_only_grows(starts: list[tuple[DutId, int]]) -> None:
    fences = Fences()
    accepted: dict[DutId, list[int]] = {B1: [], B2: []}
    for dut, fence in starts:
        try:
            fences.check(dut, Fence(fence))
        except StaleFence:
            assert fence <= max(accepted[dut])
            continue
        fences.take(dut, Fence(fence))
        accepted[dut].append(fence)
    for grown in accepted.values():
        assert grown == sorted(set(grown))


def test_a_stale_fence_names_the_newest_one() -> None:
    fences = Fences(duts={B1: Fence(7)})
    with pytest.raises(StaleFence, match="fence 7 is stale: 7 has been seen"):
        fences.check(B1, Fence(7))
