"""A process that moves samples and is killed at a step: ``python -m ... FOLDER STEP NOW``."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.support.kept import KeptStore


async def main(folder: Path, step: str, now: int) -> None:
    def kill(at: str) -> None:
        if at == step:
            os.kill(os.getpid(), signal.SIGKILL)

    kept = KeptStore(folder)
    kept.now = now
    await kept.open(kill)
    await kept.keeper.round()
    await kept.store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
