"""A virtual board: a QEMU process that is the power switch of its DUT.

It begins paused and is let go when its console has been connected, so that no byte of a bootloader
is missed. The shepherd keeps it: it ends with the agent; an agent that crashed, or was replaced,
finds it again by its sockets; where none comes back it ends with everything else of the shepherd.
A disk is never written: what the board writes goes to an overlay, new for each run (or attempt).
"""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

from tshrag_agent.attempts.host import HostExit, HostStart, Shepherd, StartRefused
from tshrag_agent.boards import qmp
from tshrag_agent.boards.qemu_way import QemuWay
from tshrag_agent.transport.base import PowerState, TransportFailed
from tshrag_common.errors import LabError, shown
from tshrag_common.ids import DutId

START_S = 20.0
_END_S = 10.0
_LOOK_S = 0.05
LOG = "qemu.log"


def process_of(dut: DutId) -> str:
    """Return the name under which the shepherd knows the QEMU of a board."""
    return f"qemu.{dut}"


Connected = Callable[[float], Awaitable[None]]
"""Return when the console is open; raise TransportFailed when the seconds are over."""


class QemuBoard:
    """`PowerSwitch` of a virtual board."""

    def __init__(
        self,
        dut: DutId,
        way: QemuWay,
        folder: Path,
        connected: Connected | None,
        shepherd: Shepherd,
        ssh_port: int = 0,
    ) -> None:
        self._dut, self._way, self._folder = dut, way, folder
        self._connected, self._shepherd, self._ssh_port = connected, shepherd, ssh_port
        self._key = process_of(dut)
        self._turn = asyncio.Lock()
        self._user = ""

    def used_by(self, user: str) -> None:
        """Say who has the board from now on: another one gets a disk of its own."""
        self._user = user

    async def on(self) -> None:
        async with self._turn:
            if await self._status() == "off":
                await self._start()

    async def off(self) -> None:
        async with self._turn:
            await self._stop()

    async def cycle(self) -> None:
        async with self._turn:
            await self._stop()
            await self._start()

    async def status(self) -> PowerState:
        async with self._turn:
            return await self._status()

    async def read(self) -> float:
        raise self._failed("read", "a virtual board has no meter")

    async def send_break(self) -> None:
        """Let the board's UART see a break: no socket carries one.

        Raises:
            TransportFailed: ``serial_lost``: it has no power, or QEMU refuses.

        """
        order: qmp.Command = {"execute": "chardev-send-break", "arguments": {"id": "console"}}
        try:
            await qmp.ask(self._folder, order)
        except (OSError, TimeoutError, qmp.QmpFailed) as error:
            raise TransportFailed("serial_lost", self._dut, f"no break: {error}") from None

    async def _status(self) -> PowerState:
        try:
            await qmp.ask(self._folder, "query-status")
        except OSError:
            return "off"
        except (TimeoutError, qmp.QmpFailed):
            return "unknown"
        return "on"

    async def _start(self) -> None:
        await self._stop()  # it may hang, and answer nobody
        exited = await self._spawn()
        try:
            async with asyncio.timeout(START_S):
                await self._listens(exited)
                if self._connected is not None:
                    await self._connected(START_S)
                await qmp.ask(self._folder, "cont")
        except TimeoutError:
            await self._stop()
            raise self._failed("on", f"QEMU has not begun within {START_S:g} s") from None
        except (qmp.QmpFailed, OSError, TransportFailed) as error:
            await self._stop()
            raise self._failed("on", f"QEMU: {error}") from None

    async def _spawn(self) -> "asyncio.Future[HostExit]":
        """Start it, paused; what it says goes to a file beside its sockets."""
        argv = await asyncio.to_thread(self._prepare)
        log = str(self._folder.absolute() / LOG)
        start = HostStart(
            key=self._key,
            argv=tuple(argv),
            cwd=str(self._folder.absolute()),
            env={name: text for name, text in os.environ.items() if not name.startswith("TSHRAG_")},
            stdout_path=log,
            stderr_path=log,
            grace_s=_END_S,
        )
        try:
            await self._shepherd.start(start)
        except LabError as error:
            fix = "install it (qemu-system-*), or correct qemu.program"
            raise self._failed("on", f"{argv[0]!a} does not start: {error}", fix) from error
        return self._shepherd.exited(self._key)

    def _prepare(self) -> list[str]:
        """Lay out its folder and return its argv; blocks."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._folder / LOG).unlink(missing_ok=True)
        return command_line(self._way, self._dut, self._overlay(), self._ssh_port)

    async def _listens(self, exited: "asyncio.Future[HostExit]") -> None:
        """Wait until its sockets are there; it has nothing else to say that it began."""
        while True:
            if exited.done():
                said = shown((self._folder / LOG).read_text("utf-8", "replace").strip(), 300)
                raise self._failed("on", f"QEMU ended with {exited.result().exit_code}: {said}")
            try:
                await qmp.ask(self._folder, "query-status")
                return
            except OSError:
                await asyncio.sleep(_LOOK_S)

    async def _stop(self) -> None:
        with contextlib.suppress(OSError, TimeoutError, qmp.QmpFailed):
            await qmp.ask(self._folder, "quit")
        try:
            await self._shepherd.end(self._key, "power_off")
        except StartRefused as error:
            if error.code != "unknown_key":
                raise self._failed("off", str(error)) from error
            await self._end_stranger()
        except LabError as error:
            raise self._failed("off", str(error)) from error
        with contextlib.suppress(LabError):
            await self._shepherd.forget(self._key)
        for name in ("qmp", "serial"):
            with contextlib.suppress(OSError):
                (self._folder / name).unlink()

    async def _end_stranger(self) -> None:
        """Wait for the end of one that the shepherd does not know: of a release without that."""
        for _ in range(round(_END_S / _LOOK_S)):
            if await self._status() == "off":
                return
            await asyncio.sleep(_LOOK_S)
        raise self._failed("off", "a QEMU of an earlier agent does not end", "kill it by hand")

    def _overlay(self) -> str:
        """Return the disk that the board writes to; none where it has no disk."""
        if not self._way.disk:
            return ""
        path, owner = self._folder / "disk.qcow2", self._folder / "disk.user"
        known = owner.read_text() if owner.exists() and path.exists() else None
        if known is not None and (self._way.fresh == "never" or known == self._owner()):
            return path.name
        argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", self._way.disk_format, "-b"]
        argv += [str(Path(self._way.disk).expanduser().absolute()), str(path)]
        try:
            made = subprocess.run(argv, capture_output=True, timeout=START_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise self._failed("on", f"no overlay: {error}", "install qemu-utils") from error
        if made.returncode:
            text = shown(made.stderr.decode("utf-8", "replace").strip(), 300)
            raise self._failed("on", f"no overlay for {self._way.disk}: {text}")
        owner.write_text(self._owner())
        return path.name

    def _owner(self) -> str:
        return self._user.partition("/")[0] if self._way.fresh == "run" else self._user

    def _failed(self, what: str, found: str, fix: str = "") -> TransportFailed:
        return TransportFailed("power_failed", f"power {what} of {self._dut}", found, fix)


def command_line(way: QemuWay, dut: DutId, overlay: str, ssh_port: int) -> list[str]:
    """Return the argv of the QEMU; sockets are named relative to its folder."""
    argv = [way.program, "-name", dut, "-machine", way.machine, "-m", way.memory]
    argv += ["-smp", str(way.cores), "-display", "none", "-nodefaults", "-no-user-config", "-S"]
    argv += ["-qmp", "unix:qmp,server=on,wait=off"]
    argv += ["-chardev", "socket,id=console,path=serial,server=on,wait=off"]
    argv += ["-serial", "chardev:console", "-monitor", "none"]
    argv += ["-cpu", way.cpu] if way.cpu else []
    for option, value in (
        ("-bios", way.firmware),
        ("-kernel", way.kernel),
        ("-initrd", way.initrd),
        ("-dtb", way.dtb),
    ):
        argv += [option, str(Path(value).expanduser().absolute())] if value else []
    argv += ["-append", way.append] if way.append else []
    if overlay:
        argv += ["-drive", f"file={overlay},format=qcow2,if={way.disk_interface}"]
    if way.network:
        forward = f",hostfwd=tcp:127.0.0.1:{ssh_port}-:22" if ssh_port else ""
        argv += ["-nic", f"user,restrict=on{forward}"]
    else:
        argv += ["-nic", "none"]
    return [*argv, *way.args]
