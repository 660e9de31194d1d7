"""A command of this host that acts on a DUT: a switch, a flasher. Its whole tree ends with it."""

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Callable, Mapping, Sequence

from tshrag_agent.transport.base import TransportFailed
from tshrag_common.errors import shown

_MOST_BYTES = 64 * 1024
_REAP_S = 5.0


async def run_command(
    argv: Sequence[str],
    where: str,
    timeout_s: float,
    hear: Callable[[bytes], None],
    env: Mapping[str, str] | None = None,
) -> None:
    """Execute `argv` to its end, without a shell; hand on what it says.

    Raises:
        TransportFailed: ``command_failed``: it does not start, takes too long, or says no.

    """
    name = shown(argv[0]) if argv else "''"
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, start_new_session=True,
            env={**os.environ, **(env or {})},
        )  # fmt: skip
    except (OSError, ValueError, TypeError) as error:
        what = f"{name} does not start: {error}"
        raise TransportFailed("command_failed", where, what) from error
    try:
        async with asyncio.timeout(timeout_s):
            last = await _heard(process, hear)
            code = await process.wait()
    except TimeoutError:
        what = f"{name} took longer than {timeout_s:g} s"
        raise TransportFailed("command_failed", where, what) from None
    finally:
        await end_group(process)
    if code != 0:
        said = shown(last.decode("utf-8", "replace").strip()[-200:], 200)
        raise TransportFailed("command_failed", where, f"{name} ended with {code}: {said}")


async def _heard(process: Process, hear: Callable[[bytes], None]) -> bytes:
    last = b""
    while process.stdout is not None and (data := await process.stdout.read(_MOST_BYTES)):
        hear(data)
        last = (last + data)[-_MOST_BYTES:]
    return last


async def end_group(process: Process) -> None:
    """Kill what is left of a process and its group; reap it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    async with asyncio.timeout(_REAP_S):
        await process.communicate()
