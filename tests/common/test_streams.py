"""The streams of a lab: what they reserve together."""

import pytest

from tshrag_common.streams import StreamSizes, all_streams


@pytest.mark.parametrize("mebibytes", [58, 128, 1024, 1 << 20])
def test_all_streams_together_fit_into_what_the_store_may_take(mebibytes: int) -> None:
    streams = all_streams(StreamSizes().within(mebibytes << 20))
    assert sum(stream.max_bytes for stream in streams) <= mebibytes << 20
    assert all(stream.max_bytes > 1 << 20 for stream in streams)
