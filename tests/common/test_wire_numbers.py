"""Numbers off a wire that no store could take are refused at the door, not behind the LOG."""

from collections.abc import Callable

import msgspec
import pytest

from tshrag_common import requests as r, wire
from tshrag_common.ids import AgentId, Epoch, Fence
from tshrag_common.metrics import SampleBatch
from tshrag_common.reports import (
    Accepted,
    Ended,
    Heartbeat,
    OutputBatch,
    OutputChunk,
    ReportBatch,
    SamplesMessage,
    SpoolState,
)

A1 = AgentId("a1")
LARGE = (1 << 63, -(1 << 63), (1 << 64) - 1)


def ended(number: int) -> Ended:
    return Ended(at=1, fence=Fence(7), outcome="passed", started_at=number)


def reports(*said: Accepted | Ended, first: int = 1) -> bytes:
    batch = ReportBatch(agent=A1, spool="s", first_seq=first, reports=said)
    return wire.REPORTS.encode(batch)


BAD: dict[str, Callable[[int], bytes]] = {
    "at": lambda n: reports(Accepted(at=n, fence=Fence(7))),
    "fence": lambda n: reports(Accepted(at=1, fence=Fence(n))),
    "started": lambda n: reports(ended(n)),
    "first": lambda n: reports(ended(1), first=n),
}


@pytest.mark.parametrize("number", LARGE)
@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_a_report_with_a_number_beyond_all_stores_is_no_message(
    make: Callable[[int], bytes], number: int
) -> None:
    with pytest.raises(wire.BadMessage):
        wire.REPORTS.decode(make(number))


@pytest.mark.parametrize("number", LARGE)
def test_output_and_samples_with_such_numbers_are_no_messages(number: int) -> None:
    chunk = OutputChunk(run="r", job="j", attempt=number, stream="stdout", offset=0, data=b"")
    with pytest.raises(wire.BadMessage):
        wire.OUTPUT.decode(
            wire.OUTPUT.encode(OutputBatch(agent=A1, spool="s", first_seq=1, chunks=(chunk,)))
        )
    batch = SampleBatch(attempt=number)
    with pytest.raises(wire.BadMessage):
        wire.SAMPLES.decode(
            wire.SAMPLES.encode(SamplesMessage(agent=A1, spool="s", first_seq=1, batches=(batch,)))
        )
    beat = Heartbeat(
        agent=A1,
        boot="b",
        at=1,
        digest=0,
        heard=(Epoch(1), 1),
        reports=SpoolState("s", 1, number),
    )
    with pytest.raises(wire.BadMessage):
        wire.HEARTBEAT.decode(wire.HEARTBEAT.encode(beat))


@pytest.mark.parametrize("field", ["seed", "not_before", "deadline", "duration_s"])
def test_a_submit_with_a_number_beyond_all_stores_is_refused(field: str) -> None:
    raw = f'{{"run": "run-1", "profile": {{}}, "{field}": {1 << 63}}}'.encode()
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.json.decode(raw, type=r.Submit)
