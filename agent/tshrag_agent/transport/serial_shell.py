"""A DUT that is reached by its console alone: commands go through the shell on it.

One thing at a time: a console has one shell. Stdout and stderr arrive on one stream, as stdout.
No lease on the DUT watches over a command, so ``guarded`` is False; the line has one owner host
(``flock``), the fence file is that of ``wrap.sh``, and every command carries its mark, by which
the next fence, ``end`` and a restarted agent find whatever is left of it.
"""

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from tshrag_agent.transport.base import (
    Completed,
    DutProbe,
    OutputSink,
    ProcReading,
    ShellCommand,
    TransportFailed,
)
from tshrag_agent.transport.board_time import QUESTION, ClockReading, read_answer
from tshrag_agent.transport.console import HOUSEKEEPING, Driver, SerialConsole
from tshrag_agent.transport.dut_facts import Answers, proc_reading, proc_script
from tshrag_agent.transport.launch import launch_script
from tshrag_agent.transport.remote_shell import ANSWER_S, RemoteShell
from tshrag_agent.transport.running import Running, completed
from tshrag_agent.transport.serial_facts import facts_script
from tshrag_agent.transport.serial_files import SerialFiles
from tshrag_agent.transport.serial_way import SerialWay
from tshrag_common.actions import SerialVia
from tshrag_common.errors import StaleFence, shown
from tshrag_common.ids import DutId, Fence

AUTHOR = "agent"

_AFTER_KILL_S = 8.0
_FACTS_S = 20.0
_PIDS = re.compile(r"[0-9\s]*")
_FENCE = re.compile(r"([0-9]{21} \S+)?")
_ASKED_MOST = 8  # where answers are not plain ones
_KILLED = 137  # what a shell says of SIGKILL


class SerialTransport:
    """`DutTransport` over a console. Somebody else runs the console (``SerialConsole.run``)."""

    def __init__(self, dut: DutId, console: SerialConsole, way: SerialWay) -> None:
        self._dut, self._console, self._way = dut, console, way
        self._shell = RemoteShell(console, way.login, way.pace)
        self._turn = asyncio.Lock()  # a console has one shell, and a shell does one thing
        self._running: Running | None = None
        self._answers: Answers | None = None
        self._logins = 0  # of the shell, when it was asked for its facts
        self._held: Fence | None = None
        self._newest = HOUSEKEEPING
        self._holder = secrets.token_hex(8)  # equal fences are for one holder only
        self._serial = 0

    @property
    def is_exclusive(self) -> bool:
        return True

    async def execute(
        self,
        command: Sequence[str] | ShellCommand,
        *,
        env: Mapping[str, str],
        cwd: str,
        timeout_s: float,
        fence: Fence,
        on_output: OutputSink,
    ) -> Completed:
        script = launch_script(command, env, cwd)
        if fence < self._newest:
            raise StaleFence(fence, self._newest)
        if self._running and self._running.fence < fence:
            self._running.stop("superseded")
        async with self._turn:
            base = await self._hold(fence)
            await self._shell.keep(script)
            self._serial += 1
            mark = f"tree:{base}:{fence:021d}:{self._holder}:{self._serial}:"
            return await self._attend(mark, Running(fence, timeout_s), on_output)

    async def upload(
        self, source: Path, target: str, *, timeout_s: float, via: SerialVia = "base64"
    ) -> None:
        async with self._turn:
            self._drive()
            files = SerialFiles(self._shell, (await self._facts()).tools, via)
            try:
                async with asyncio.timeout(timeout_s):
                    await files.upload(source, target)
            except TimeoutError:
                raise await self._cut_off(f"the upload took longer than {timeout_s:g} s") from None

    async def download(
        self,
        source: str,
        target: Path,
        *,
        most_bytes: int,
        timeout_s: float,
        via: SerialVia = "base64",
    ) -> int:
        async with self._turn:
            self._drive()
            files = SerialFiles(self._shell, (await self._facts()).tools, via)
            try:
                async with asyncio.timeout(timeout_s):
                    return await files.download(source, target, most_bytes)
            except TimeoutError:
                what = f"the download took longer than {timeout_s:g} s"
                raise await self._cut_off(what) from None

    async def probe(self, *, timeout_s: float) -> DutProbe:
        try:
            async with asyncio.timeout(timeout_s), self._turn:
                self._drive()
                answers = await self._ask_facts()
        except TimeoutError:
            self._shell.forget()
            what = f"the console has not answered within {timeout_s:g} s"
            raise TransportFailed("console_login", self._console.name, what) from None
        return msgspec.structs.replace(answers.probe(), shell="/bin/sh", lacks=answers.lacks)

    async def read_proc(self, *, timeout_s: float) -> ProcReading:
        """Return what the sampler needs; nothing while a command has the console."""
        if self._turn.locked():
            return {}
        nonce = secrets.token_hex(8)
        async with self._turn:
            self._drive()
            await self._facts()
            try:
                _, said = await self._shell.perform(proc_script(nonce), timeout_s=timeout_s)
            except TimeoutError:
                raise await self._cut_off("/proc has not come in time") from None
        return proc_reading(said.decode("utf-8", "replace"), nonce)

    async def read_clock(self, *, timeout_s: float) -> ClockReading | None:
        """Ask for the time; None while a command has the console."""
        if self._turn.locked():
            return None
        async with self._turn:
            self._drive()
            await self._shell.ready()
            sent = time.monotonic()
            try:
                _, said = await self._shell.ask(QUESTION, timeout_s=timeout_s)
            except TimeoutError:
                raise await self._cut_off("the time has not come in time") from None
        return read_answer(said, sent, time.monotonic())

    @asynccontextmanager
    async def alone(self, fence: Fence) -> AsyncIterator[Driver]:
        """Give the console to one who does not go through the shell; that is reached anew then."""
        async with self._turn:
            driver = self._console.drive(fence, AUTHOR, take=True)
            self._shell.driver = driver
            self._shell.forget()
            try:
                yield driver
            finally:
                self._shell.forget()
                self._held = None
                driver.release()

    async def end(self, fence: Fence) -> None:
        running = self._running
        if running and running.fence == fence:
            running.stop("stopped")
            await running.over.wait()
        if fence < self._newest:
            return  # the newer one has seen to that
        async with self._turn:
            self._drive(fence)
            base = await self._base()
            await self._end_marked(f"tree:{base}:{fence:021d}:")

    async def close(self) -> None:
        if self._running:
            self._running.stop("stopped")
        async with self._turn:
            driver = self._shell.driver
            if driver and driver.drives:
                await self._shell.restore()
                driver.release()
            self._shell.driver = None

    def _drive(self, fence: Fence | None = None) -> None:
        driver = self._shell.driver
        if fence is None and driver and driver.drives:
            return
        self._shell.driver = self._console.drive(fence or HOUSEKEEPING, AUTHOR)

    async def _facts(self) -> Answers:
        """Return what the DUT is; asked once a login, since a reboot empties ``/run``."""
        await self._shell.ready()
        if self._answers is None or self._logins != self._shell.logins:
            return await self._ask_facts()
        return self._answers

    async def _ask_facts(self) -> Answers:
        await self._shell.ready()
        try:
            _, said = await self._shell.perform(facts_script(self._way.run_dir), timeout_s=_FACTS_S)
        except TimeoutError:
            raise self._silent("at the question what the DUT is") from None
        self._answers, self._logins = Answers(said.decode("utf-8", "replace")), self._shell.logins
        self._held = None
        return self._answers

    async def _base(self) -> str:
        """Return what the files and marks of this DUT begin with, as in ``wrap.sh``."""
        answers = await self._facts()
        if not answers.run_dir:
            what = "there is no directory for its fence"
            raise TransportFailed("fence_failed", self._console.name, what, "set run_dir")
        return f"{answers.run_dir}/{self._dut}"

    async def _hold(self, fence: Fence) -> str:
        """Take the fence at the DUT, and end what an older one has left; return its base."""
        self._drive(fence)
        base = await self._base()
        if self._held == fence:
            return base
        try:
            seen = await self._plainly(f"cat {base}.fence 2>/dev/null", _FENCE)
            self._compare(fence, seen)
            await self._end_marked(f"tree:{base}:")  # of this fence, too: a line that was lost
            await self._write_fence(base, seen, f"{fence:021d} {self._holder}")
        except TimeoutError:
            raise self._silent("at the fence") from None
        self._held = self._newest = fence
        return base

    def _compare(self, fence: Fence, seen: str) -> None:
        number, _, holder = seen.partition(" ")
        if seen and not (len(number) == 21 and number.isdecimal() and number.isascii()):
            what = f"the fence file is damaged: {shown(seen)}"
            fix = "see that no job is on this DUT, then remove the file"
            raise TransportFailed("fence_failed", self._console.name, what, fix)
        newest = int(number or 0)
        if newest > fence or (newest == fence and holder != self._holder):
            raise StaleFence(fence, newest)

    async def _write_fence(self, base: str, seen: str, line: str) -> None:
        """Write it where nobody has written meanwhile: SSH to the same DUT may be in use."""
        same = f"[ \"$(cat {base}.fence 2>/dev/null)\" = '{seen}' ]"
        new = f"echo '{line}' >{base}.fence.$$&&mv {base}.fence.$$ {base}.fence"
        status, _ = await self._shell.ask(f"{same}&&{new}")
        if status:
            what = f"{base}.fence cannot be written"
            raise TransportFailed("fence_failed", self._console.name, what)

    async def _end_marked(self, mark: str) -> None:
        grace_s = round(self._way.grace_s)
        text = f"_ts_end '{mark}' {grace_s};printf %s \"$_ts_l\""
        left = await self._plainly(text, _PIDS, grace_s + _AFTER_KILL_S)
        if left:
            raise self._not_ended(f"processes {shown(left, 80)} stay alive")

    async def _plainly(self, text: str, form: re.Pattern[str], timeout_s: float = ANSWER_S) -> str:
        """Return an answer of this form; a kernel may speak in between, so it is asked again."""
        for _ in range(_ASKED_MOST):
            _, said = await self._shell.ask(text, timeout_s=timeout_s)
            answer = said.decode("ascii", "replace").strip()
            if form.fullmatch(answer):
                break
        return answer

    async def _attend(self, mark: str, running: Running, on_output: OutputSink) -> Completed:
        self._running = running
        began_at = time.monotonic()
        try:
            async with running.limit:
                running.may_stop = True
                status, left = await self._shell.go(
                    mark, self._way.grace_s, lambda data: on_output("stdout", data)
                )
                running.may_stop = False
        except TimeoutError:
            await self._break_off(mark)
            return completed(_KILLED, running.cause, began_at)
        except asyncio.CancelledError:
            running.may_stop = False
            await self._break_off(mark)
            raise
        finally:
            running.may_stop = False
            self._running = None
            running.over.set()
        if left:  # or the mark was damaged: look again
            await self._break_off(mark)
        return completed(status, "exit", began_at)

    async def _break_off(self, mark: str) -> None:
        """Take the shell back and end the tree; where both fail the DUT is not fit for use."""
        try:
            if not await self._shell.regain():
                await self._shell.ready()
            await self._end_marked(mark)
        except TimeoutError:
            self._shell.forget()
            raise self._not_ended("the shell does not come back") from None
        except TransportFailed as error:
            if error.code in ("console_login", "transfer_failed"):
                raise self._not_ended(str(error)) from None
            raise

    async def _cut_off(self, what: str) -> TransportFailed:
        """Give up a transfer that has not ended; return what to raise."""
        await self._shell.regain()
        return TransportFailed("transfer_failed", self._console.name, what)

    def _silent(self, when: str) -> TransportFailed:
        self._shell.forget()
        what = f"the shell does not answer {when}"
        return TransportFailed("console_login", self._console.name, what)

    def _not_ended(self, what: str) -> TransportFailed:
        fix = "power-cycle the DUT before it is used again"
        return TransportFailed("not_ended", self._console.name, what, fix)
