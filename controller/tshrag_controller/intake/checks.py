"""PURE. What decodes and still may not come in: numbers and names that would break a store.

A frame stays in the LOG for ever, so nothing may stand in it that a projection cannot hold. An
honest agent never sends any of this; a message that fails is set aside as a whole.
"""

from collections.abc import Iterable

from tshrag_common import ids
from tshrag_common.errors import shown
from tshrag_common.reports import (
    Accepted,
    AnyReport,
    ChannelTold,
    ConsoleSigned,
    DutChanged,
    Ended,
    Hello,
    OutputBatch,
    ReportBatch,
    SamplesMessage,
    Started,
)
from tshrag_common.wire import BadMessage

MOST_NUMBER = 1 << 53
MOST_FENCE = (1 << 63) - 1
MOST_ATTEMPTS = 1 << 20
MOST_SPOOL = 64
MOST_REPORTS_BYTES = 768 << 10
"""Of one message: what becomes an event must fit into one message of the LOG, with its frame."""


def check_reports(batch: ReportBatch) -> None:
    """Raise BadMessage, or InvalidId, with the first thing that is wrong."""
    _check_spool(batch.spool, batch.first_seq)
    for report in batch.reports:
        _check_report(report)


def _check_report(report: AnyReport) -> None:
    _check_number("at", report.at)
    if isinstance(report, Accepted | Started | Ended):
        _check_number("fence", report.fence, MOST_FENCE)
    if isinstance(report, Ended):
        numbers = (report.samples_from, report.samples_upto, report.output_upto)
        for number in (report.started_at, *numbers):
            _check_number("a number of an end", number)
    elif isinstance(report, DutChanged | ConsoleSigned | ChannelTold):
        _check_of_dut(report)
    elif isinstance(report, Hello):
        _check_number("slots", report.facts.slots, 1 << 20)
        for dut in report.facts.duts:
            ids.dut_id(dut.id)
        for fence in report.holds:
            _check_number("fence", fence, MOST_FENCE)


def _check_told(report: ChannelTold) -> None:
    ids.org_id(report.org)
    for word in (report.by, report.session, report.what, report.phase):
        ids.token("a word of a channel", word)
    if report.dut is not None:
        ids.dut_id(report.dut)
    _check_number("fence", report.fence, MOST_FENCE)
    for count in (report.up_bytes, report.down_bytes):
        _check_number("bytes of a channel", count)


def _check_of_dut(report: DutChanged | ConsoleSigned | ChannelTold) -> None:
    if isinstance(report, ChannelTold):
        _check_told(report)
        return
    ids.dut_id(report.dut)
    if isinstance(report, ConsoleSigned):
        _check_number("fence", report.fence, MOST_FENCE)
        _check_number("boot", report.boot)


def check_samples(message: SamplesMessage) -> None:
    _check_spool(message.spool, message.first_seq)
    _check_attempts(batch.attempt for batch in message.batches)
    for batch in message.batches:
        if batch.dut:
            ids.dut_id(batch.dut)


def check_output(batch: OutputBatch) -> None:
    _check_spool(batch.spool, batch.first_seq)
    _check_attempts(chunk.attempt for chunk in batch.chunks)
    for chunk in batch.chunks:
        if chunk.dut:
            ids.dut_id(chunk.dut)
            _check_number("at", chunk.at)


def _check_spool(spool: str, first_seq: int) -> None:
    if not spool or len(spool) > MOST_SPOOL or not spool.isascii() or not spool.isprintable():
        raise BadMessage("spool", f"{shown(spool)} is no id of a spool")
    _check_number("first_seq", first_seq)
    if first_seq < 1:
        raise BadMessage("first_seq", f"{first_seq} < 1")


def _check_attempts(numbers: Iterable[int]) -> None:
    for number in numbers:
        _check_number("attempt", number, MOST_ATTEMPTS)


def _check_number(name: str, number: int, most: int = MOST_NUMBER) -> None:
    if not 0 <= number <= most:
        raise BadMessage(name, f"{number} is not in 0..{most}")
