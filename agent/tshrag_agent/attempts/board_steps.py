"""An attempt that does something with a board: power, boot, console, bootloader, files, flash.

What the console says meanwhile is its output. What the DUT does not do as asked is a failure of
the job; a switch or a line that does not work is an error of the lab.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from tshrag_agent.attempts import workdir
from tshrag_agent.attempts.attempt import Attempt
from tshrag_agent.attempts.capture import capture
from tshrag_agent.attempts.raw_log import RawLog
from tshrag_agent.attempts.steps import Site
from tshrag_agent.boards import asking
from tshrag_agent.boards.board import Board
from tshrag_agent.boards.boards import Boards
from tshrag_agent.boards.guard import DutFailed, guarded
from tshrag_agent.duts import Duts
from tshrag_agent.reports.logpump import LogPump
from tshrag_agent.reports.tap import SampleTap
from tshrag_agent.transport.base import DutTransport, TransportFailed
from tshrag_agent.transport.host_command import run_command
from tshrag_agent.transport.serial_shell import SerialTransport
from tshrag_common.actions import Action
from tshrag_common.errors import Refused
from tshrag_common.ids import DutId

COPY_S = 3600.0
BACK_BYTES = 1 << 30


class BoardSteps:
    """The one thing that this attempt does with its board."""

    def __init__(self, attempt: Attempt, site: Site, boards: Boards, duts: Duts) -> None:
        if attempt.start.dut is None or attempt.spec.board is None:
            raise AssertionError("an attempt with a board has one, and something to do")
        self._attempt, self._site, self._boards, self._duts = attempt, site, boards, duts
        self._dut: DutId = attempt.start.dut
        self._action: Action = attempt.spec.board
        self._dir = workdir.place(site.store, attempt.start)
        self._tap = SampleTap(attempt.start, attempt.spec, site.clock, ahead_s=site.ahead_s)
        self._pump = LogPump(
            attempt,
            {"stdout": self._dir.stdout, "stderr": self._dir.stderr},
            journal=site.journal,
            clock=site.clock,
            tap=self._tap,
            spawn=site.spawn,
            most_bytes=attempt.spec.output_bytes,
        )
        self._raw: tuple[RawLog, RawLog] | None = None

    async def work(self) -> None:
        workdir.make(self._dir, self._attempt.spec)
        most_bytes = self._attempt.spec.output_bytes
        self._raw = RawLog(self._dir.stdout, most_bytes), RawLog(self._dir.stderr, most_bytes)
        self._pump.start()
        self._attempt.launched()
        doing: dict[str, Callable[[Board], Awaitable[None]]] = {
            "power": self._power,
            "boot": self._boot,
            "send": self._send,
            "expect": self._expect,
            "bootloader": self._bootloader,
            "upload": self._upload,
            "download": self._download,
            "flash": self._flash,
        }
        try:
            await doing[self._action.kind](self._boards.board(self._dut))
        except DutFailed as error:
            self._attempt.record.fail("failed", error.report())
        except TransportFailed as error:
            if error.quarantines:
                await self._site.blame(self._dut, error.line)
            raise

    async def clean_up(self) -> None:
        """Tell what was said; a board is left as it is."""
        if self._raw is None:
            return
        await self._capture()
        for log in self._raw:
            log.close()
        await self._pump.finish()
        record = self._attempt.record
        record.stdout = self._raw[0].counted(record.stdout)
        record.stderr = self._raw[1].counted(record.stderr)
        record.notices = self._tap.gate.notices()

    async def _capture(self) -> None:
        spec = self._attempt.spec
        if spec.capture and self._attempt.record.outcome in ("failed", "timeout"):
            board, fence = self._boards.board(self._dut), self._attempt.start.fence
            await capture(board, self._transport, fence, spec.capture, self._dir.frozen)

    def _hear(self, data: bytes) -> None:
        if self._raw is not None:
            self._raw[0].write(data)

    async def _power(self, board: Board) -> None:
        switch = board.parts.power
        match self._action.power:
            case "on":
                await switch.on()
            case "off":
                await switch.off()
            case _:
                await switch.cycle()

    async def _boot(self, board: Board) -> None:
        boot = self._action.boot
        if boot is not None:
            way = await board.to(boot.to, self._attempt.start.fence, self._hear, fresh=boot.fresh)
            self._hear(f"\r\n[tshrag: {' -> '.join(way)}]\r\n".encode())

    async def _send(self, board: Board) -> None:
        send = self._action.send
        if send is not None:
            await asking.send(board, self._attempt.start.fence, send)

    async def _expect(self, board: Board) -> None:
        expect = self._action.expect
        if expect is not None:
            await asking.expect(board, self._attempt.start.fence, expect, self._hear)

    async def _bootloader(self, board: Board) -> None:
        work = asking.bootloader(board, self._attempt.start.fence, self._action.bootloader)
        await guarded(board.parts.console, work, hear=self._hear, death=board.death)

    async def _upload(self, board: Board) -> None:
        upload = self._action.upload
        if upload is None:
            return
        source = await self._file(upload.path)
        match upload.via:
            case "":
                await self._transport.upload(source, upload.to, timeout_s=COPY_S)
            case "loadx" | "loady":
                data = await asyncio.to_thread(source.read_bytes)
                work = asking.load(board, self._attempt.start.fence, upload, data, self._hear)
                await guarded(board.parts.console, work, hear=_nothing, death=board.death)
            case via:
                console = self._console(board)
                await console.upload(source, upload.to, timeout_s=COPY_S, via=via)
        self._hear(f"{upload.load}/{upload.path} -> {upload.to}\n".encode())

    async def _download(self, board: Board) -> None:
        download = self._action.download
        if download is None:
            return
        target = self._dir.artifacts / download.to
        await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
        if download.via:
            size = await self._console(board).download(
                download.path, target, most_bytes=BACK_BYTES, timeout_s=COPY_S, via=download.via
            )
        else:
            size = await self._transport.download(
                download.path, target, most_bytes=BACK_BYTES, timeout_s=COPY_S
            )
        self._hear(f"{download.path} -> artifacts/{download.to}: {size} bytes\n".encode())

    def _console(self, board: Board) -> SerialTransport:
        serial = board.parts.serial
        if serial is None:
            raise TransportFailed("no_console", self._dut, "it has no console", "add [dut.serial]")
        return serial

    async def _flash(self, board: Board) -> None:
        flash, way = self._action.flash, self._boards.table(self._dut).flash
        if way is None or flash is None:
            fix = "set dut.flash.command in agent.toml"
            raise Refused(self._dut, "there is no command that flashes it", fix, code="no_flash")
        words = {"image": str(await self._file(flash.path)), "slot": flash.slot, "dut": self._dut}
        argv = [_filled(word, words) for word in way.command]
        work = run_command(argv, self._dut, way.timeout_s, self._hear)
        await guarded(board.parts.console, work, hear=self._hear)

    @property
    def _transport(self) -> DutTransport:
        return self._duts.transport(self._dut, self._attempt.spec.need.target.runtime)

    async def _file(self, path: str) -> Path:
        """Return a file or folder of the load, fetched and verified."""
        load = self._attempt.spec.load
        if load is None:
            raise AssertionError("a plan gives such a step its load")
        kept = await self._site.kit.loads.prepare(
            load.digest, self._dir.path, size_bytes=load.size_bytes
        )
        found = kept.tree / path
        if not await asyncio.to_thread(found.exists):
            raise Refused(load.name, f"{path!a} is not in the load", code="entry_missing")
        return found


def _nothing(_data: bytes) -> None:
    """Leave out what is said: it is a protocol."""


def _filled(word: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        word = word.replace("{" + name + "}", value)
    return word
