"""Who wants to hear what: the subscriptions of a simulated server, found without asking each.

Most of what is said is wanted by one or two of some fifty subscriptions, and a seed says ten
thousand things; so those with a wildcard stand on a shelf by their first and their last word.
"""

from collections import defaultdict
from typing import Protocol

from tests.simulation.jetstream import matches


class Peer(Protocol):
    """The server's end of a connection."""

    def push(
        self, sid: int, subject: str, data: bytes, headers: dict[str, str], reply: str
    ) -> None: ...

    def cut(self) -> None:
        """Tell the client that the connection is gone."""
        ...


class Sub:
    """Interest of a connection in a subject."""

    __slots__ = ("peer", "queue", "sid", "subject")

    def __init__(self, peer: Peer, sid: int, subject: str, queue: str) -> None:
        self.peer, self.sid, self.subject, self.queue = peer, sid, subject, queue


class Interest:
    """All subscriptions of a server."""

    def __init__(self) -> None:
        self._exact: dict[str, list[Sub]] = defaultdict(list)
        self._star: dict[str, list[Sub]] = defaultdict(list)
        self._other: dict[tuple[str, str], list[Sub]] = defaultdict(list)

    def add(self, sub: Sub) -> None:
        self._shelf(sub.subject).append(sub)

    def remove(self, sub: Sub) -> None:
        self._shelf(sub.subject).remove(sub)

    def very(self, subject: str) -> int:
        """Return how many have subscribed to this very subject."""
        return len(self._exact.get(subject, ()))

    def of(self, subject: str) -> list[Sub]:
        head, _, last = subject.rpartition(".")
        found = [*self._exact.get(subject, ()), *self._star.get(head, ())]
        first = subject.partition(".")[0]
        for end in (last, "*", ">"):
            likely = self._other.get((first, end), ())
            found += [sub for sub in likely if matches(sub.subject, subject)]
        return found

    def _shelf(self, subject: str) -> list[Sub]:
        if "*" not in subject and ">" not in subject:
            return self._exact[subject]
        head, _, last = subject.rpartition(".")
        if last == "*" and "*" not in head:
            return self._star[head]
        return self._other[subject.partition(".")[0], last]
