"""An event loop on a virtual clock: where a loop would sleep, the clock jumps. No I/O, no threads.

Everything that runs belongs to a *life*: one start of one process, carried by a context variable
that tasks and callbacks inherit. A life can be frozen (SIGSTOP: its callbacks and timers wait) or
killed (SIGKILL: they never run; not even a `finally` does). Within a life callbacks run in the
order that asyncio promises; between lives the random times of messages and disks decide.
"""

import asyncio
import contextvars
import heapq
from asyncio import Handle, TimerHandle
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import ContextVar
from typing import Any, TypeVar, TypeVarTuple, cast

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

LIFE: ContextVar[int] = ContextVar("LIFE", default=0)
_INSTANT_S = 1e-9
_THREAD_S = 1e-4
"""How long a function takes that is sent to a thread."""


class Deadlock(RuntimeError):
    """No timer and no ready callback: nothing will ever happen again."""


class VirtualLoop(asyncio.BaseEventLoop):
    """`time` is virtual; `run_until_complete` and all of asyncio's timers work as ever.

    What BaseEventLoop keeps in ``_ready`` and ``_scheduled`` is used here (docs/decisions/0070).
    """

    _ready: deque[Handle]
    _scheduled: list[TimerHandle]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._lives = 0
        self._stopped: dict[int, list[Handle]] = {}  # of frozen lives
        self._dead: dict[int, list[Handle]] = {}
        self._kept: set[asyncio.Task[Any]] = set()
        """Tasks whose life is over: were one let go, its `finally` would run."""
        self.steps = 0

    def time(self) -> float:
        return self._now

    def new_life(self) -> contextvars.Context:
        """Return the context of a process that is starting."""
        self._lives += 1
        context = contextvars.Context()
        context.run(LIFE.set, self._lives)
        return context

    @property
    def frozen(self) -> frozenset[int]:
        return frozenset(self._stopped)

    def freeze(self, life: int) -> None:
        self._stopped.setdefault(life, [])

    def thaw(self, life: int) -> None:
        self._ready.extend(self._stopped.pop(life, ()))

    def kill(self, life: int) -> None:
        """Let nothing of this life run any more."""
        self._dead[life] = self._stopped.pop(life, [])
        self._kept.update(asyncio.all_tasks(self))

    def bury(self) -> None:
        """Let all lives run again, so that their tasks can be cancelled and collected."""
        for handles in (*self._stopped.values(), *self._dead.values()):
            self._ready.extend(handles)
        self._stopped, self._dead = {}, {}

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> Handle:
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(  # the thread is a moment of virtual time
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> "asyncio.Future[T]":
        done: asyncio.Future[T] = self.create_future()

        def work() -> None:
            if done.done():
                return
            try:
                done.set_result(func(*args))
            except Exception as error:
                done.set_exception(error)

        self.call_later(_THREAD_S, work)
        return done

    def _process_events(self, event_list: object) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""

    def _run_once(self) -> None:
        """Run what is ready; where nothing is, go to the next timer."""
        ready, timers = self._ready, self._scheduled
        while timers and timers[0].cancelled():
            _taken(heapq.heappop(timers))
        if not ready:
            if not timers:
                raise Deadlock(f"nothing left to do at {self._now:.3f} s")
            self._now = max(self._now, timers[0].when())
        until = self._now + _INSTANT_S
        while timers and timers[0].when() <= until:
            ready.append(_taken(heapq.heappop(timers)))
        self.steps += len(ready)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled() and not self._is_held(handle):
                handle._run()

    def _is_held(self, handle: Handle) -> bool:
        """Put the handle aside where its life is frozen or over."""
        if not self._stopped and not self._dead:
            return False
        life = cast(int, handle._context.get(LIFE, 0))  # type: ignore[attr-defined]  # asyncio's own
        held = self._stopped.get(life)
        if held is None:
            held = self._dead.get(life)
        if held is None:
            return False
        held.append(handle)
        return True


def _taken(handle: TimerHandle) -> TimerHandle:
    handle._scheduled = False  # type: ignore[attr-defined]  # else its cancel counts it as queued
    return handle


def run_virtual(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run `main` on a loop of its own; at the end everything that still runs is cancelled."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    try:
        try:
            return loop.run_until_complete(main(loop))
        finally:
            _collect(loop)
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _collect(loop: VirtualLoop) -> None:
    loop.set_exception_handler(lambda _loop, _context: None)
    for _ in range(50):  # what is cancelled may begin something to clean up
        loop.bury()
        tasks = [task for task in asyncio.all_tasks(loop) if not task.done()]
        if not tasks:
            break
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.wait(tasks, timeout=60.0))
    loop.run_until_complete(loop.shutdown_asyncgens())
