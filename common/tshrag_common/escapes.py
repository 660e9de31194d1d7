"""PURE: what a board said once -> what may go to a person's terminal now.

A terminal answers questions (who are you, where is the cursor, what is your title) as if a person
had typed the answer, and it obeys: it changes its modes and title, and fills the clipboard. Said
live that is the talk of a program with a terminal. Said before anybody came it is not: the answer
would be typed to a board that no longer asks. What is shown again keeps text, colours and moves
inside a line.
"""

import re

_KEPT = r"\x1b\[[0-9;:]{0,32}[mKCDG]"
_STRINGS = r"\x1b[\]PX^_][^\x07\x1b\r\n\x9c]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS, SOS, PM, APC
_CSI = r"\x1b\[[\x20-\x3f]*[\x40-\x7e]?"
_ESC = r"\x1b[\x20-\x2f]*[\x30-\x7e]?"
_CONTROLS = r"[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]"
_ANY = re.compile(f"({_KEPT})|{_STRINGS}|{_CSI}|{_ESC}|{_CONTROLS}")
_PLAIN = b"\x1b[0m"


def shown_again(data: bytes) -> bytes:
    """Return `data` without what a terminal would answer or obey; colours end with it."""
    text = data.decode("utf-8", "replace")
    kept = _ANY.sub(lambda found: found[1] or "", text)
    coloured = _PLAIN if "\x1b" in kept else b""
    return kept.encode("utf-8", "replace") + coloured
