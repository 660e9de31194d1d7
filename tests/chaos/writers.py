"""Processes that write until the power is cut, and say what has been promised: F10, F11.

python -m tests.chaos.writers journal PATH     numbers of records that are durable
"""

import asyncio
import os
import sys
from pathlib import Path

from tshrag_agent.journal.journal import Journal


async def journal(path: Path) -> None:
    """Append for ever; write the number of each record that counts as durable."""
    spool = await Journal.open(path)
    while True:
        last = await spool.append("reports", os.urandom(200), os.urandom(50))
        os.write(1, b"%d\n" % last)


if __name__ == "__main__":
    asyncio.run(journal(Path(sys.argv[2])))
