"""The follower of output files, against a job that plays with them."""

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import a_spec
from tshrag_agent.attempts.attempt import Attempt, Office
from tshrag_agent.attempts.roster import Roster
from tshrag_agent.journal.journal import Journal
from tshrag_agent.reports.early import EarlyReports
from tshrag_agent.reports.logpump import LogPump
from tshrag_agent.reports.tap import SampleTap
from tshrag_agent.slots import Slots
from tshrag_common.clock import SystemClock
from tshrag_common.commands import StartAttempt
from tshrag_common.errors import Refused
from tshrag_common.ids import Fence, OrgId, job_of, new_run


class Idle:
    async def work(self) -> None:
        """Do nothing."""

    async def clean_up(self) -> None:
        """Do nothing."""


def spawn(work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
    return asyncio.get_running_loop().create_task(work, name=name)


async def test_a_pipe_in_the_place_of_an_output_file_does_not_hold_up_the_agent(
    tmp_path: Path,
) -> None:
    clock, run = SystemClock(), new_run(1, 1)
    start = StartAttempt(
        fence=Fence(7), org=OrgId("default"), run=run, job=job_of(run, 1), attempt=1, name="j",
        spec=0,
    )  # fmt: skip
    journal = await Journal.open(tmp_path / "journal.db")
    office = Office(journal, EarlyReports(journal), Roster(Slots(1, {})), clock)
    attempt = Attempt(office, start, a_spec(), lambda _: Idle())
    os.mkfifo(tmp_path / "stdout.log")
    (tmp_path / "stderr.log").write_bytes(b"")
    pump = LogPump(
        attempt,
        {"stdout": tmp_path / "stdout.log", "stderr": tmp_path / "stderr.log"},
        journal=journal,
        clock=clock,
        tap=SampleTap(start, a_spec(), clock),
        spawn=spawn,
    )
    pump.start()
    with pytest.raises(Refused, match="replaced"):
        async with asyncio.timeout(10):
            await pump.finish()
    await journal.close()
