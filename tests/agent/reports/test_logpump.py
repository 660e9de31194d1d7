"""The follower of output files, against a job that plays with them."""

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.chaos.images import a_quota, a_small_disk, can_have_quotas, fill
from tests.support.builders import a_spec
from tests.support.waiting import wait_until
from tshrag_agent.attempts.attempt import Attempt, Office
from tshrag_agent.attempts.metric_gate import OVERFLOW
from tshrag_agent.attempts.roster import Roster
from tshrag_agent.attempts.workdir import free_bytes
from tshrag_agent.journal import journal as journal_room
from tshrag_agent.journal.journal import Journal
from tshrag_agent.journal.records import SpoolName
from tshrag_agent.reports.early import EarlyReports
from tshrag_agent.reports.logpump import STREAMS, LogPump, StreamName
from tshrag_agent.reports.tap import SampleTap
from tshrag_agent.slots import Slots
from tshrag_common.clock import SystemClock
from tshrag_common.commands import StartAttempt
from tshrag_common.errors import Refused
from tshrag_common.ids import Fence, OrgId, job_of, new_run
from tshrag_common.metrics import SampleBatch
from tshrag_common.reports import OutputChunk


class Idle:
    async def work(self) -> None:
        """Do nothing."""

    async def clean_up(self) -> None:
        """Do nothing."""


def spawn(work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
    return asyncio.get_running_loop().create_task(work, name=name)


def a_pump(journal: Journal, folder: Path, **more: Any) -> tuple[LogPump, SampleTap, Attempt]:
    """Return what follows the output of an attempt in `folder`."""
    clock, run = SystemClock(), new_run(1, 1)
    start = StartAttempt(
        fence=Fence(7), org=OrgId("default"), run=run, job=job_of(run, 1), attempt=1, name="j",
        spec=0,
    )  # fmt: skip
    office = Office(journal, EarlyReports(journal), Roster(Slots(1, {})), clock)
    attempt, tap = (
        Attempt(office, start, a_spec(), lambda _: Idle()),
        SampleTap(start, a_spec(), clock),
    )
    paths: dict[StreamName, Path] = {name: folder / f"{name}.log" for name in STREAMS}
    pump = LogPump(attempt, paths, journal=journal, clock=clock, tap=tap, spawn=spawn, **more)
    return pump, tap, attempt


async def test_a_pipe_in_the_place_of_an_output_file_does_not_hold_up_the_agent(
    tmp_path: Path,
) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    os.mkfifo(tmp_path / "stdout.log")
    (tmp_path / "stderr.log").write_bytes(b"")
    pump, _, _ = a_pump(journal, tmp_path)
    pump.start()
    with pytest.raises(Refused, match="replaced"):
        async with asyncio.timeout(10):
            await pump.finish()
    await journal.close()


async def test_results_do_not_wait_behind_samples_that_have_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody takes samples: what a job said and how it ended is told all the same, and counted."""
    monkeypatch.setattr(journal_room, "SAMPLES_PATIENCE_S", 0.2)
    quota: dict[SpoolName, int] = {"reports": 1 << 20, "samples": 20_000, "output": 100 << 20}
    journal = await Journal.open(tmp_path / "journal.db", quota)
    lines = 100_000
    text = b"".join(b"::metric a.b %d\n" % number for number in range(lines)) + b"the end\n"
    (tmp_path / "stdout.log").write_bytes(text)
    (tmp_path / "stderr.log").write_bytes(b"")
    pump, tap, _ = a_pump(journal, tmp_path)
    async with asyncio.timeout(50):
        pump.start()
        await pump.finish()
    (notice,) = tap.gate.notices()
    assert notice.key == OVERFLOW and notice.reason.startswith("metric_dropped: ")
    stored = await stored_samples(journal)
    assert 0 < stored < lines
    assert stored + notice.count == lines == tap.gate.taken
    assert await stored_output(journal) == text
    await journal.close()


async def stored_samples(journal: Journal) -> int:
    records = await journal.read("samples", 1, 1 << 30)
    return sum(msgspec.msgpack.decode(each.body, type=SampleBatch).count for each in records)


async def stored_output(journal: Journal) -> bytes:
    found, upto = b"", 0
    while upto < journal.state("output").last:
        for record in await journal.read("output", upto + 1, 1 << 20):
            found += msgspec.msgpack.decode(record.body, type=OutputChunk).data
            upto = record.seq
    return found


@pytest.mark.parametrize("adopted_at", [0, 70_000, 400_000])
async def test_what_is_kept_of_a_stream_is_never_more_than_its_bound(
    tmp_path: Path, adopted_at: int
) -> None:
    """An agent that followed fast kept its last bytes on top, one that adopted all that came."""
    bound, text = 100_000, bytes(range(1, 251)) * 2000
    journal = await Journal.open(tmp_path / "journal.db")
    (tmp_path / "stdout.log").write_bytes(text)
    (tmp_path / "stderr.log").write_bytes(b"")
    pump, _, attempt = a_pump(journal, tmp_path, most_bytes=bound, offsets=(adopted_at, 0))
    pump.start()
    async with asyncio.timeout(50):
        await pump.finish()
    end = attempt.record.stdout
    stored = await stored_output(journal)
    before = min(adopted_at, bound * 3 // 4)  # what the agent before this one has told
    assert end.length_bytes == len(text)
    assert end.length_bytes - end.cut_bytes == before + len(stored) == bound
    assert stored.endswith(text[-bound // 4 :])
    await journal.close()


@pytest.mark.parametrize("kind", ["disk", "quota"])
async def test_a_job_whose_disk_or_quota_was_full_has_not_passed(tmp_path: Path, kind: str) -> None:
    if kind == "quota" and (why := can_have_quotas()):
        pytest.skip(why)
    clock, run = SystemClock(), new_run(1, 1)
    start = StartAttempt(
        fence=Fence(7), org=OrgId("default"), run=run, job=job_of(run, 1), attempt=1, name="j",
        spec=0,
    )  # fmt: skip
    journal = await Journal.open(tmp_path / "journal.db")
    office = Office(journal, EarlyReports(journal), Roster(Slots(1, {})), clock)
    attempt = Attempt(office, start, a_spec(), lambda _: Idle())
    room = a_small_disk(tmp_path / "job", 1) if kind == "disk" else a_quota(tmp_path / "job", 1024)
    with room as folder:
        paths = {name: folder / f"{name}.log" for name in STREAMS}
        for path in paths.values():
            path.write_bytes(b"")
        pump = LogPump(
            attempt, paths, journal=journal, clock=clock,
            tap=SampleTap(start, a_spec(), clock), spawn=spawn,
        )  # fmt: skip
        pump.start()
        filler = await asyncio.to_thread(fill, folder)
        if kind == "quota":
            assert free_bytes(folder) > 8 << 20, "the file system does not tell of it"
        await wait_until(lambda: pump._starved, 30)
        filler.unlink()
        await pump.finish()
    assert attempt.record.outcome == "error"
    assert attempt.record.error is not None
    assert attempt.record.error.code == "storage_full"
    assert attempt.record.error.retryable
    await journal.close()
