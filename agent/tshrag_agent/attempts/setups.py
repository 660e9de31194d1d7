"""What the DUTs of this agent carry: the setup of a group is made once, and undone before another.

It is in the journal before anything relies on it, and out of it before anything may break it: an
agent that dies in between finds a DUT that carries nothing. What is not known to be in place is
made anew: a job without a group, a lease of a person, a job that did not end by itself. A setup
that cannot be relied on is still undone, where it has a teardown: until that is done the DUT owes
it. Only what a person has taken over owes nothing.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from tshrag_agent.attempts.attempt import Attempt, Steps
from tshrag_agent.journal.journal import Journal
from tshrag_agent.journal.records import SetupKept
from tshrag_common.clock import Clock
from tshrag_common.errors import ErrorReport
from tshrag_common.ids import DutId
from tshrag_common.jobs import Setup

logger = logging.getLogger(__name__)

FAILED = "group_setup_failed"
Execute = Callable[[str, Sequence[str]], Awaitable[bool]]
"""Execute a step of an attempt; false: it did not hold, and the record says why."""


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """A setup that is in place, and how long it took to make it."""

    setup: Setup
    took_us: int
    trusted: bool = True  # false: it may be spoilt, and only its teardown counts


UNDONE = "group_teardown_failed"
_DECODER = msgspec.msgpack.Decoder(Carried)
_ENCODER = msgspec.msgpack.Encoder()


class Setups:
    """The setups of one agent's DUTs."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        on_change: Callable[[Mapping[DutId, str], Mapping[DutId, str]], None],
    ) -> None:
        self._journal, self._clock, self._on_change = journal, clock, on_change
        self._carried: dict[DutId, Carried] = {}
        for dut, body in journal.setups.items():
            try:
                self._carried[dut] = _DECODER.decode(body)
            except msgspec.MsgspecError as error:
                logger.error("a setup cannot be read", extra={"dut": dut, "why": str(error)})

    @property
    def digests(self) -> dict[DutId, str]:
        """Return what is in place, by DUT."""
        return {dut: each.setup.digest for dut, each in self._carried.items() if each.trusted}

    @property
    def owed(self) -> dict[DutId, str]:
        """Return what is to be undone some day, by DUT."""
        owing = (item for item in self._carried.items() if item[1].setup.teardown)
        return {dut: each.setup.digest for dut, each in owing}

    def distrust(self, dut: DutId) -> None:
        """Forget a setup at once: somebody else has the DUT. The journal is told by the caller."""
        if self._carried.pop(dut, None) is not None:
            self._on_change(self.digests, self.owed)

    async def ready(self, attempt: Attempt, execute: Execute) -> bool:
        """See that the DUT of an attempt carries what its group wants; false: it does not."""
        dut, wanted = attempt.start.dut, attempt.spec.setup
        if dut is None:
            return True
        carried = self._carried.get(dut)
        if wanted is not None and self.digests.get(dut) == wanted.digest and carried is not None:
            attempt.record.setup, attempt.record.setup_us = "found", carried.took_us
            return True
        if carried is not None:
            await self._undo(attempt, dut, carried, execute)
        if attempt.spec.undo:
            return False  # that was all
        return wanted is None or await self._make(attempt, dut, wanted, execute)

    async def _undo(self, attempt: Attempt, dut: DutId, carried: Carried, execute: Execute) -> None:
        """Do a teardown. One that fails does not hold up a job, but it spoils a teardown's own."""
        await self._doubt(dut)
        record = attempt.record
        for number, argv in enumerate(carried.setup.teardown, 1):
            if await execute(f"group_teardown_{number}", _with(carried.setup.env, argv)):
                continue
            what = record.error.message if record.error is not None else ""
            if attempt.spec.undo:
                record.error = ErrorReport(code=UNDONE, message=f"the teardown failed: {what}")
                return
            record.dut_notes.append(f"teardown of the group before failed: {what}")
            record.outcome, record.error = "passed", None
        await self._keep(dut, None)

    async def _make(self, attempt: Attempt, dut: DutId, wanted: Setup, execute: Execute) -> bool:
        began = self._clock.monotonic()
        record = attempt.record
        record.setup = "failed"
        for number, argv in enumerate(wanted.commands, 1):
            if not await execute(f"group_setup_{number}", argv):
                what = record.error.message if record.error is not None else ""
                message = f"the setup of its group failed: {what}"
                record.outcome = "error"
                record.error = ErrorReport(code=FAILED, message=message, retryable=True)
                return False
        record.setup = "made"
        record.setup_us = round((self._clock.monotonic() - began) * 1e6)
        await self._keep(dut, Carried(setup=wanted, took_us=record.setup_us))
        return True

    async def enter(self, attempt: Attempt) -> None:
        """Forget what an attempt that makes no setups may break."""
        dut = attempt.start.dut
        if dut in self._carried and attempt.spec.setup is None and not self._undoes(attempt):
            await self._doubt(dut)

    @staticmethod
    def _undoes(attempt: Attempt) -> bool:
        """Tell whether the steps of an attempt will call `ready`, which undoes what is there."""
        spec = attempt.spec
        is_builtin = spec.load is not None and bool(spec.load.builtin)
        return spec.kind in ("load", "command") and not is_builtin

    async def leave(self, attempt: Attempt) -> None:
        """Note what the DUT of an attempt carries at its end, for the report of that."""
        dut, record = attempt.start.dut, attempt.record
        if dut is None:
            return
        if record.setup == "failed" and (record.error is None or record.error.code != FAILED):
            record.setup = ""  # it was stopped in the middle
        is_known = attempt.spec.setup is not None and record.outcome in ("passed", "failed")
        if dut in self._carried and not is_known:
            await self._doubt(dut)
        there, owed = self.digests.get(dut), self.owed.get(dut)
        record.carries = (there,) if there is not None else ()
        record.owes = (owed,) if owed is not None else ()

    async def _doubt(self, dut: DutId) -> None:
        """Rely on a setup no more; what it has to undo stays."""
        carried = self._carried[dut]
        if not carried.setup.teardown:
            await self._keep(dut, None)
        elif carried.trusted:
            await self._keep(dut, msgspec.structs.replace(carried, trusted=False))

    async def _keep(self, dut: DutId, carried: Carried | None) -> None:
        if carried is None:
            self._carried.pop(dut, None)
        body = _ENCODER.encode(carried) if carried is not None else b""
        await self._journal.write(SetupKept(dut, body))
        if carried is not None:
            self._carried[dut] = carried
        self._on_change(self.digests, self.owed)


def _with(env: Mapping[str, str], argv: Sequence[str]) -> tuple[str, ...]:
    """Return a command line in the environment of its profile, whoever executes it."""
    return ("env", *(f"{name}={value}" for name, value in env.items()), *argv) if env else (*argv,)


class Leaving:
    """The steps of any attempt, between which and the next it is known what the DUT carries."""

    def __init__(self, attempt: Attempt, steps: Steps, setups: Setups) -> None:
        self._attempt, self._steps, self._setups = attempt, steps, setups

    async def work(self) -> None:
        if not self._attempt.adopted:
            await self._setups.enter(self._attempt)
        await self._steps.work()

    async def clean_up(self) -> None:
        try:
            await self._steps.clean_up()
        finally:
            await self._setups.leave(self._attempt)
