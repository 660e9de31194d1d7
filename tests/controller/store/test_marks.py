"""A spool that is stored from its end: every number once, in whatever order its parts come."""

from hypothesis import given, strategies as st

from tshrag_controller.store.marks import Standing, fit, skip

Message = tuple[int, int]
"""(first number, how many)"""


@st.composite
def a_spool(draw: st.DrawFn) -> list[Message]:
    """Return the messages of a spool as its stream holds them; some were sent again."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=12))
    messages: list[Message] = []
    first = 1
    for size in sizes:
        messages.append((first, size))
        first += size
        again = draw(st.integers(0, len(messages)))
        if again and draw(st.booleans()):
            begin = messages[-again][0]
            messages.append((begin, first - begin))
    return messages


@given(a_spool(), st.data())
def test_a_spool_that_is_filled_from_behind_has_each_number_once(
    spool: list[Message], data: st.DataObject
) -> None:
    begin = data.draw(st.integers(0, len(spool)), label="the newer part begins here")
    newer, older = list(spool[begin:]), list(spool[:begin])
    standing, taken = Standing(), list[int]()
    while newer or older:
        is_newer = bool(newer) and (not older or data.draw(st.booleans()))
        first, count = (newer if is_newer else older).pop(0)
        standing, new, gap_from = fit(standing, first, count, ahead=is_newer)
        assert not gap_from
        taken += new
    last = max(first + count - 1 for first, count in spool)
    assert sorted(taken) == list(range(1, last + 1))
    assert standing == Standing(last)


def test_a_second_gap_is_no_part_of_it() -> None:
    standing = fit(Standing(3), 10, 2, ahead=True).standing
    assert standing == Standing(11, 10, 3)
    assert fit(standing, 14, 1, ahead=True).gap_from == 12
    assert fit(standing, 6, 2).gap_from == 4
    assert standing.whole == 3


def test_a_gap_is_one_where_nothing_is_filled() -> None:
    assert fit(Standing(), 5, 1).gap_from == 1


def test_an_attempt_that_began_behind_the_base_need_not_wait_for_what_is_before() -> None:
    standing = Standing(20, 10, 3)
    assert standing.holds(9, 20)
    assert not standing.holds(8, 20), "its first sample is number 9"
    assert not standing.holds(9, 21), "its last has not come"
    assert standing.holds(0, 3)
    assert not standing.holds(0, 20), "nobody knows where it began"


def test_what_will_never_come_is_passed_over_in_its_own_part() -> None:
    standing = Standing(20, 10, 3)
    assert skip(standing, 4, 6) == Standing(20, 10, 6)
    assert skip(standing, 4, 9) == Standing(20)
    assert skip(standing, 21, 25) == Standing(25, 10, 3)
