"""Mailboxes of a gang over a bus that loses, repeats and reorders, and agents that start anew."""

import random
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tshrag_agent.gang import book
from tshrag_agent.gang.book import Book
from tshrag_agent.gang.mailbox import MOST_UNREAD, MOST_UNSENT, Mailbox, MailboxFull, Received
from tshrag_agent.gang.records import Heard, Opened, Record
from tshrag_common.commands import Mate
from tshrag_common.errors import LabError, Refused, Unavailable
from tshrag_common.gang_messages import Arrival, Here, Note, Over, Parcel
from tshrag_common.ids import AgentId, Fence, JobId

ROLES = ("a", "b", "c")
MATES = tuple(
    Mate(role=role, job=JobId(f"job-{role}"), agent=AgentId(f"h-{role}"), fence=Fence(n))
    for n, role in enumerate(ROLES, 1)
)
A, B, C = (mate.fence for mate in MATES)
NOBODY = frozenset[str]()


def a_box(own: Fence = A) -> Mailbox:
    return Mailbox(Opened(own=own, mates=MATES))


def do(box: Mailbox, records: tuple[Record, ...] | None) -> tuple[Record, ...] | None:
    for record in records or ():
        box.apply(record)
    return records


def put(box: Mailbox, of: Fence, item: Any) -> None:
    assert do(box, box.heard(of, box.lines[of].heard + 1, item))


class Bus:
    """Loses, repeats and reorders what three mailboxes say; each may be read anew from records."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.boxes = {mate.fence: a_box(mate.fence) for mate in MATES}
        self.records: dict[Fence, list[Record]] = {fence: [] for fence in self.boxes}
        self.calls = count()

    def do(self, own: Fence, records: tuple[Record, ...] | None) -> bool:
        do(self.boxes[own], records)
        self.records[own] += records or ()
        return records is not None

    def restart(self, own: Fence) -> None:
        self.boxes[own] = a_box(own)
        for record in self.records[own]:
            self.boxes[own].apply(record)

    def some_time(self, loss: float = 0.5) -> None:
        parcels = [
            Parcel(to=to, of=own, seq=seq, item=item)
            for own, box in self.boxes.items()
            for to, line in box.lines.items()
            for seq, item in enumerate(line.out, line.receipted + 1)
        ]
        parcels = [p for p in parcels * 2 if self.chance.random() >= loss]
        self.chance.shuffle(parcels)
        for p in parcels:
            box = self.boxes[p.to]
            self.do(p.to, box.heard(p.of, p.seq, p.item))
            if self.chance.random() >= loss:
                self.do(p.of, self.boxes[p.of].receipt(p.to, box.lines[p.of].heard))
        if self.chance.random() < 0.1:
            self.restart(self.chance.choice(list(self.boxes)))


@pytest.mark.parametrize("seed", range(15))
def test_what_is_sent_comes_once_and_in_order_whatever_the_bus_does(seed: int) -> None:
    bus = Bus(seed)
    sent: dict[tuple[str, str], list[bytes]] = {}
    for n in range(60):
        own = bus.chance.choice((A, B, C))
        box = bus.boxes[own]
        role = bus.chance.choice(box.others)
        note = Note(key="k", value=b"%d" % n)
        call = f"call{n}"
        for _ in range(bus.chance.choice((1, 1, 2))):  # its answer was lost: it asks again
            bus.do(own, bus.boxes[own].send(call, [role], note))
        sent.setdefault((box.role, role), []).append(note.value)
        bus.some_time()
    for _ in range(200):
        bus.some_time(0.3)
    for box in bus.boxes.values():
        for other in box.others:
            mine = [note.value for note in box.unread.values() if note.role == other]
            assert mine == sent.get((other, box.role), [])
        assert all(not line.out for line in box.lines.values())


@pytest.mark.parametrize("seed", range(15))
def test_nobody_passes_a_barrier_before_all_have_come_and_all_pass(seed: int) -> None:
    bus = Bus(seed)
    came, passed = dict.fromkeys(bus.boxes, 0), dict.fromkeys(bus.boxes, 0)
    waiting: dict[Fence, str] = {}
    for _ in range(800):
        own = bus.chance.choice((A, B, C))
        if own not in waiting and came[own] < 6:
            waiting[own] = f"call{next(bus.calls)}"
            bus.do(own, bus.boxes[own].come(waiting[own], "x", ROLES))
            came[own] += 1
        elif own in waiting:
            bus.do(own, bus.boxes[own].come(waiting[own], "x", ROLES))  # asked again: no new turn
            if bus.do(own, bus.boxes[own].met(waiting[own], "x", NOBODY)):
                assert bus.boxes[own].met(waiting[own], "x", NOBODY) == (), "told once more"
                passed[own] += 1
                assert all(each >= passed[own] for each in came.values())
                del waiting[own]
        bus.some_time()
        if all(each == 6 for each in passed.values()):
            return
    raise AssertionError((came, passed))


def test_who_timed_out_at_a_barrier_waits_for_the_same_meeting_again() -> None:
    box = a_box()
    assert len(do(box, box.come("1", "x", ("a", "b"))) or ()) == 2
    assert box.met("1", "x", NOBODY) is None
    assert box.absent("x") == ("b",)
    assert box.come("2", "x", ("a", "b")) == ()
    put(box, B, Arrival(name="x", roles=("b", "a")))
    assert do(box, box.met("2", "x", NOBODY))
    assert len(do(box, box.come("3", "x", ("a", "b"))) or ()) == 2, "the next turn"


def test_a_mate_that_has_ended_breaks_what_needs_it_and_nothing_else() -> None:
    box = a_box()
    do(box, box.come("1", "x", ROLES))
    put(box, B, Note(key="k", value=b"last words"))
    put(box, B, Over(outcome="passed"))
    ended = frozenset(("b",))
    with pytest.raises(Unavailable, match=r"barrier x: b has ended \(passed\)"):
        box.met("1", "x", ended)
    assert do(box, box.take("2", "k", ("b",), ended, False)), "what it said before is kept"
    assert box.given("2") == (Received("b", "k", b"last words"),)
    with pytest.raises(Unavailable, match="b has ended"):
        box.take("3", "k", ("b",), ended, False)
    assert box.take("4", "k", ("b", "c"), ended, False) is None, "c may still send"
    with pytest.raises(Unavailable, match="b has ended"):
        box.take("5", "k", ("b", "c"), ended, True)


def test_who_came_and_ended_then_does_not_break_the_barrier() -> None:
    box = a_box()
    do(box, box.come("1", "x", ("a", "b")))
    put(box, B, Arrival(name="x", roles=("a", "b")))
    put(box, B, Over(outcome="passed"))
    assert do(box, box.met("1", "x", frozenset(("b",))))


def test_a_role_on_its_dut_is_named_instead_of_waited_for() -> None:
    box = a_box()
    put(box, B, Here(can_speak=False))
    do(box, box.come("1", "x", ROLES))
    with pytest.raises(Refused, match="barrier x: role b has no tshrag-sync"):
        box.met("1", "x", NOBODY)
    with pytest.raises(Refused, match="has no tshrag-sync"):
        box.send("2", ["b"], Note(key="k", value=b""))
    with pytest.raises(Refused, match="has no tshrag-sync"):
        box.take("3", "k", ("b",), NOBODY, False)


def test_roles_that_name_others_at_a_barrier_are_told() -> None:
    box = a_box()
    do(box, box.come("1", "x", ("a", "b")))
    put(box, B, Arrival(name="x", roles=("a", "b", "c")))
    with pytest.raises(Refused, match="at x b waits for a, b, c, not a, b"):
        box.met("1", "x", NOBODY)


def test_a_full_mailbox_takes_no_more_until_something_is_received() -> None:
    box = a_box()
    for _ in range(MOST_UNREAD):
        put(box, B, Note(key="k", value=b""))
    line = box.lines[B]
    assert box.heard(B, line.heard + 1, Note(key="k", value=b"")) == ()
    assert box.heard(C, 1, Over(outcome="failed")), "an end comes through"
    do(box, box.take("1", "k", ("b",), NOBODY, False))
    assert box.heard(B, line.heard + 1, Note(key="k", value=b""))


def test_too_much_on_its_way_waits_and_too_much_in_all_is_refused() -> None:
    box = a_box()
    for n in range(MOST_UNSENT):
        do(box, box.send(f"c{n}", ["b"], Note(key="k", value=b"")))
    with pytest.raises(MailboxFull):
        box.send("more", ["b"], Note(key="k", value=b""))
    assert box.tell(Over(outcome="passed")), "an end is always said"


def test_receipts_of_what_was_never_said_are_nonsense() -> None:
    box = a_box()
    do(box, box.send("c", ["b"], Note(key="k", value=b"")))
    assert box.receipt(B, 2) == ()
    assert box.receipt(Fence(99), 1) == ()
    assert do(box, box.receipt(B, 1))
    assert box.receipt(B, 1) == ()


async def test_a_mailbox_is_read_from_its_file_up_to_a_line_that_was_cut(tmp_path: Path) -> None:
    opened = Opened(own=A, mates=MATES, socket="s")
    file = Book(tmp_path / "1.jsonl")
    first = Heard(of=B, item=Note(key="k", value=bytes(range(256))))
    await file.write([opened, first])
    whole = file.path.read_bytes()
    await file.write([Heard(of=B, item=Note(key="k", value=b"second"))])
    for cut in range(len(whole), file.path.stat().st_size):
        copy = tmp_path / "copy.jsonl"
        copy.write_bytes(file.path.read_bytes()[:cut])
        box = book.read(copy)
        assert box is not None
        assert [note.value for note in box.unread.values()] == [bytes(range(256))]
        assert copy.read_bytes() == whole
    (tmp_path / "empty").write_bytes(b"nonsense\n")
    assert book.read(tmp_path / "empty") is None


def test_an_error_is_of_the_house() -> None:
    assert issubclass(MailboxFull, LabError)
