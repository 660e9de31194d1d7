"""How often an agent whose credentials are refused shows them again."""

from tshrag_agent.online import knock_s


def test_the_wait_doubles_up_to_a_minute_and_stays_there_for_weeks() -> None:
    assert [knock_s(refusals) for refusals in range(4)] == [15.0, 30.0, 60.0, 60.0]
    assert knock_s(20_000) == 60.0
