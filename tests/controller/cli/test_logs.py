"""Output on a terminal: cut anywhere, harmless everywhere."""

from hypothesis import given, strategies as st

from tshrag_controller.cli.logs import Cleaner
from tshrag_controller.reports.text import decoded


def shown(data: bytes, cuts: list[int], colour: bool = False) -> str:
    cleaner, at, text = Cleaner(colour), 0, ""
    for cut in sorted({min(cut, len(data)) for cut in cuts} | {len(data)}):
        text += cleaner.take(data[at:cut])
        at = cut
    return text + cleaner.end()


OUTPUT = st.one_of(
    st.binary(max_size=80),
    st.lists(
        st.sampled_from(
            [b"\x1b[31m", b"\x1b[0m", b"\x1b", b"[", b"\x1b]52;c;eA==\x07", b"\r\n", b"\r",
             b"\xc3\xbc", b"\x9b", b"a", b"\xe2\x80", b"\xae", b"\x1b[2J", b"\x1b[1;4m"]
        ),
        max_size=20,
    ).map(b"".join),
)  # fmt: skip


@given(OUTPUT, st.lists(st.integers(0, 80), max_size=6))
def test_where_output_is_cut_changes_nothing(data: bytes, cuts: list[int]) -> None:
    assert shown(data, cuts).rstrip("\n") == decoded(data).rstrip("\n")
    assert shown(data, cuts, colour=True) == shown(data, [], colour=True)


@given(OUTPUT)
def test_no_control_but_newline_and_tab_reaches_the_terminal(data: bytes) -> None:
    assert not [char for char in shown(data, []) if ord(char) < 32 and char not in "\n\t"]


@given(OUTPUT)
def test_with_colours_only_colours_get_through(data: bytes) -> None:
    text = shown(data, [], colour=True)
    rest = text.split("\x1b[")
    assert "\x1b" not in "".join(rest).replace("\x1b[", "")
    for part in rest[1:]:
        end = part.index("m")
        assert set(part[:end]) <= set("0123456789;:")
    assert text.rstrip("\n").endswith("\x1b[0m")


def test_the_prompt_after_it_begins_on_a_line_of_its_own() -> None:
    assert shown(b"no newline", []).endswith("\n")
    assert shown(b"a newline\n", []) == "a newline\n"
    assert shown(b"", []) == ""
