"""A flood of one org is refused at once, with the time to wait; others do not notice."""

import pytest
from hypothesis import given, strategies as st

from tshrag_common.errors import RateLimited
from tshrag_common.ids import OrgId
from tshrag_controller.intake.rates import Rates

ACME, BOLT = OrgId("acme"), OrgId("bolt")


class HandClock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def now(self) -> int:
        return 0

    def monotonic(self) -> float:
        return self.seconds


def test_what_is_too_much_is_refused_and_told_when_to_come_again() -> None:
    clock = HandClock()
    rates = Rates(clock, per_s=2.0, burst=3)
    for _ in range(3):
        rates.take(ACME)
    with pytest.raises(RateLimited) as caught:
        rates.take(ACME)
    line = "rate_limited: acme: an org may submit 2 times a second, 3 at once; try again in 0.5 s"
    assert caught.value.line == line
    assert caught.value.report().retry_after_s == 0.5
    assert caught.value.report().retryable
    rates.take(BOLT)
    clock.seconds += 0.5
    rates.take(ACME)
    with pytest.raises(RateLimited):
        rates.take(ACME)


def test_zero_is_no_limit() -> None:
    rates = Rates(HandClock(), per_s=0, burst=1)
    for _ in range(1000):
        rates.take(ACME)


@given(st.lists(st.floats(0, 5), max_size=200), st.floats(0.1, 50), st.integers(1, 20))
def test_no_org_gets_more_than_its_burst_and_its_rate(
    pauses: list[float], per_s: float, burst: int
) -> None:
    clock, taken = HandClock(), 0
    rates = Rates(clock, per_s, burst)
    for pause in pauses:
        clock.seconds += pause
        try:
            rates.take(ACME)
        except RateLimited as limited:
            clock.seconds += limited.retry_after_s + 1e-6
            rates.take(ACME)  # the time that was told is enough
        taken += 1
    assert taken <= burst + (clock.seconds - 100.0) * per_s + 1e-3
