import pytest
from hypothesis import given, strategies as st

from tshrag_controller.cli.console_keys import (
    ESCAPE,
    Answered,
    Asked,
    Key,
    Keys,
    Ordered,
    Typed,
    escape_of,
    key_name,
)

ESC = bytes([ESCAPE])


def typed(keys: list[Key]) -> bytes:
    return b"".join(key.data for key in keys if isinstance(key, Typed))


@given(st.binary(max_size=80))
def test_what_holds_no_escape_key_is_the_board_s_byte_by_byte(data: bytes) -> None:
    data = data.replace(ESC, b"")
    assert typed(Keys().feed(data)) == data


def test_the_escape_key_twice_is_itself() -> None:
    assert Keys().feed(b"a" + ESC + ESC + b"b") == [Typed(b"a"), Typed(ESC), Typed(b"b")]


@pytest.mark.parametrize(
    ("letter", "order"),
    [(b"q", "quit"), (b".", "quit"), (b"b", "break"), (b"i", "status"), (b"?", "help"),
     (b"w", "size"), (b"p", "power"), (b"z", "unknown")],
)  # fmt: skip
def test_a_letter_behind_it_is_an_order(letter: bytes, order: str) -> None:
    assert Keys().feed(b"ls" + ESC + letter + b"\r") == [
        Typed(b"ls"), Ordered(order), Typed(b"\r")]  # type: ignore[arg-type]  # fmt: skip


def test_a_path_is_typed_to_the_end_of_its_line_and_nothing_of_it_reaches_the_board() -> None:
    keys = Keys()
    found = keys.feed(ESC + b"s/tmp/x\x7fy\rls")
    assert found[0] == Asked("send file", "")
    assert found[-2] == Answered("send file", "/tmp/y")
    assert found[-1] == Typed(b"ls")
    assert typed(found) == b"ls"


def test_a_line_is_given_up_by_ctrl_c() -> None:
    assert Keys().feed(ESC + b"sab\x03c")[-2:] == [Ordered("cancelled"), Typed(b"c")]


@given(st.binary(max_size=60), st.integers(0, 60))
def test_keys_mean_the_same_however_they_are_cut(data: bytes, cut: int) -> None:
    whole, parts = Keys(), Keys()
    expected = whole.feed(data)
    found = parts.feed(data[:cut]) + parts.feed(data[cut:])
    assert typed(found) == typed(expected)
    assert [k for k in found if not isinstance(k, Typed)] == [
        k for k in expected if not isinstance(k, Typed)
    ]


def test_another_escape_key_may_be_chosen() -> None:
    assert escape_of("^a") == escape_of("^A") == 1
    assert key_name(escape_of("^]")) == "Ctrl-]"
    assert Keys(escape_of("~")).feed(b"~q") == [Ordered("quit")]
    with pytest.raises(ValueError, match="no key"):
        escape_of("abc")
