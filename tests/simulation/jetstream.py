"""The streams and pull consumers of a simulated nats-server: its protocol, as far as we use it.

A stream is what the disk of the server holds: all of it survives a kill. A consumer without a
durable name lives in memory. `tests/simulation/test_broker.py` holds a real server against it.
"""

import re
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from tshrag_common.bus.jetstream import EXPECTED_LAST, EXPECTED_LAST_ON_SUBJECT, MESSAGE_ID

Push = Callable[[str, str, bytes, dict[str, str], str], bool]
"""(subject of routing, subject shown, data, headers, reply); false: nobody listens there."""

_FNV, _PRIME = 0x811C9DC5, 0x01000193


class ApiError(Exception):
    """What the server answers instead."""

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(description)
        self.code, self.err_code, self.description = code, err_code, description

    @property
    def body(self) -> dict[str, Any]:
        said = {"code": self.code, "err_code": self.err_code, "description": self.description}
        return {"error": said}


class Row(NamedTuple):
    """One stored message."""

    seq: int
    subject: str
    data: bytes
    headers: dict[str, str]
    at: float


def matches(pattern: str, subject: str) -> bool:
    wanted, found = pattern.split("."), subject.split(".")
    for index, token in enumerate(wanted):
        if token == ">":
            return len(found) > index
        if index >= len(found) or token not in ("*", found[index]):
            return False
    return len(wanted) == len(found)


class Stream:
    """Messages by sequence; one append at a time."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.name = str(config["name"])
        self.first_seq = int(config.get("first_seq") or 1)
        self.last_seq = self.first_seq - 1
        self.rows: dict[int, Row] = {}
        self.size = 0
        self.is_full = False
        self.consumers: dict[str, Consumer] = {}
        self._ids: dict[str, tuple[int, float]] = {}
        self._last_on: dict[str, int] = {}

    def append(self, subject: str, data: bytes, headers: dict[str, str], now: float) -> int:
        """Store a message and return its sequence; the check of sequences comes first."""
        subject = self._stored_as(subject)
        expected = headers.get(EXPECTED_LAST)
        if expected is not None and int(expected) != self.last_seq:
            raise ApiError(400, 10071, f"wrong last sequence: {self.last_seq}")
        on_subject = headers.get(EXPECTED_LAST_ON_SUBJECT)
        if on_subject is not None and int(on_subject) != self._last_on.get(subject, 0):
            raise ApiError(400, 10071, f"wrong last sequence: {self._last_on.get(subject, 0)}")
        name = headers.get(MESSAGE_ID)
        if name is not None and name in self._ids:
            seq, at = self._ids[name]
            if now - at <= self.config["duplicate_window"] / 1e9:
                return seq
        if self.is_full or self.size + len(data) > self.config["max_bytes"]:
            raise ApiError(503, 10077, "maximum bytes exceeded")
        if headers.get("Nats-Rollup") == "sub":
            self.purge(self.last_seq + 1, subject)
        self.last_seq += 1
        self.rows[self.last_seq] = Row(self.last_seq, subject, data, headers, now)
        self.size += len(data)
        self._last_on[subject] = self.last_seq
        if name is not None:
            self._ids[name] = (self.last_seq, now)
        return self.last_seq

    def purge(self, below: int, subject: str | None = None) -> int:
        """Remove what is below a sequence, of a subject or all."""
        gone = [
            seq
            for seq, row in self.rows.items()
            if seq < below and (subject is None or matches(subject, row.subject))
        ]
        for seq in gone:
            row = self.rows.pop(seq)
            self.size -= len(row.data)
            if self._last_on.get(row.subject) == seq:
                del self._last_on[row.subject]
        if self.rows:
            self.first_seq = next(iter(self.rows))
        else:
            self.first_seq = self.last_seq + 1
        return len(gone)

    def last_on(self, pattern: str) -> Row | None:
        for row in reversed(self.rows.values()):
            if matches(pattern, row.subject):
                return row
        return None

    def next_on(self, pattern: str, from_seq: int) -> Row | None:
        for row in self.rows.values():
            if row.seq >= from_seq and matches(pattern, row.subject):
                return row
        return None

    def state(self, pattern: str | None = None) -> dict[str, Any]:
        subjects: dict[str, int] = {}
        if pattern is not None:
            for row in self.rows.values():
                if matches(pattern, row.subject):
                    subjects[row.subject] = subjects.get(row.subject, 0) + 1
        return {
            "messages": len(self.rows),
            "bytes": self.size,
            "first_seq": self.first_seq,
            "last_seq": self.last_seq,
            "subjects": subjects,
        }

    def _stored_as(self, subject: str) -> str:
        """Return the subject after the stream's transform, if it has one."""
        transform = self.config.get("subject_transform")
        if not transform or not matches(transform["src"], subject):
            return subject
        pairs = zip(transform["src"].split("."), subject.split("."), strict=True)
        wild = [found for token, found in pairs if token == "*"]

        def partition(found: re.Match[str]) -> str:
            value = _FNV
            for byte in wild[int(found[2]) - 1].encode():
                value = ((value ^ byte) * _PRIME) & 0xFFFFFFFF
            return str(value % int(found[1]))

        dest = re.sub(r"\{\{partition\((\d+),(\d+)\)\}\}", partition, transform["dest"])
        return re.sub(r"\{\{wildcard\((\d+)\)\}\}", lambda m: wild[int(m[1]) - 1], dest)


class Pull:
    """One request for messages that is not fulfilled yet."""

    def __init__(self, inbox: str, wanted: dict[str, Any], now: float) -> None:
        self.inbox = inbox
        self.left = int(wanted.get("batch", 1))
        self.bytes_left = int(wanted.get("max_bytes", 0)) or 1 << 62
        self.ends = now + int(wanted.get("expires", 0)) / 1e9
        self.beat_s = int(wanted.get("idle_heartbeat", 0)) / 1e9
        self.beats_at = now + self.beat_s


class Consumer:
    """A pull consumer of a stream."""

    def __init__(self, stream: Stream, config: dict[str, Any], push: Push) -> None:
        self.stream, self.config, self._push = stream, config, push
        self.name = str(config["name"])
        self.is_durable = bool(config.get("durable_name"))
        self._acks = config["ack_policy"] == "all"
        self._filter: str | None = config.get("filter_subject")
        self._ack_wait_s = int(config.get("ack_wait", 0)) / 1e9
        begin = int(config.get("opt_start_seq", 1))
        self.cursor = begin if config["deliver_policy"] == "by_start_sequence" else 1
        if config["deliver_policy"] == "by_start_time":
            at = datetime.fromisoformat(config["opt_start_time"]).timestamp()
            later = (seq for seq, row in sorted(stream.rows.items()) if row.at >= at)
            self.cursor = next(later, stream.last_seq + 1)
        self.floor = max(0, self.cursor - 1) if self.cursor > 1 else 0
        self.delivered = 0
        self._pending: dict[int, float] = {}  # stream sequence -> when it is delivered again
        self._again: deque[int] = deque()
        self.pulls: deque[Pull] = deque()

    def restart(self) -> None:
        """Forget what a killed server forgets: pulls, and what was delivered and not acked."""
        self.pulls.clear()
        self._pending.clear()
        self._again.clear()
        self.cursor, self.delivered = self.floor + 1, 0

    def ack(self, seq: int) -> None:
        for each in [each for each in self._pending if each <= seq]:
            del self._pending[each]
        self.floor = max(self.floor, seq)

    def info(self) -> dict[str, Any]:
        return {
            "delivered": {"consumer_seq": self.delivered, "stream_seq": self.cursor - 1},
            "ack_floor": {"consumer_seq": 0, "stream_seq": self.floor},
            "num_pending": sum(1 for seq in self.stream.rows if seq >= self.cursor),
        }

    def serve(self, now: float) -> None:
        """Deliver what is there to those who have asked."""
        while self.pulls:
            row = self._next(now)
            if row is None:
                return
            pull = self.pulls[0]
            if pull.bytes_left < len(row.data):
                self.say(self.pulls.popleft(), "409", "Message Size Exceeds MaxBytes")
                self._again.appendleft(row.seq)
                continue
            self.delivered += 1
            reply = (
                f"$JS.ACK.{self.stream.name}.{self.name}.1.{row.seq}.{self.delivered}."
                f"{int(row.at * 1e9)}.0"
            )
            if not self._push(pull.inbox, row.subject, row.data, row.headers, reply):
                self.delivered -= 1
                self._again.appendleft(row.seq)
                self.pulls.popleft()  # who has asked is gone
                continue
            if self._acks:
                self._pending[row.seq] = now + self._ack_wait_s
            pull.left -= 1
            pull.bytes_left -= len(row.data)
            pull.beats_at = now + pull.beat_s
            if not pull.left:
                self.pulls.popleft()

    def _next(self, now: float) -> Row | None:
        while self._again:
            row = self.stream.rows.get(self._again.popleft())
            if row is not None:
                return row
        self.cursor = max(self.cursor, self.stream.first_seq)
        while self.cursor <= self.stream.last_seq:
            row = self.stream.rows.get(self.cursor)
            self.cursor += 1
            if row is not None and (self._filter is None or matches(self._filter, row.subject)):
                return row
        return None

    def tick(self, now: float) -> None:
        """Let time pass: heartbeats, pulls that are over, deliveries that were not acked."""
        late = [seq for seq, at in self._pending.items() if at <= now]
        if late:
            for seq in late:
                del self._pending[seq]
            self._again.extend(late)
            self.serve(now)
        for pull in list(self.pulls):
            if now >= pull.ends:
                self.pulls.remove(pull)
                self.say(pull, "408", "Request Timeout")
            elif pull.beat_s and now >= pull.beats_at:
                pull.beats_at = now + pull.beat_s
                self.say(pull, "100", "Idle Heartbeat", {"Nats-Last-Consumer": str(self.delivered)})

    def due(self) -> float:
        """Return when `tick` has something to do next."""
        times = [min(pull.ends, pull.beats_at) for pull in self.pulls]
        return min([*times, *self._pending.values()], default=0.0)

    def delete(self) -> None:
        while self.pulls:
            self.say(self.pulls.popleft(), "409", "Consumer Deleted")

    def say(
        self, pull: Pull, status: str, description: str, more: dict[str, str] | None = None
    ) -> None:
        headers = {"Status": status, "Description": description, **(more or {})}
        self._push(pull.inbox, pull.inbox, b"", headers, "")


def encoded(answer: object) -> bytes:
    return msgspec.json.encode(answer)
