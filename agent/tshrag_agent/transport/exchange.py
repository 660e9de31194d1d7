"""One file by XMODEM or YMODEM over a talk on a console."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.dialogue import Dialogue
from tshrag_common.errors import LabError
from tshrag_common.xymodem import ASK, NAK, REST_S, Receiver, Sender

Through = Callable[[bytes], bytes]
"""What of the bytes heard is the protocol's."""

_CANCEL_S = 5.0


def _never() -> bool:
    return False


async def exchange(
    talk: Dialogue,
    machine: Sender | Receiver,
    through: Through,
    has_ended: Callable[[], bool] = _never,
) -> None:
    """Let `machine` talk until the file is over, or the other side `has_ended`.

    Whoever breaks it off tells the other side.

    Raises:
        TransportFailed: ``transfer_failed``.

    """
    try:
        await _drive(talk, machine, through, has_ended)
    except (asyncio.CancelledError, LabError):
        with suppress(LabError, TimeoutError):
            async with asyncio.timeout(_CANCEL_S):
                await talk.type(machine.cancel())
        raise
    if machine.state != "done":
        what = f"after {machine.done_bytes} bytes: {machine.why}"
        raise TransportFailed("transfer_failed", talk.where, what, "see the console's log")


async def _drive(
    talk: Dialogue, machine: Sender | Receiver, through: Through, has_ended: Callable[[], bool]
) -> None:
    answer, asked = machine.begin(), False
    while True:
        if answer:
            await asyncio.sleep(REST_S if asked else 0)
            await talk.type(answer)
        if machine.state != "going":
            return None
        data = await talk.hear(machine.silence_s)
        heard = through(data) if data is not None else b""
        answer = machine.feed(heard) if data is not None else machine.silence()
        if machine.state == "going" and has_ended():
            return machine.hang_up()
        asked = heard[-1:] in (bytes((NAK,)), bytes((ASK,)))
