"""PURE: which regexes can be matched in a stream of console bytes, where no end is known.

What looks behind the end of a match would depend on bytes that have not come yet.
"""

import re

_LOOKS_ELSEWHERE = re.compile(rb"\\[AZbB]|\(\?[=!<(]|\$")
_ESCAPED_OR_CLASS = re.compile(rb"\\[^AZbB]|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)


def pattern_fault(source: str | bytes) -> tuple[str, str] | None:
    """Return why `source` cannot be matched in a stream, and the fix; None: it can."""
    raw = source.encode() if isinstance(source, str) else source
    looks = _LOOKS_ELSEWHERE.search(_ESCAPED_OR_CLASS.sub(b"x", raw))
    if looks:
        what = f"{looks.group().decode('latin-1')!a} looks beyond the match"
        return what, "leave it out: a prompt matches where its text ends"
    try:
        regex = re.compile(raw, re.MULTILINE)
    except re.error as error:
        return f"no regex: {error}", ""
    if regex.match(b""):
        return "it matches nothing at all", "say at least one byte"
    return None
