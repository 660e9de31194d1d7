import os
from typing import Any

import pytest
from hypothesis import given, strategies as st

from tshrag_agent.shepherd import protocol

texts = st.text() | st.binary().map(os.fsdecode)
messages = st.dictionaries(texts, st.lists(texts | st.integers()), max_size=5)


@given(st.lists(messages, max_size=5), st.data())
def test_messages_come_out_as_they_went_in_however_the_stream_is_cut(
    sent: list[dict[str, Any]], data: st.DataObject
) -> None:
    stream = b"".join(protocol.frame(message) for message in sent)
    frames, received = protocol.Frames(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        received += list(frames.feed(stream[:size]))
        stream = stream[size:]
    assert received == sent


@pytest.mark.parametrize("body", [b"[]", b"1", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_a_bad_frame(body: bytes) -> None:
    with pytest.raises(protocol.BadFrame):
        list(protocol.Frames().feed(len(body).to_bytes(4, "big") + body))


def test_a_frame_beyond_the_limit_is_refused_before_it_is_kept() -> None:
    with pytest.raises(protocol.BadFrame, match="4294967295"):
        list(protocol.Frames().feed(b"\xff\xff\xff\xff"))


def test_a_long_folder_is_reached_by_its_descriptor() -> None:
    assert protocol.socket_address("/state", 7) == "/state/shepherd.sock"
    assert protocol.socket_address("/" + "x" * 100, 7) == "/proc/self/fd/7/shepherd.sock"
