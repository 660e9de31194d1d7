from hypothesis import given, strategies as st

from tshrag_agent.transport.reboots import RebootSigns


def signs(*chunks: bytes) -> RebootSigns:
    made = RebootSigns("login: ?", silence_s=1.0)
    for chunk in chunks:
        made.feed(chunk)
    return made


def test_without_a_sign_there_is_nothing_to_look_for() -> None:
    assert not signs(b"all is well").look_due(1000)


@given(st.integers(0, 40))
def test_a_sign_is_seen_however_it_is_cut(at: int) -> None:
    text = b"[    0.000000] Linux version 6.1"
    assert signs(text[:at], text[at:]).banner


def test_a_look_comes_in_silence_and_later_each_time() -> None:
    made = signs(b"board login: ")
    assert not made.look_due(0.5)
    assert made.look_due(1.0)
    made.feed(b"board login: ")
    assert not made.look_due(1.5)
    assert made.look_due(2.0)


def test_a_prompt_counts_once_a_banner_for_longer_but_not_for_ever() -> None:
    made = signs(b"board login: ")
    assert made.look_due(1000) and not made.look_due(1000)
    made.feed(b"U-Boot 2026.01")
    assert sum(made.look_due(10**6) for _ in range(100)) == 7
