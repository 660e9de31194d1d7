import pytest
from hypothesis import given, strategies as st

from tshrag_agent.transport.expect import BadPattern, Literal, Match, Matcher, Pattern, Regex

LOGIN = Regex(name="login", source=rb"[\w.-]{0,32} login: ?")
PROMPT = Regex(name="prompt", source=rb"^[\w@:~/-]{0,40}[#$] ", window_bytes=64)
PANIC = Literal(name="panic", text=b"Kernel panic - not syncing")
PATTERNS: tuple[Pattern, ...] = (LOGIN, PROMPT, PANIC, Literal(name="ab", text=b"ab"))

pieces = st.sampled_from(
    [
        *(b"board login: ", b"login:", b"root@b:~# ", b"\n", b"$ ", b"a", b"b", b"x", b"." * 70),
        *(b"Kernel panic - ", b"not syncing", b"\r\n", b"\x00\xff"),
    ]
)
streams = st.lists(pieces, max_size=12).map(b"".join)


def matches(patterns: tuple[Pattern, ...], chunks: list[bytes]) -> list[Match]:
    matcher, found = Matcher(patterns), list[Match]()
    for chunk in chunks:
        match = matcher.feed(chunk)
        while match:
            found.append(match)
            match = matcher.feed()
    return found


@given(streams, st.data())
def test_the_way_a_stream_is_cut_never_changes_the_matches(
    stream: bytes, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole = matches(PATTERNS, [stream])
    assert matches(PATTERNS, chunks) == whole
    assert matches(PATTERNS, [stream[i : i + 1] for i in range(len(stream))]) == whole
    assert all(stream[m.start : m.end] == m.text for m in whole)


def test_the_match_that_ends_first_wins() -> None:
    slow, fast = Literal(name="slow", text=b"abcdef"), Literal(name="fast", text=b"cd")
    assert [m.name for m in matches((slow, fast), [b"abcdefcd"])] == ["fast", "fast"]


def test_of_two_that_end_together_the_longer_wins_then_the_first_named() -> None:
    short, long = Literal(name="short", text=b"in: "), Literal(name="long", text=b"login: ")
    twin = Literal(name="twin", text=b"login: ")
    assert matches((short, long, twin), [b"login: "])[0].name == "long"


def test_groups_and_places_in_the_stream_are_told() -> None:
    status = Regex(name="status", source=rb"E:(\d{1,3}):")
    found = matches((status,), [b"xxE:1", b"27:yyE:0:"])
    assert [(m.start, m.end, m.groups) for m in found] == [(2, 8, (b"127",)), (10, 14, (b"0",))]


def test_what_came_behind_a_match_can_be_seen_and_is_searched_later() -> None:
    matcher = Matcher([Literal(name="a", text=b"a:")])
    assert matcher.feed(b"__a:rest a")
    matcher.add(b":")
    assert matcher.unread == b"rest a:"
    assert matcher.feed()


def test_memory_stays_bounded_however_much_comes() -> None:
    matcher = Matcher(PATTERNS)
    for _ in range(200):
        assert matcher.feed(b"z" * 4096) is None
    assert len(matcher.before) <= 4096


@pytest.mark.parametrize("source", [rb"# $", rb"login:\b", rb"a(?=b)", rb"(?<!x)a", rb"\Aa", rb"("])
def test_a_regex_that_cannot_be_matched_in_a_stream_is_refused(source: bytes) -> None:
    with pytest.raises(BadPattern, match="p: "):
        Matcher([Regex(name="p", source=source)])


@pytest.mark.parametrize("source", [rb"\$ ", rb"[$#] ", rb"\\b", rb"(?i)LOGIN: ", rb"(?P<n>a)"])
def test_what_only_looks_like_an_anchor_is_taken(source: bytes) -> None:
    Matcher([Regex(name="p", source=source)])


def test_patterns_that_match_nothing_are_refused() -> None:
    with pytest.raises(BadPattern):
        Matcher([Literal(name="p", text=b"")])
    with pytest.raises(BadPattern):
        Matcher([Regex(name="p", source=rb"a?")])
