"""Power switches: commands of this host, or none.

A command is an argv of the operator's, without a shell: a PDU's own tool, curl, ipmitool, uhubctl.
"""

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process

from tshrag_agent.transport.base import PowerState, PowerSwitch, TransportFailed
from tshrag_agent.transport.ways import PowerWay
from tshrag_common.errors import shown
from tshrag_common.ids import DutId

_MOST_BYTES = 64 * 1024
_REAP_S = 5.0


def power_switch(dut: DutId, way: PowerWay | None) -> PowerSwitch:
    """Return the switch of `dut`; without a way it says that there is none."""
    return CommandSwitch(dut, way or PowerWay())


class CommandSwitch:
    """Switches by commands; one at a time, since a PDU's socket is one thing."""

    def __init__(self, dut: DutId, way: PowerWay) -> None:
        self._dut, self._way = dut, way
        self._turn = asyncio.Lock()

    async def on(self) -> None:
        async with self._turn:
            await self._execute("on", self._way.on)

    async def off(self) -> None:
        async with self._turn:
            await self._execute("off", self._way.off)

    async def cycle(self) -> None:
        async with self._turn:
            if self._way.cycle:
                await self._execute("cycle", self._way.cycle)
                return
            if not (self._way.on and self._way.off):  # never off without a way back
                raise self._failed("cycle", "it is not set up", "set power.cycle, or on and off")
            await self._execute("off", self._way.off)
            await asyncio.sleep(self._way.off_s)
            await self._execute("on", self._way.on)

    async def status(self) -> PowerState:
        if not self._way.status:
            return "unknown"
        async with self._turn:
            said = await self._execute("status", self._way.status)
        first = said.lower().split()[:1]
        if first == ["on"]:
            return "on"
        return "off" if first == ["off"] else "unknown"

    async def _execute(self, what: str, argv: tuple[str, ...]) -> str:
        """Execute one command to its end; its whole group ends when the time is over."""
        if not argv:
            raise self._failed(what, "it is not set up", f"set power.{what} in agent.toml")
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, start_new_session=True
            )
        except (OSError, ValueError) as error:
            raise self._failed(what, f"{argv[0]!a} does not start: {error}") from error
        try:
            async with asyncio.timeout(self._way.timeout_s):
                said = await _said(process)
                code = await process.wait()
        except TimeoutError:
            found = f"{argv[0]!a} took longer than {self._way.timeout_s:g} s"
            raise self._failed(what, found, "see the switch") from None
        finally:
            await _end(process)
        if code != 0:
            found = f"{argv[0]!a} ended with {code}: {shown(said.strip()[:200])}"
            raise self._failed(what, found, "see the switch")
        return said

    def _failed(self, what: str, found: str, fix: str = "") -> TransportFailed:
        return TransportFailed("power_failed", f"power {what} of {self._dut}", found, fix)


async def _said(process: Process) -> str:
    """Read all output, keep the first of it: a full pipe would hold the command."""
    said = bytearray()
    while process.stdout is not None and (data := await process.stdout.read(_MOST_BYTES)):
        said += data[: _MOST_BYTES - len(said)]
    return said.decode("utf-8", "replace")


async def _end(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    async with asyncio.timeout(_REAP_S):
        await process.communicate()
