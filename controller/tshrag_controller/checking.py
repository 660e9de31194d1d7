"""Orders health checks: when their time has come, and at once after infrastructure errors."""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec

from tshrag_common import ids, requests as r
from tshrag_common.documents import read_document
from tshrag_common.errors import LabError, NotFound
from tshrag_common.ids import DEFAULT_ORG, THE_LAB
from tshrag_controller.answers.asker import Asker
from tshrag_controller.core import events as e
from tshrag_controller.core.console_events import DutSigned
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.health import Due, Rules, due, on_check
from tshrag_controller.engine import Engine
from tshrag_controller.log.frames import Frame
from tshrag_controller.settings import HealthTable

logger = logging.getLogger(__name__)

LOOK_S = 30.0
PRIORITY = 75
CHECKER = Asker(DEFAULT_ORG, THE_LAB)

Admit = Callable[[Asker, r.Submit], Awaitable[e.RunAdmitted]]
"""Validate, resolve and plan a profile, as for anybody who submits it."""


class Checking:
    """Looks what is due; one leader does."""

    def __init__(self, engine: Engine, table: HealthTable) -> None:
        self._engine, self._table = engine, table
        self._rules = Rules(
            every_s=table.every_s,
            after_errors=table.after_errors,
            after_crashes=table.after_crashes,
            recheck_s=table.recheck_s,
            profiles=table.profiles,
        )
        self._soon = asyncio.Event()

    def on_commit(self, frame: Frame) -> None:
        """Look at once where something went wrong, came or was taken out of service."""
        for event in frame.events:
            if isinstance(event, e.AgentSeen | DutSigned) or (
                isinstance(event, e.AttemptEnded) and event.ended.outcome == "error"
            ):
                self._soon.set()

    async def check(self, admit: Admit) -> None:
        """Order what is due, for ever."""
        while self._table.profiles:
            self._soon.clear()
            for check in await self._engine.ask(self._due):
                await self._order(admit, check)
            pause_s = min(LOOK_S, self._table.recheck_s, self._table.every_s or LOOK_S)
            try:
                async with asyncio.timeout(max(0.2, pause_s)):
                    await self._soon.wait()
            except TimeoutError:
                continue

    def _due(self, decision: Decision) -> list[Due]:
        return due(decision.lab, self._rules, decision.now)

    async def _order(self, admit: Admit, check: Due) -> None:
        """Order one check; a profile that is of no use is told in the log, and tried again."""
        here = (check.name,)
        facts: dict[str, str] = {check.kind: check.name, "why": check.why}
        try:
            document = await asyncio.to_thread(_read, Path(self._table.profiles[check.profile]))
            run = ids.new_run(time.time_ns() // 1_000_000, secrets.randbits(80))
            asked = r.Submit(
                run=run,
                profile=document,
                priority=PRIORITY,
                hosts=here if check.kind == "agent" else (),
                duts=here if check.kind == "dut" else (),
                park=True,
            )
            admitted = await admit(CHECKER, asked)
            await self._engine.ask(partial(on_check, admitted=admitted, check=check))
        except LabError as error:
            facts = {**facts, "profile": check.profile, "why": error.line}
            logger.error("a health check cannot be ordered", extra=facts)
        else:
            logger.info("a health check is ordered", extra={**facts, "run": run})


def _read(path: Path) -> msgspec.Raw:
    try:
        raw = path.expanduser().read_bytes()
    except OSError as error:
        raise NotFound("profile", f"{path}: {error.strerror}") from None
    return msgspec.Raw(msgspec.json.encode(read_document(raw, path.name).data))
