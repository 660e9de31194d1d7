"""The file of a mailbox: a line of JSON a record, so that the next agent finds it as it was.

Not fsynced: it has to outlive the agent, not the power of its host, with which the jobs end too. A
line that was cut off is dropped: nothing of it had been sent or answered.
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tshrag_agent.gang.mailbox import Mailbox
from tshrag_agent.gang.records import Opened, Record
from tshrag_common.errors import StorageFull

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Record)


class Book:
    """One file; written by one call at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def write(self, records: Sequence[Record]) -> None:
        """Append records, all or none.

        Raises:
            StorageFull: the disk is full.

        """
        data = b"".join(_ENCODER.encode(record) + b"\n" for record in records)
        await asyncio.to_thread(self._append, data)

    async def remove(self) -> None:
        await asyncio.to_thread(self.path.unlink, True)

    def _append(self, data: bytes) -> None:
        with self.path.open("ab", buffering=0) as file:
            before = os.fstat(file.fileno()).st_size
            try:
                if file.write(data) == len(data):
                    return
                cause = "cut short"
            except OSError as error:
                cause = str(error)
            os.ftruncate(file.fileno(), before)
        raise StorageFull(os.fspath(self.path), f"a message was not written: {cause}")


def read(path: Path) -> Mailbox | None:
    """Return the mailbox that a file tells of; None where not even its first line is whole."""
    lines = path.read_bytes().split(b"\n")
    if lines[-1]:  # the last line was cut off: what follows must not be glued to it
        os.truncate(path, sum(len(line) + 1 for line in lines[:-1]))
    try:
        records = [_DECODER.decode(line) for line in lines[:-1]]
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
    if not records or not isinstance(records[0], Opened):
        return None
    mailbox = Mailbox(records[0])
    for record in records[1:]:
        mailbox.apply(record)
    return mailbox
