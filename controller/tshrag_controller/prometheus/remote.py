"""PURE but for its libraries. Samples as a remote-write request: protobuf under snappy.

The schema is that of prometheus.WriteRequest (remote write 1.0), of which the fields that we
send: timeseries { labels { name value } samples { value timestamp } }.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

from tshrag_common.errors import Refused
from tshrag_common.metrics import unpack_floats, unpack_ints
from tshrag_controller.prometheus.text import Labels, metric_name
from tshrag_controller.store.since import Piece

HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
    "User-Agent": "tshrag",
}


class PrometheusMissing(Refused):
    """A library of the extra ``prometheus`` is not installed."""

    code = "extra_missing"


def series_of(pieces: Iterable[Piece], least_at: int) -> dict[Labels, dict[int, float]]:
    """Return labels -> millisecond -> value; of samples in one millisecond the last counts."""
    found: dict[Labels, dict[int, float]] = {}
    for piece in pieces:
        samples = found.setdefault(labels_of(piece), {})
        times, values = unpack_ints(piece.chunk.times), unpack_floats(piece.chunk.values)
        for at, value in zip(times, values, strict=True):
            if at >= least_at:
                samples[at // 1000] = value
    return {labels: samples for labels, samples in found.items() if samples}


def halves(series: dict[Labels, dict[int, float]]) -> list[dict[Labels, dict[int, float]]]:
    """Return a request as two, to be sent one after the other: by series, a single one by time."""
    if len(series) > 1:
        known = list(series.items())
        return [dict(known[: len(known) // 2]), dict(known[len(known) // 2 :])]
    ((labels, samples),) = series.items()
    times = sorted(samples)
    middle = len(times) // 2
    return [{labels: {at: samples[at] for at in part}} for part in (times[:middle], times[middle:])]


def labels_of(piece: Piece) -> Labels:
    """Return the labels of a piece, by name; never a run or a job: their number has no end."""
    labels = {
        "__name__": metric_name(piece.key),
        "agent": piece.agent,
        "dut": piece.dut,
        "org": piece.org,
        "profile": piece.profile[:64],
    }
    return tuple(sorted((name, value) for name, value in labels.items() if value))


def request(series: dict[Labels, dict[int, float]]) -> bytes:
    """Return the body of a request.

    Raises:
        PrometheusMissing: the extra is not installed.

    """
    make, snappy = _libraries()
    message = make()
    for labels, samples in series.items():
        each = message.timeseries.add()
        for name, value in labels:
            each.labels.add(name=name, value=value)
        for at, number in sorted(samples.items()):
            each.samples.add(value=number, timestamp=at)
    return bytes(snappy.compress_raw(message.SerializeToString()))


@cache
def _libraries() -> tuple[Any, Any]:
    try:
        from cramjam import snappy
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError as error:
        fix = "pip install 'tshrag-controller[prometheus]'"
        raise PrometheusMissing("prometheus", f"{error.name} is not installed", fix) from None
    file = descriptor_pb2.FileDescriptorProto(name="tshrag_remote.proto", package="tshrag.remote")
    string, double, int64, inner = 9, 1, 3, 11
    one, many = 1, 3
    for name, fields in {
        "Label": [("name", 1, string, one, ""), ("value", 2, string, one, "")],
        "Sample": [("value", 1, double, one, ""), ("timestamp", 2, int64, one, "")],
        "TimeSeries": [("labels", 1, inner, many, "Label"), ("samples", 2, inner, many, "Sample")],
        "WriteRequest": [("timeseries", 1, inner, many, "TimeSeries")],
    }.items():
        made = file.message_type.add(name=name)
        for field, number, form, label, of in fields:
            type_name = f".tshrag.remote.{of}" if of else None
            made.field.add(name=field, number=number, type=form, label=label, type_name=type_name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName("tshrag.remote.WriteRequest")
    return message_factory.GetMessageClass(found), snappy
