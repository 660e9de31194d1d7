"""What is answered: many at once; what nobody waits for any more holds nobody up."""

import asyncio

from tests.support.waiting import wait_until
from tshrag_common.bus.messages import Message
from tshrag_controller.intake.served import Served


class Answers:
    """A bus that keeps what was answered."""

    def __init__(self) -> None:
        self.told: list[bytes] = []

    async def respond(self, message: Message, data: bytes) -> None:
        self.told.append(data)


def asked(text: str) -> Message:
    return Message(subject="s", reply="r", data=text.encode(), headers={})


async def test_all_that_come_while_a_turn_is_stored_are_in_the_next_one() -> None:
    bus, stored, waiting = Answers(), asyncio.Event(), list[str]()

    async def answer(message: Message) -> bytes:
        waiting.append(message.data.decode())
        await stored.wait()
        return message.data

    served = Served(bus, "beat", answer, 300)
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(served.serve())
        for number in range(300):
            served.hear(asked(str(number)))
        await wait_until(lambda: len(waiting) == 300)
        assert not bus.told
        stored.set()
        await wait_until(lambda: len(bus.told) == 300)
        serving.cancel()


async def test_what_is_late_already_is_dropped_and_counted_and_the_next_is_answered() -> None:
    bus, gate = Answers(), asyncio.Event()

    async def answer(message: Message) -> bytes:
        if message.data == b"slow":
            await gate.wait()
        return message.data

    served = Served(bus, "beat", answer, 1, stale_s=0.05)
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(served.serve())
        served.hear(asked("slow"))
        served.hear(asked("late"))
        loop = asyncio.get_running_loop()
        ends = loop.time() + 0.1
        await wait_until(lambda: loop.time() > ends)
        gate.set()
        await wait_until(lambda: served.dropped == 1)
        served.hear(asked("new"))
        await wait_until(lambda: bus.told == [b"slow", b"new"])
        serving.cancel()
