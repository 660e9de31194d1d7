"""Executes on a DUT under its wrapper ``wrap.sh``: what SSH and this host have in common.

The probe puts the wrapper in its place, a session runs under it, and its end is judged here.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from tshrag_agent.transport.base import (
    Cause,
    Completed,
    DutProbe,
    OutputSink,
    ProcReading,
    ShellCommand,
    Stream,
    TransportCode,
    TransportFailed,
)
from tshrag_agent.transport.board_time import MOST_BYTES, QUESTION, ClockReading, read_answer
from tshrag_agent.transport.dut_facts import (
    MOST_FACT_BYTES,
    Answers,
    probe_script,
    proc_reading,
    proc_script,
)
from tshrag_agent.transport.launch import Ended, exit_of, launch_script
from tshrag_agent.transport.session import AFTER_KILL_S, Channel, Link, Session
from tshrag_agent.transport.ways import Guard
from tshrag_common.errors import StaleFence, shown
from tshrag_common.ids import DutId, Fence

logger = logging.getLogger(__name__)

SHELL = "exec /bin/sh"
"""All that a login shell of the DUT, whichever it is, has to understand."""

WRAP = Path(__file__).with_name("wrap.sh")
STALE, NO_FENCE, NOT_ENDED = 73, 74, 75
_NO_WRAPPER = (2, 126, 127)  # what shells say of a script that is not there; ash says 2
_LOCK_S = 30.0  # the wrapper waits so long for another one at the fence
_PROBE_S = 20.0


class GuardedShell:
    """The commands of one DUT. Each runs under the wrapper, with its fence and its lease."""

    def __init__(self, dut: DutId, link: Link, guard: Guard) -> None:
        self._dut, self._link, self._guard = dut, link, guard
        self._holder = secrets.token_hex(8)  # equal fences are for one holder only
        self._serial = 0
        self._sessions: list[Session] = []
        self._answers: Answers | None = None
        self._seen = -1  # number of the connection that `_answers` came over
        self._asking = asyncio.Lock()

    async def probe(self, *, timeout_s: float) -> DutProbe:
        async with self.within(timeout_s):
            return (await self.answers()).probe()

    async def answers(self) -> Answers:
        """Return what the DUT is; asked once a connection, since a reboot empties ``/run``."""
        number = await self._link.connect()
        async with self._asking:
            if self._answers is None or self._seen != number:
                self._answers = await self._ask()
                self._seen = number
            return self._answers

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
        began = time.monotonic()
        for retry in (True, False):
            answers = await self.answers()
            if not answers.can_guard:
                self._allow_unguarded()
            session = self._session(fence, on_output, guarded=answers.can_guard)
            line, script = self._prepared(answers, session, command, env, cwd)
            await self._attend(session, line, script, timeout_s)
            if session.began or session.status not in _NO_WRAPPER or not retry:
                break
            self._seen = -1  # a reboot or somebody's cleaning took it away: put it back
        return self._judge(session, answers, time.monotonic() - began)

    async def _attend(self, session: Session, line: str, script: bytes, timeout_s: float) -> None:
        self._sessions.append(session)
        try:
            await session.attend(self._link, line, script, timeout_s)
        finally:
            self._sessions.remove(session)

    async def end(self, fence: Fence) -> None:
        """End what runs under `fence`; also what an agent before this one has left there."""
        mine = [session for session in self._sessions if session.fence == fence]
        for session in mine:
            await session.stop("stopped")
        if mine:
            return
        answers = await self.answers()
        if answers.can_guard:
            line = self._line(answers, "end", fence)
            timeout_s = _LOCK_S + self._guard.grace_s + AFTER_KILL_S
            status, _, said = await self.script(b"", command=line, timeout_s=timeout_s)
            if status != 0:
                raise self._no_start(status, said, fence)

    async def close(self) -> None:
        for session in list(self._sessions):
            await session.stop("stopped")

    async def read_proc(self, *, timeout_s: float) -> ProcReading:
        nonce = secrets.token_hex(8)
        _, said, _ = await self.script(proc_script(nonce), timeout_s=timeout_s)
        return proc_reading(said.decode("utf-8", "replace"), nonce)

    async def read_clock(self, *, timeout_s: float) -> ClockReading | None:
        """Ask for the time in a shell that is there already: only the question is on the way."""
        said, heard = bytearray(), list[float]()

        def hear(stream: Stream, data: bytes) -> None:
            if stream == "stdout":
                said.extend(data[: MOST_BYTES - len(said)])
                heard.append(time.monotonic())

        async with self.channel(SHELL, hear, timeout_s) as channel:
            sent = time.monotonic()
            await channel.write(f"{QUESTION}\n".encode())
            channel.finish()
            await channel.closed()
        return read_answer(bytes(said), sent, heard[-1]) if heard else None

    async def script(
        self, text: bytes, *, command: str = SHELL, timeout_s: float
    ) -> tuple[int | None, bytes, str]:
        """Execute a short script of ours, outside any attempt: (status, stdout, stderr)."""
        heard: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}

        def hear(stream: Stream, data: bytes) -> None:
            heard[stream] += data[: MOST_FACT_BYTES - len(heard[stream])]

        async with self.channel(command, hear, timeout_s) as channel:
            await channel.write(text)
            channel.finish()
            await channel.closed()
        return channel.status, bytes(heard["stdout"]), heard["stderr"].decode("utf-8", "replace")

    @contextlib.asynccontextmanager
    async def channel(
        self, command: str, on_output: OutputSink, timeout_s: float
    ) -> AsyncIterator[Channel]:
        """Start `command` and let go of it at the end, whatever happens."""
        async with self.within(timeout_s):
            await self._link.connect()
            channel = await self._link.start(command, on_output)
            try:
                yield channel
            finally:
                channel.abort()

    @contextlib.asynccontextmanager
    async def within(self, timeout_s: float) -> AsyncIterator[None]:
        """Say which DUT did not answer when the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError:
            what = f"no answer within {timeout_s:g} s"
            raise self.failed("dut_unreachable", what, "see whether the DUT is busy") from None

    def failed(self, code: TransportCode, what: str, fix: str = "") -> TransportFailed:
        return TransportFailed(code, f"{self._dut} ({self._link.where})", what, fix)

    async def _ask(self) -> Answers:
        wrap = await asyncio.to_thread(WRAP.read_bytes)
        nonce = secrets.token_hex(8)
        text = f"printf '\\036%s\\n' {nonce}\n".encode() + probe_script(wrap, self._guard.run_dir)
        status, said, errors = await self.script(text, timeout_s=_PROBE_S)
        before, found, facts = said.decode("utf-8", "replace").partition(f"\036{nonce}\n")
        if not found:
            heard = shown((errors.strip() or before.strip())[:200]) or "nothing"
            what = f"/bin/sh does not start (status {status}): it said {heard}"
            raise self.failed("no_shell", what, "give the user a login shell and the DUT /bin/sh")
        return Answers(facts)

    def _allow_unguarded(self) -> None:
        if not self._guard.unguarded:
            raise self.failed(
                "no_shell",
                "there is no shell that can hold a lease (bash or busybox ash, /proc, a run "
                "directory of its own)",
                "install one, or set guard.unguarded = true and accept that a lost link may "
                "leave processes on the DUT",
            )

    def _session(self, fence: Fence, on_output: OutputSink, *, guarded: bool) -> Session:
        return Session(
            fence,
            on_output,
            beat_s=self._guard.beat_s if guarded else None,
            stop_s=self._guard.grace_s + AFTER_KILL_S,
            kill=self._kill,
        )

    def _line(self, answers: Answers, stage: str, fence: Fence) -> str:
        self._serial += 1
        grace_ds = round(self._guard.grace_s * 10)
        who = f"{answers.run_dir} {self._dut} {fence:021d} {self._holder} {self._serial}"
        how = f"{self._guard.lease_s} {grace_ds} {answers.shell}"
        return f"exec {answers.shell} {answers.wrap} {stage} {who} {how}"

    def _prepared(
        self,
        answers: Answers,
        session: Session,
        command: Sequence[str] | ShellCommand,
        env: Mapping[str, str],
        cwd: str,
    ) -> tuple[str, bytes]:
        """Return the command line for the DUT, and what goes to its stdin."""
        if answers.can_guard:
            setsid = answers.tools.get("setsid", "")
            prefix = f"{setsid} --" if setsid else ""
            script = launch_script(command, env, cwd, prefix=prefix, restore="exec 2>&8 8>&-")
            nonce = session.nonce.encode() + b"\n"
            return self._line(answers, "guard", session.fence), nonce + script + nonce
        said = f"printf '\\036%s started %s\\n' {session.nonce} $$"
        return SHELL, f"{said}; {said} >&2\n".encode() + launch_script(command, env, cwd)

    async def _kill(self, pid: int) -> None:
        """End a process group without a wrapper: what has left the group stays."""
        wait_s = max(1, round(self._guard.grace_s))
        text = (
            f"end() {{ kill -$1 -- -{pid} 2>/dev/null || kill -$1 {pid} 2>/dev/null; }}\n"
            f"end TERM; n=0; while [ $n -lt {wait_s} ] && kill -0 {pid} 2>/dev/null; do\n"
            "sleep 1; n=$((n + 1)); done; end KILL\n"
        )
        with contextlib.suppress(TransportFailed):
            await self.script(text.encode(), timeout_s=wait_s + AFTER_KILL_S)

    def _judge(self, session: Session, answers: Answers, took_s: float) -> Completed:
        if session.end is not None:
            return self._guarded_end(session, session.end, took_s)
        if not session.began and session.status is not None:
            raise self._no_start(session.status, session.noise, session.fence)
        if not answers.can_guard and (session.status is not None or session.asked):
            return self._unguarded_end(session, took_s)
        if session.asked and not session.began:
            return Completed(
                exit_code=None, cause=session.asked, duration_s=took_s, note="no start"
            )
        raise self.failed(
            "dut_unreachable",
            "the link was lost while a command was running",
            f"the DUT ends the command within {self._guard.lease_s + self._guard.grace_s:g} s; "
            "see its power, its network and its sshd",
        )

    def _guarded_end(self, session: Session, end: Ended, took_s: float) -> Completed:
        if end.left:
            pids = " ".join(str(pid) for pid in end.left[:10])
            what = f"processes {pids} cannot be ended"
            raise self.failed("not_ended", what, "power-cycle the DUT before it is used again")
        causes: dict[str, Cause] = {"exit": "exit", "superseded": "superseded"}
        cause = causes.get(end.cause, session.asked or "stopped")
        code, signal = exit_of(end.status)
        return Completed(exit_code=code, signal=signal, cause=cause, duration_s=took_s)

    def _unguarded_end(self, session: Session, took_s: float) -> Completed:
        code, signal = (None, 9) if session.status is None else exit_of(session.status)
        note = "without a guard: what left its process group may still be alive"
        cause = session.asked or "exit"
        return Completed(
            exit_code=code, signal=signal, cause=cause, guarded=False, duration_s=took_s, note=note
        )

    def _no_start(self, status: int | None, said: str, fence: Fence) -> Exception:
        """Say why the wrapper has not started anything."""
        last = said.strip().rpartition("\n")[2]
        word, _, seen = last.partition(" ")
        if status == STALE and word == "stale_fence" and seen.isdecimal():
            return StaleFence(fence, int(seen))
        if status == NOT_ENDED:
            return self.failed("not_ended", shown(last), "power-cycle the DUT")
        if status == NO_FENCE:
            return self.failed("fence_failed", shown(last or "the script did not arrive"))
        what = f"the wrapper did not start (status {status}): {shown(last)}"
        return self.failed("no_shell", what, "see whether the run directory can be written")
