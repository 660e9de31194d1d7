"""Who does the work of the journal: one thread, which takes all that waits in one go.

Tests with a clock of their own hand in something else that keeps the same promise.
"""

import queue
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

Order = TypeVar("Order")
T_contra = TypeVar("T_contra", contravariant=True)


class Hands(Protocol[T_contra]):
    """Serves what is put, in order, many at once while it was busy; never two at a time."""

    def put(self, order: T_contra, /) -> None: ...

    def end(self) -> None:
        """Serve what waits, and return when that is done; nothing is put afterwards. Blocks."""
        ...


class OneThread(Generic[Order]):
    """A thread that hands `serve` what has gathered while it was busy, at most `most` at once."""

    def __init__(self, serve: Callable[[list[Order]], None], most: int) -> None:
        self._serve, self._most = serve, most
        self._waiting = queue.SimpleQueue[Order | None]()
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    def put(self, order: Order, /) -> None:
        self._waiting.put(order)

    def end(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        """Serve until None comes: the thread's whole life."""
        closing = False
        while not closing:
            orders: list[Order] = []
            order = self._waiting.get()
            while True:
                if order is None:
                    closing = True
                    break
                orders.append(order)
                if len(orders) >= self._most or self._waiting.empty():
                    break
                order = self._waiting.get()
            if orders:
                self._serve(orders)
