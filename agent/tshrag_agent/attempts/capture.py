"""What a board is asked when a job on it has failed, before anybody else touches it.

Each answer is a file below ``artifacts/freeze``; what cannot be asked is a note there, not a fault.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from tshrag_agent.boards import asking
from tshrag_agent.boards.board import Board
from tshrag_agent.boards.guard import guarded
from tshrag_agent.transport.base import DutTransport, ShellCommand
from tshrag_common.actions import Capture
from tshrag_common.errors import LabError
from tshrag_common.ids import Fence

EACH_S = 60.0
_LISTEN_S = 5.0
MOST_BYTES = 4 << 20
"""Of one answer; what comes behind it is let go."""


async def capture(
    board: Board, transport: DutTransport, fence: Fence, what: Sequence[Capture], folder: Path
) -> None:
    """Ask all of `what`, one after the other, each within its time; what is answered stays."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    for number, each in enumerate(what, 1):
        path = folder / f"{number:02d}-{each.kind}.txt"
        if await asyncio.to_thread(path.exists):
            continue
        heard = Heard()
        try:
            async with asyncio.timeout(EACH_S):
                await _ask(board, transport, fence, each, heard.hear)
        except (LabError, TimeoutError) as error:
            said = error.line if isinstance(error, LabError) else f"no end within {EACH_S:g} s"
            heard.data += f"\n[tshrag: {said}]\n".encode()
        await asyncio.to_thread(_written, path, bytes(heard.data))


class Heard:
    """What a board answers, as far as it is kept: one that floods us fills no memory."""

    def __init__(self) -> None:
        self.data = bytearray()

    def hear(self, data: bytes) -> None:
        self.data += data[: max(0, MOST_BYTES - len(self.data))]


def _written(path: Path, data: bytes) -> None:
    """Write all of it or nothing: a file that is there counts as answered."""
    draft = path.with_suffix(".new")
    draft.write_bytes(data)
    draft.replace(path)


async def _ask(
    board: Board,
    transport: DutTransport,
    fence: Fence,
    what: Capture,
    hear: Callable[[bytes], None],
) -> None:
    if what.kind == "sysrq":
        work = _sysrq(board, fence, what.sysrq)
        await guarded(board.parts.console, work, hear=hear)
    elif what.kind == "bootloader":
        asked = asking.bootloader(board, fence, (what.bootloader,))
        await guarded(board.parts.console, asked, hear=hear)
    else:
        await transport.execute(
            ShellCommand(what.shell),
            env={},
            cwd="",
            timeout_s=EACH_S / 2,
            fence=fence,
            on_output=lambda _stream, data: hear(data),
        )


async def _sysrq(board: Board, fence: Fence, key: str) -> None:
    """Break, key: the kernel answers on the console, whatever else hangs."""
    async with board.talk(fence) as talk:
        await talk.send_break()
        await talk.type(key.encode())
        while await talk.hear(_LISTEN_S) is not None:
            continue
