"""Record a LOG of this build, and the Lab at its end, as data that later builds must still read.

    python -m tests.support.record_log 0.1

Once for each release; a recorded file is never made again, whatever changes.
"""

from pathlib import Path

import msgspec

from tests.support.lab_drill import history
from tshrag_common.states import AgentCause
from tshrag_controller.core.revive import recorded
from tshrag_controller.log.frames import encode

FOLDER = Path(__file__).parent.parent / "data"


class RecordedLog(msgspec.Struct, frozen=True):
    """Frames as they lie in the LOG, and what a checkpoint behind them would hold."""

    build: str
    frames: list[tuple[int, bytes]]
    lab: bytes


def path_of(build: str) -> Path:
    return FOLDER / f"log-{build}.msgpack"


def record(build: str) -> Path:
    """Write the file for `build`, with every kind of event in it."""
    drill = history(4242, 110)
    drill.silence("a3", AgentCause.DOUBT)
    drill.dut("b1", "no answer")
    drill.goodbye("a2")
    drill.submit([[], [1], [1, 2]], [0, 2, 6], key="nightly")
    frames = [(sequence, encode(frame)) for sequence, frame in drill.frames]
    made = RecordedLog(build, frames, recorded(drill.lab))
    path = path_of(build)
    if path.exists():
        raise SystemExit(f"{path} is recorded already, and stays as it is")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.msgpack.encode(made))
    return path


if __name__ == "__main__":
    pass
