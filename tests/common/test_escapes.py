import re

import pytest
from hypothesis import given, strategies as st

from tshrag_common.escapes import shown_again

HARMFUL = {
    "who are you": b"\x1b[c",
    "who are you, secondary": b"\x1b[>0c",
    "where is the cursor": b"\x1b[6n",
    "status": b"\x1b[5n",
    "an old who are you": b"\x1bZ",
    "answer back": b"\x05",
    "which mode": b"\x1b[?25$p",
    "what setting": b"\x1bP$qm\x1b\\",
    "what terminfo": b"\x1bP+q544e\x1b\\",
    "what version": b"\x1b[>q",
    "report the title": b"\x1b[21t",
    "fill the clipboard": b"\x1b]52;c;ZXZpbA==\x07",
    "read the clipboard": b"\x1b]52;c;?\x1b\\",
    "what colour": b"\x1b]11;?\x07",
    "set the title": b"\x1b]0;evil\x07",
    "mouse on": b"\x1b[?1000h",
    "other screen": b"\x1b[?1049h",
    "pasted brackets": b"\x1b[?2004h",
    "reset": b"\x1bc",
    "other letters": b"\x1b(0\x0e",
    "clear": b"\x1b[2J\x1b[3J",
    "C1 in UTF-8": "\x9b6n\x9d52;c;eA==\x9c".encode(),
    "half of one": b"\x1b[>",
    "an open string": b"\x1b]52;c;eA==",
}
ALLOWED = re.compile(rb"\x1b\[[0-9;:]*[mKCDG]")


@pytest.mark.parametrize("what", HARMFUL)
def test_what_a_terminal_answers_or_obeys_is_left_out(what: str) -> None:
    shown = shown_again(b"before " + HARMFUL[what] + b"\r\nafter")
    assert b"\x1b" not in shown and not set(shown) & set(range(7))
    assert shown.startswith(b"before ") and shown.endswith(b"\r\nafter")


def test_text_colours_and_lines_stay() -> None:
    said = "\x1b[1;31mrot\x1b[0m grün\tä\b\r\n[  OK  ] \x1b[K50%\r60%\r\n".encode()
    assert shown_again(said) == said + b"\x1b[0m"
    assert shown_again(b"plain\r\n") == b"plain\r\n"


@given(st.binary(max_size=300))
def test_of_any_bytes_only_harmless_ones_are_left(data: bytes) -> None:
    shown = shown_again(data)
    left = ALLOWED.sub(b"", shown)
    assert not {*range(8), 11, 12, *range(14, 32), 127} & set(left)
    assert not any("\x7f" <= sign <= "\x9f" for sign in shown.decode())


pieces = st.lists(st.sampled_from([*HARMFUL.values(), b"\x1b", b"[", b"]", b"6n", b"c", b"\x07"]))


@given(pieces)
def test_nothing_harmful_is_made_of_what_is_left(found: list[bytes]) -> None:
    shown = shown_again(b"".join(found))
    assert b"\x1b" not in ALLOWED.sub(b"", shown)
