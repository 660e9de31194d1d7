"""PURE: the newest records of a spool: who sends them on does not read the disk."""

from collections import deque
from itertools import islice

from tshrag_agent.journal.records import Record

RECENT_BYTES = 512 << 10


class Recent:
    """The newest records of a spool, without a gap, in bounded memory."""

    def __init__(self) -> None:
        self._records = deque[Record]()
        self._size = 0

    def add(self, last_seq: int, bodies: tuple[bytes, ...]) -> None:
        for seq, body in enumerate(bodies, last_seq - len(bodies) + 1):
            self._records.append(Record(seq, body))
            self._size += len(body)
        while self._size > RECENT_BYTES:
            self._size -= len(self._records.popleft().body)

    def since(self, from_seq: int, most_bytes: int) -> list[Record]:
        """Return records from `from_seq` on; none when that one is not here any more."""
        if not self._records or from_seq < self._records[0].seq:
            return []
        skip = from_seq - self._records[0].seq
        found: list[Record] = []
        size = 0
        for record in islice(self._records, skip, None):
            size += len(record.body)
            if found and size > most_bytes:
                break
            found.append(record)
        return found
