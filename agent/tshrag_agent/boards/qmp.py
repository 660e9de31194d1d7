"""QEMU's own control socket (QMP): one question, one answer, a line of JSON each."""

import asyncio
import os
from pathlib import Path

import msgspec

MOST_LINE_BYTES = 1 << 20
TIMEOUT_S = 10.0


class QmpFailed(Exception):
    """QEMU has refused a command, or said something that is no answer."""


Command = str | dict[str, object]
"""The name of a command, or all of it as QMP has it."""


async def ask(folder: Path, *commands: Command) -> object:
    """Do `commands` on the QEMU whose socket ``qmp`` is in `folder`; return the last answer.

    Raises:
        OSError: nobody listens there.
        TimeoutError: no answer.
        QmpFailed: it said no.

    """
    async with asyncio.timeout(TIMEOUT_S):
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:  # an address holds 107 bytes only
            reader, writer = await asyncio.open_unix_connection(
                f"/proc/self/fd/{fd}/qmp", limit=MOST_LINE_BYTES
            )
        finally:
            os.close(fd)
        try:
            await reader.readline()  # its greeting
            answer: object = None
            for command in ("qmp_capabilities", *commands):
                whole = {"execute": command} if isinstance(command, str) else command
                writer.write(msgspec.json.encode(whole) + b"\n")
                answer = await _answer(reader)
            return answer
        finally:
            writer.close()


async def _answer(reader: asyncio.StreamReader) -> object:
    while True:
        line = await reader.readline()
        if not line:
            raise QmpFailed("it has hung up")
        try:
            said: object = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            raise QmpFailed(f"no JSON: {error}") from None
        if isinstance(said, dict) and "return" in said:
            return said["return"]
        if isinstance(said, dict) and "error" in said:
            raise QmpFailed(str(said["error"])[:300])
