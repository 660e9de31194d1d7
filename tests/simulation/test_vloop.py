import asyncio
from contextvars import Context

import pytest

from tests.simulation.vloop import LIFE, Deadlock, VirtualLoop, run_virtual


def test_a_night_of_sleep_takes_no_time() -> None:
    async def sleep(loop: VirtualLoop) -> float:
        await asyncio.sleep(8 * 3600.0)
        return loop.time()

    assert run_virtual(sleep) == 8 * 3600.0


def test_nothing_left_to_do_is_a_deadlock() -> None:
    with pytest.raises(Deadlock):
        run_virtual(lambda loop: loop.create_future())  # type: ignore[arg-type, return-value]  # a future will do


def test_a_thread_is_a_moment_of_virtual_time() -> None:
    async def work(loop: VirtualLoop) -> tuple[int, bool]:
        return await asyncio.to_thread(sum, (1, 2, 3)), loop.time() > 0

    assert run_virtual(work) == (6, True)


async def _count(seen: list[float], loop: VirtualLoop) -> None:
    try:
        while True:
            await asyncio.sleep(1.0)
            seen.append(loop.time())
    finally:
        seen.append(-1.0)


def _born(loop: VirtualLoop, seen: list[float]) -> tuple[Context, "asyncio.Task[None]"]:
    context = loop.new_life()
    return context, loop.create_task(_count(seen, loop), context=context)


def test_a_frozen_life_does_nothing_and_is_late_when_it_goes_on() -> None:
    seen: list[float] = []

    async def scenario(loop: VirtualLoop) -> None:
        context, _task = _born(loop, seen)
        await asyncio.sleep(2.5)
        loop.freeze(context[LIFE])
        await asyncio.sleep(10.0)
        assert seen == [1.0, 2.0]
        loop.thaw(context[LIFE])
        await asyncio.sleep(1.1)
        assert seen == [1.0, 2.0, 12.5, 13.5]

    run_virtual(scenario)


def test_a_killed_life_does_not_even_clean_up() -> None:
    seen: list[float] = []

    async def scenario(loop: VirtualLoop) -> None:
        context, _task = _born(loop, seen)
        await asyncio.sleep(1.5)
        loop.kill(context[LIFE])
        await asyncio.sleep(10.0)
        assert seen == [1.0]

    run_virtual(scenario)
    assert seen == [1.0, -1.0]  # only when the whole loop is given up
