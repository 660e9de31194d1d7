"""PURE: order in a graph of jobs: what may go when, what can begin, what a failure takes along.

Nodes are numbers; a graph says of each node which must have ended before it. Every function
looks at each edge once.
"""

from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush

After = Mapping[int, Iterable[int]]


def order(after: After) -> list[int]:
    """Return the nodes so that each stands behind those it comes after, small numbers first.

    What is in a circle, or behind one, is left out.
    """
    followers = _followers(after)
    missing = {node: len(set(before)) for node, before in after.items()}
    ready = [node for node, count in missing.items() if not count]
    heapify(ready)
    found: list[int] = []
    while ready:
        node = heappop(ready)
        found.append(node)
        for follower in followers.get(node, ()):
            missing[follower] -= 1
            if not missing[follower]:
                heappush(ready, follower)
    return found


def is_ordered(after: After) -> bool:
    """Tell whether every node, as listed, stands behind those it comes after."""
    seen: set[int] = set()
    for node, before in after.items():
        if any(each not in seen for each in before):
            return False
        seen.add(node)
    return True


class Progress:
    """A graph on its way: tell it what ended, it tells what can begin, or will never begin."""

    def __init__(self, after: After) -> None:
        self._followers = _followers(after)
        self._missing = {node: len(set(before)) for node, before in after.items()}
        self._gone: set[int] = set()  # ended or skipped
        self.ready: set[int] = {node for node, count in self._missing.items() if not count}

    @property
    def is_over(self) -> bool:
        return len(self._gone) == len(self._missing)

    def passed(self, node: int) -> list[int]:
        """Note that `node` ended and holds nothing back; return what can begin now."""
        self._end(node)
        released: list[int] = []
        for follower in self._followers.get(node, ()):
            self._missing[follower] -= 1
            if not self._missing[follower] and follower not in self._gone:
                released.append(follower)
        self.ready.update(released)
        return released

    def failed(self, node: int) -> list[int]:
        """Note that `node` ended and holds back what comes after it; return all that is skipped."""
        self._end(node)
        skipped: list[int] = []
        held = [node]
        for each in held:
            for follower in self._followers.get(each, ()):
                if follower not in self._gone:
                    self._gone.add(follower)
                    skipped.append(follower)
                    held.append(follower)
        return skipped

    def _end(self, node: int) -> None:
        self.ready.discard(node)
        self._gone.add(node)


def _followers(after: After) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for node, before in after.items():
        for each in dict.fromkeys(before):
            found.setdefault(each, []).append(node)
    return found
