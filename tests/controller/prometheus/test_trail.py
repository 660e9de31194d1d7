from hypothesis import given, strategies as st

from tshrag_controller.prometheus.trail import OVERLAP_US, Trail
from tshrag_controller.store.since import Place

S = 1_000_000


def a_trail(places: list[int], keep_s: int = 3600) -> Trail:
    trail = Trail(keep_s * S)
    for second, chunk in enumerate(places):
        trail.note(second * S, Place(1, chunk))
    return trail


def test_a_leader_tells_the_instant_before_which_all_is_copied() -> None:
    trail = a_trail([0, 3, 3, 7, 9])
    assert trail.copied_at(Place(1, 9)) == 4 * S
    assert trail.copied_at(Place(1, 6)) == 2 * S
    assert Trail(S).copied_at(Place(1, 6)) == 0


def test_a_standby_that_is_new_copies_all_that_it_has() -> None:
    assert a_trail([5, 6]).place_before(2 * S) == Place()


def test_what_is_too_old_for_the_other_side_is_not_gone_through_again() -> None:
    assert a_trail(list(range(200)), keep_s=10).place_before(0) > Place(1, 100)


@given(
    mine=st.lists(st.integers(0, 5), min_size=1, max_size=120),
    theirs=st.lists(st.integers(0, 5), min_size=1, max_size=120),
    copied=st.integers(0, 700),
)
def test_nothing_that_the_leader_has_not_copied_is_passed_over(
    mine: list[int], theirs: list[int], copied: int
) -> None:
    """Whatever both have stored when: what came here since then, and a while before, is sent."""
    leader = a_trail([sum(theirs[: n + 1]) for n in range(len(theirs))])
    standby = a_trail([sum(mine[: n + 1]) for n in range(len(mine))])
    at = leader.copied_at(Place(1, copied))
    place = standby.place_before(at)
    stored = [sum(mine[: n + 1]) for n in range(len(mine)) if n * S <= at - OVERLAP_US]
    assert place <= Place(1, max(stored, default=0))
