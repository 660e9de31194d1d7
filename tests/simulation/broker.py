"""A simulated nats-server: subjects, subscriptions, requests, and the API of JetStream.

It acknowledges what its disk holds (``sync_interval: always``): an append takes the time of an
fsync, and of those on their way a killed server has stored some, in order, and answered none.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable
from contextvars import Context
from typing import Any, ClassVar

import msgspec

from tests.simulation.interest import Interest, Peer, Sub
from tests.simulation.jetstream import ApiError, Consumer, Pull, Row, Stream, encoded, matches
from tests.simulation.vloop import LIFE, VirtualLoop

API = "$JS.API."
_FSYNC_S = (0.0005, 0.003)


class Broker:
    """The server process; its streams outlive it."""

    def __init__(self, loop: VirtualLoop, chance: random.Random) -> None:
        self._loop, self._chance = loop, chance
        self.streams: dict[str, Stream] = {}
        self.on_append: list[Callable[[str, Row], None]] = []
        self.slow_s = 0.0
        self.commands: list[tuple[str, bytes]] = []
        """All that were ever sent: somebody may say them again."""
        self.context: Context = loop.new_life()
        self.is_up = True
        self._peers: dict[Peer, dict[int, Sub]] = {}
        self._interest = Interest()
        self._writing: dict[str, list[tuple[str, bytes, dict[str, str], str]]] = {}
        self._timers: dict[int, float] = {}

    def kill(self) -> None:
        """End the process at once."""
        self._loop.kill(self.context[LIFE])
        self.is_up = False
        for name, waiting in self._writing.items():
            for subject, data, headers, _ in waiting[: self._chance.randint(0, len(waiting))]:
                self._append(self.streams[name], subject, data, headers)
        self._writing.clear()
        for stream in self.streams.values():
            for name in [c.name for c in stream.consumers.values() if not c.is_durable]:
                del stream.consumers[name]
            for consumer in stream.consumers.values():
                consumer.restart()
        peers, self._peers = list(self._peers), {}
        self._interest = Interest()
        self._timers = {}
        for peer in peers:
            peer.cut()

    def start(self) -> None:
        self.context = self._loop.new_life()
        self.is_up = True

    def attach(self, peer: Peer) -> None:
        self._peers[peer] = {}

    def detach(self, peer: Peer) -> None:
        for sid in list(self._peers.get(peer, {})):
            self.unsubscribe(peer, sid)
        self._peers.pop(peer, None)

    def subscribe(self, peer: Peer, sid: int, subject: str, queue: str) -> None:
        if peer not in self._peers:
            return
        sub = self._peers[peer][sid] = Sub(peer, sid, subject, queue)
        self._interest.add(sub)

    def unsubscribe(self, peer: Peer, sid: int) -> None:
        sub = self._peers.get(peer, {}).pop(sid, None)
        if sub is not None:
            self._interest.remove(sub)

    def heard_by(self, subject: str) -> int:
        """Return how many have subscribed to this very subject."""
        return self._interest.very(subject)

    def _interested(self, subject: str) -> list[Sub]:
        found = self._interest.of(subject)
        if not any(sub.queue for sub in found):
            return found
        groups: dict[str, list[Sub]] = defaultdict(list)
        for sub in found:
            if sub.queue:
                groups[sub.queue].append(sub)
        alone = [sub for sub in found if not sub.queue]
        return alone + [self._chance.choice(group) for group in groups.values()]

    def publish(self, subject: str, data: bytes, headers: dict[str, str], reply: str) -> None:
        """Take a message of a client."""
        if subject.startswith(API):
            self._answer(subject, data, reply)
        elif subject.startswith("$JS.ACK."):
            self._ack(subject)
        else:
            stream = self._stream_of(subject)
            if subject.endswith(".cmd"):
                self.commands.append((subject, data))
            if stream is not None:
                self._write(stream, subject, data, headers, reply)
            heard = self._push(subject, subject, data, headers, reply)
            if not heard and stream is None and reply:
                self._push(reply, reply, b"", {"Status": "503"}, "")

    def _push(
        self, route: str, subject: str, data: bytes, headers: dict[str, str], reply: str
    ) -> bool:
        subs = self._interested(route)
        for sub in subs:
            sub.peer.push(sub.sid, subject, data, headers, reply)
        return bool(subs)

    def _stream_of(self, subject: str) -> Stream | None:
        for stream in self.streams.values():
            if any(matches(pattern, subject) for pattern in stream.config["subjects"]):
                return stream
        return None

    def _write(
        self, stream: Stream, subject: str, data: bytes, headers: dict[str, str], reply: str
    ) -> None:
        """Append when the disk has it; one after the other."""
        waiting = self._writing.setdefault(stream.name, [])
        waiting.append((subject, data, headers, reply))
        if len(waiting) == 1:
            self._sync(stream)

    def _sync(self, stream: Stream) -> None:
        after_s = self._chance.uniform(*_FSYNC_S) + self.slow_s
        self._loop.call_later(after_s, self._written, stream, context=self.context)

    def _written(self, stream: Stream) -> None:
        waiting = self._writing[stream.name]
        subject, data, headers, reply = waiting.pop(0)
        if waiting:
            self._sync(stream)
        answer = self._append(stream, subject, data, headers)
        if reply:
            self._push(reply, reply, encoded(answer), {}, "")
        for consumer in list(stream.consumers.values()):
            self._serve(consumer)

    def _append(
        self, stream: Stream, subject: str, data: bytes, headers: dict[str, str]
    ) -> dict[str, Any]:
        before = stream.last_seq
        try:
            seq = stream.append(subject, data, headers, self._loop.time())
        except ApiError as error:
            return error.body
        if seq > before:
            for tell in self.on_append:
                tell(stream.name, stream.rows[seq])
        return {"stream": stream.name, "seq": seq}

    def _serve(self, consumer: Consumer) -> None:
        consumer.serve(self._loop.time())
        self._watch(consumer)

    def _watch(self, consumer: Consumer) -> None:
        """Let the consumer be looked at when something of it is due."""
        due, key = consumer.due(), id(consumer)
        if due and due < self._timers.get(key, float("inf")):
            self._timers[key] = due
            self._loop.call_at(due, self._tick, consumer, due, context=self.context)

    def _tick(self, consumer: Consumer, due: float) -> None:
        if self._timers.get(id(consumer)) == due:
            del self._timers[id(consumer)]
            if consumer.stream.consumers.get(consumer.name) is consumer:
                consumer.tick(self._loop.time())
                self._watch(consumer)

    def _ack(self, subject: str) -> None:
        _, _, stream, name, _, seq, *_ = subject.split(".")
        consumer = self.streams[stream].consumers.get(name) if stream in self.streams else None
        if consumer is not None:
            consumer.ack(int(seq))

    def _answer(self, subject: str, data: bytes, reply: str) -> None:
        verb, *names = self._verb(subject[len(API) :])
        try:
            if verb == "CONSUMER.MSG.NEXT":
                self._pull(names, data, reply)
                return
            if verb == "DIRECT.GET":
                self._direct(self._stream(names[0]), msgspec.json.decode(data), reply)
                return
            body = msgspec.json.decode(data) if data else {}
            answer = self._API[verb](self, names, body)
        except ApiError as error:
            answer = error.body
        self._push(reply, reply, encoded(answer), {}, "")

    def _verb(self, rest: str) -> list[str]:
        for verb in (*self._API, "CONSUMER.MSG.NEXT", "DIRECT.GET"):
            if rest.startswith(verb + "."):
                return [verb, *rest[len(verb) + 1 :].split(".")]
        raise AssertionError(f"not simulated: {rest}")

    def _stream(self, name: str) -> Stream:
        if name not in self.streams:
            raise ApiError(404, 10059, "stream not found")
        return self.streams[name]

    def _consumer(self, names: list[str]) -> Consumer:
        consumer = self._stream(names[0]).consumers.get(names[1])
        if consumer is None:
            raise ApiError(404, 10014, "consumer not found")
        return consumer

    def _create_stream(self, names: list[str], body: dict[str, Any]) -> dict[str, Any]:
        known = self.streams.get(names[0])
        if known is None:
            known = self.streams[names[0]] = Stream(body)
        elif known.config != body:
            raise ApiError(400, 10058, "stream name already in use with a different configuration")
        return {"state": known.state()}

    def _update_stream(self, names: list[str], body: dict[str, Any]) -> dict[str, Any]:
        stream = self._stream(names[0])
        stream.config = {**body, "first_seq": stream.config.get("first_seq")}
        return {"state": stream.state()}

    def _delete_stream(self, names: list[str], body: dict[str, Any]) -> dict[str, Any]:
        del self.streams[self._stream(names[0]).name]
        return {"success": True}

    def _stream_info(self, names: list[str], body: dict[str, Any]) -> dict[str, Any]:
        return {"state": self._stream(names[0]).state(body.get("subjects_filter"))}

    def _purge(self, names: list[str], body: dict[str, Any]) -> dict[str, Any]:
        stream = self._stream(names[0])
        below = body.get("seq") or stream.last_seq + 1
        return {"success": True, "purged": stream.purge(below, body.get("filter"))}

    def _get(self, names: list[str], body: dict[str, Any]) -> dict[str, Any]:
        stream = self._stream(names[0])
        by = body.get("last_by_subj")
        row = stream.last_on(by) if by else stream.rows.get(body["seq"])
        if row is None:
            raise ApiError(404, 10037, "no message found")
        lines = "".join(f"{key}: {value}\r\n" for key, value in row.headers.items())
        head = f"NATS/1.0\r\n{lines}\r\n".encode()
        return {"message": {"subject": row.subject, "seq": row.seq, "data": row.data, "hdrs": head}}

    def _direct(self, stream: Stream, body: dict[str, Any], reply: str) -> None:
        if by := body.get("last_by_subj"):
            row = stream.last_on(by)
        elif by := body.get("next_by_subj"):
            row = stream.next_on(by, body.get("seq", 1))
        else:
            row = stream.rows.get(body["seq"])
        if row is None:
            self._push(reply, reply, b"", {"Status": "404"}, "")
            return
        headers = {**row.headers, "Nats-Sequence": str(row.seq), "Nats-Subject": row.subject}
        self._push(reply, reply, row.data, headers, "")

    def _create_consumer(self, names: list[str], body: dict[str, Any]) -> dict[str, Any]:
        stream, config = self._stream(names[0]), body["config"]
        known = stream.consumers.get(config["name"])
        if known is None:
            known = Consumer(stream, config, self._push)
            stream.consumers[known.name] = known
        return known.info()

    def _consumer_info(self, names: list[str], body: dict[str, Any]) -> dict[str, Any]:
        return self._consumer(names).info()

    def _delete_consumer(self, names: list[str], body: dict[str, Any]) -> dict[str, Any]:
        consumer = self._consumer(names)
        del consumer.stream.consumers[consumer.name]
        consumer.delete()
        return {"success": True}

    def _pull(self, names: list[str], data: bytes, reply: str) -> None:
        stream = self.streams.get(names[0])
        consumer = stream.consumers.get(names[1]) if stream else None
        if consumer is None:
            self._push(reply, reply, b"", {"Status": "503"}, "")
            return
        consumer.pulls.append(Pull(reply, msgspec.json.decode(data), self._loop.time()))
        self._serve(consumer)

    _API: ClassVar[dict[str, Callable[["Broker", list[str], dict[str, Any]], dict[str, Any]]]] = {
        "STREAM.CREATE": _create_stream,
        "STREAM.UPDATE": _update_stream,
        "STREAM.DELETE": _delete_stream,
        "STREAM.INFO": _stream_info,
        "STREAM.PURGE": _purge,
        "STREAM.MSG.GET": _get,
        "CONSUMER.CREATE": _create_consumer,
        "CONSUMER.INFO": _consumer_info,
        "CONSUMER.DELETE": _delete_consumer,
    }


async def down_for(broker: Broker, seconds: float) -> None:
    """Kill the server and start it again after a while."""
    broker.kill()
    await asyncio.sleep(seconds)
    broker.start()
