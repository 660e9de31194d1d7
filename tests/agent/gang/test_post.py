"""What agents say to each other is taken from the agent that has the mate, and for it alone."""

import asyncio
from pathlib import Path

from tests.support.waiting import wait_until
from tshrag_agent.gang.book import Book
from tshrag_agent.gang.box import Box
from tshrag_agent.gang.mailbox import Mailbox
from tshrag_agent.gang.post import Post
from tshrag_agent.gang.records import Opened
from tshrag_common import subjects, wire
from tshrag_common.bus.messages import Message
from tshrag_common.clock import SystemClock
from tshrag_common.commands import Mate
from tshrag_common.gang_messages import GangMail, Note, Parcel
from tshrag_common.ids import AgentId, Fence, JobId

WEST, EAST, NORTH = (AgentId(name) for name in ("west", "east", "north"))
NEAR, FAR = Fence(1), Fence(2)
MATES = (
    Mate(role="near", job=JobId("job-1"), agent=WEST, fence=NEAR),
    Mate(role="far", job=JobId("job-2"), agent=EAST, fence=FAR),
)


def mail(of: AgentId, *parcels: Parcel) -> Message:
    data = wire.GANG.encode(GangMail(parcels=parcels))
    return Message(subjects.gang(WEST, of), "", data, {})


def a_note(of: Fence, to: Fence = NEAR) -> Parcel:
    return Parcel(to=to, of=of, seq=1, item=Note(key="k", value=b"v"))


async def test_only_the_agent_of_a_mate_speaks_for_it(tmp_path: Path) -> None:
    post = Post(WEST, lambda: None, SystemClock())
    opened = Opened(own=NEAR, mates=MATES)
    box = Box(Mailbox(opened), Book(tmp_path / "1.jsonl"), SystemClock())
    post.add(box)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(post.run())
        post.hear(mail(NORTH, a_note(FAR)))
        post.hear(mail(EAST, a_note(Fence(7))))
        post.hear(mail(EAST, a_note(FAR, to=Fence(9))))
        await wait_until(lambda: post.counters["gang_mail_forged"] == 2)
        assert not box.mailbox.unread
        post.hear(mail(EAST, a_note(FAR), a_note(FAR)))
        await wait_until(lambda: len(box.mailbox.unread) == 1)
        post.hear(Message(subjects.gang(WEST, EAST), "", b"\x01nonsense", {}))
        assert post.counters["gang_mail_dropped"] == 1
        task.cancel()


def test_subjects_between_agents() -> None:
    assert subjects.gang_of(subjects.gang(WEST, EAST)) == (WEST, EAST)
    assert subjects.any_gang(WEST) == subjects.may_mail("west")[1]
