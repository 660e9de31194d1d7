from tshrag_common import wire
from tshrag_common.ids import AgentId, Fence
from tshrag_common.metrics import MetricInfo, SampleBatch, pack
from tshrag_common.reports import Accepted, ReportBatch, SamplesMessage, Started


def test_a_batch_of_encoded_bodies_is_what_the_codec_makes() -> None:
    reports = (Accepted(at=1, fence=Fence(2)), Started(at=3, fence=Fence(2)))
    whole = ReportBatch(agent=AgentId("a1"), spool="s", first_seq=7, reports=reports)
    bodies = [wire.body(report) for report in reports]
    assert wire.batch("a1", "s", 7, bodies) == wire.REPORTS.encode(whole)


def test_samples_come_back_from_a_batch() -> None:
    batch = SampleBatch(run="r", series=(pack(MetricInfo(key="a"), [1], [2.0]),))
    data = wire.batch("a1", "s", 1, [wire.body(batch)])
    assert wire.SAMPLES.decode(data) == SamplesMessage(
        agent=AgentId("a1"), spool="s", first_seq=1, batches=(batch,)
    )
