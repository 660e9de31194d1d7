import pytest
from hypothesis import given, strategies as st

from tshrag_common.channel.frames import Frame, Over, Piece, State, decoded, encoded
from tshrag_common.errors import ErrorReport
from tshrag_common.wire import BadMessage

numbers = st.integers(0, (1 << 64) - 1)
pieces = st.builds(Piece, st.sampled_from(("data", "word")), numbers, st.binary(max_size=64))
states = st.builds(
    State,
    sent=numbers,
    received=numbers,
    limit=numbers,
    wants_answer=st.booleans(),
    wants_again=st.booleans(),
)
errors = st.builds(ErrorReport, code=st.text(max_size=9), message=st.text(max_size=9))
overs = st.builds(Over, numbers, st.none() | errors)


@given(pieces | states | overs)
def test_a_frame_is_read_back_as_it_was(frame: Frame) -> None:
    assert decoded(encoded(frame)) == frame


def test_an_end_is_read_back() -> None:
    assert decoded(encoded(Piece("end", 7))) == Piece("end", 7)


@given(st.binary(max_size=64))
def test_what_is_no_frame_is_a_bad_message_and_nothing_else(data: bytes) -> None:
    try:
        frame = decoded(data)
    except BadMessage:
        return
    assert decoded(encoded(frame)) == frame


@pytest.mark.parametrize("data", [b"", b"Z", b"D", b"S1234", b"X" + b"\0" * 8 + b"{"])
def test_short_and_unknown_frames_are_refused(data: bytes) -> None:
    with pytest.raises(BadMessage):
        decoded(data)
