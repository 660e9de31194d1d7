"""Power switches: commands of this host, requests, relays; confirmed where that can be asked for.

A command is an argv of the operator's, without a shell: a PDU's own tool, curl, ipmitool, uhubctl.
"""

import asyncio
import re
import time
import urllib.error
import urllib.request
from pathlib import Path

import serial

from tshrag_agent.transport.base import PowerState, PowerSwitch, TransportFailed
from tshrag_agent.transport.host_command import run_command
from tshrag_agent.transport.power_acts import Execute, PowerAct, Request, Write
from tshrag_agent.transport.power_ways import PowerWay, acts_of
from tshrag_common.errors import shown
from tshrag_common.ids import DutId

_MOST_BYTES = 64 * 1024
_LOOK_S = 0.25


def power_switch(dut: DutId, way: PowerWay | None) -> PowerSwitch:
    """Return the switch of `dut`; without a way it says that there is none."""
    return ActSwitch(dut, way or PowerWay())


class ActSwitch:
    """Switches by what the settings say; one at a time, since a PDU's socket is one thing."""

    def __init__(self, dut: DutId, way: PowerWay) -> None:
        self._dut, self._way, self._acts = dut, way, acts_of(way)
        self._turn = asyncio.Lock()

    async def on(self) -> None:
        async with self._turn:
            await self._do("on", self._acts.on)
            await self._confirm("on")

    async def off(self) -> None:
        async with self._turn:
            await self._do("off", self._acts.off)
            await self._confirm("off")

    async def cycle(self) -> None:
        async with self._turn:
            if self._acts.cycle is not None:
                await self._do("cycle", self._acts.cycle)
            else:
                if not (self._acts.on and self._acts.off):  # never off without a way back
                    raise self._failed(
                        "cycle", "it is not set up", "set power.cycle, or on and off"
                    )
                await self._do("off", self._acts.off)
                await self._confirm("off")
                await asyncio.sleep(self._way.off_s)
                await self._do("on", self._acts.on)
            await self._confirm("on")

    async def status(self) -> PowerState:
        async with self._turn:
            return await self._status()

    async def read(self) -> float:
        async with self._turn:
            if self._acts.read is None:
                fix = "set power.read in agent.toml, where its outlet has a meter"
                raise self._failed("read", "it is not set up", fix)
            said = await self._do("read", self._acts.read)
        found = re.search(self._acts.watts, said, re.MULTILINE)
        try:
            return float(found[1]) if found is not None else float(said)
        except (ValueError, IndexError):
            what = f"there are no watts in {shown(said.strip(), 120)}"
            raise self._failed("read", what, "see power.read_watts") from None

    async def _status(self) -> PowerState:
        if self._acts.status is None:
            return "unknown"
        said = await self._do("status", self._acts.status)
        if re.search(self._acts.status_on, said, re.MULTILINE):
            return "on"
        return "off" if re.search(self._acts.status_off, said, re.MULTILINE) else "unknown"

    async def _confirm(self, wanted: PowerState) -> None:
        """See that it is so, where that can be asked for: a relay may stick."""
        ends = time.monotonic() + self._way.confirm_s
        while (found := await self._status()) not in (wanted, "unknown"):
            if time.monotonic() >= ends:
                what = f"it still says {found} after {self._way.confirm_s:g} s"
                raise self._failed(wanted, what, "see the switch")
            await asyncio.sleep(_LOOK_S)

    async def _do(self, what: str, act: PowerAct | None) -> str:
        if act is None:
            raise self._failed(what, "it is not set up", f"set power.{what} in agent.toml")
        match act:
            case Execute():
                return await self._execute(what, act)
            case Request():
                return await asyncio.to_thread(self._request, what, act)
            case Write():
                await asyncio.to_thread(self._write, what, act)
                return ""

    async def _execute(self, what: str, act: Execute) -> str:
        """Execute one command to its end; its whole group ends when the time is over."""
        said = bytearray()

        def hear(data: bytes) -> None:
            said.extend(data[: _MOST_BYTES - len(said)])

        try:
            await run_command(act.argv, self._dut, self._way.timeout_s, hear, act.env)
        except TransportFailed as error:
            raise self._failed(what, error.what, "see the switch") from error
        return said.decode("utf-8", "replace")

    def _request(self, what: str, act: Request) -> str:
        try:
            made = urllib.request.Request(
                act.url,
                data=act.body.encode() if act.body else None,
                method=act.method,
                headers=_headers(act.headers_file)
                | ({"Content-Type": act.type} if act.type else {}),
            )
            with urllib.request.urlopen(made, timeout=self._way.timeout_s) as answer:
                said: bytes = answer.read(_MOST_BYTES)
        except urllib.error.HTTPError as error:
            found = f"{shown(act.url)} answers {error.code}"
            error.close()
            raise self._failed(what, found, "see the switch") from None
        except (OSError, ValueError) as error:
            raise self._failed(what, f"{shown(act.url)}: {error}", "see the switch") from None
        return said.decode("utf-8", "replace")

    def _write(self, what: str, act: Write) -> None:
        try:
            with serial.Serial(act.device, act.baud, write_timeout=self._way.timeout_s) as line:
                line.write(act.data)
                line.flush()
        except (serial.SerialException, OSError, ValueError) as error:
            raise self._failed(what, f"{act.device}: {error}", "see the relay") from None

    def _failed(self, what: str, found: str, fix: str = "") -> TransportFailed:
        return TransportFailed("power_failed", f"power {what} of {self._dut}", found, fix)


def _headers(path: str) -> dict[str, str]:
    """Return the headers in a file of ``Name: value`` lines; a token does not stand in settings."""
    if not path:
        return {}
    lines = Path(path).expanduser().read_text().splitlines()
    pairs = [line.partition(":") for line in lines if ":" in line]
    return {name.strip(): value.strip() for name, _, value in pairs}
