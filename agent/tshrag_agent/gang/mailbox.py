"""PURE: what one attempt of a gang has said and heard. It changes by records only (`apply`).

Functions that decide return the records of what is to happen; these go into the file of the
attempt first, are applied then, and only then is anything sent or answered. So an agent that is
started again in the middle finds the same mailbox. What is asked may come twice: each call has a
name, and gets the same answer.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from tshrag_agent.gang.records import (
    Came,
    Closed,
    Heard,
    Opened,
    Passed,
    Receipted,
    Record,
    Said,
    Took,
)
from tshrag_common.errors import Refused, Unavailable
from tshrag_common.gang_messages import Arrival, Here, Item, Note, Over
from tshrag_common.ids import Fence
from tshrag_common.jobs import MAX_GANG

MOST_UNREAD = 1024
MAX_UNREAD_BYTES = 4 << 20
"""What waits to be received; whoever sends more waits."""
MOST_UNSENT = 256
MOST_SAID = 20_000
MAX_SAID_BYTES = 64 << 20
"""What one attempt may say in all: its file is bounded by that."""
MOST_BARRIERS = 1000
_REMEMBERED = 16


class MailboxFull(Unavailable):
    """Too much is on its way: it has to wait."""

    code = "sync_full"


class Received(msgspec.Struct, frozen=True):
    """A message that waits, or has waited, to be received."""

    role: str
    key: str
    value: bytes


@dataclass
class Line:
    """What goes to one mate and what came from it."""

    out: deque[Item] = field(default_factory=deque)  # not receipted, oldest first
    receipted: int = 0
    heard: int = 0
    here: Here | None = None
    over: str = ""  # its outcome, when it has ended
    came: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)  # barrier -> whom it named

    def forget(self, upto: int) -> None:
        """Drop what is receipted."""
        while self.receipted < upto and self.out:
            self.out.popleft()
            self.receipted += 1


@dataclass
class _Meeting:
    came: int = 0
    passed: int = 0
    call: str = ""  # that was told last
    roles: tuple[str, ...] = ()


class Mailbox:
    """One attempt's side of its gang."""

    def __init__(self, opened: Opened) -> None:
        self.opened, self.own = opened, opened.own
        self.role = next(mate.role for mate in opened.mates if mate.fence == opened.own)
        self.mates = {mate.fence: mate for mate in opened.mates if mate.fence != opened.own}
        self.lines = {fence: Line() for fence in self.mates}
        self.is_closed = False
        self.unread: dict[int, Received] = {}
        self._fence_of = {mate.role: fence for fence, mate in self.mates.items()}
        self._unread_bytes = self._count = self._said = self._said_bytes = 0
        self._meetings: dict[str, _Meeting] = {}
        self._given: dict[str, tuple[Received, ...]] = {}
        self._calls = deque[str](maxlen=_REMEMBERED * MAX_GANG)
        self.here: Here | None = None  # what it said of itself

    def apply(self, record: Record) -> None:
        """Let a record have happened."""
        match record:
            case Said(to=to, item=item, call=call):
                self.lines[to].out.append(item)
                self._calls.append(call)
                self.here = item if isinstance(item, Here) else self.here
                self._said += 1
                self._said_bytes += len(item.value) if isinstance(item, Note) else 0
            case Receipted(by=by, upto=upto):
                self.lines[by].forget(upto)
            case Heard(of=of, item=item):
                self._hear(of, item)
            case Came(name=name, roles=roles):
                meeting = self._meetings.setdefault(name, _Meeting())
                meeting.came, meeting.roles = meeting.came + 1, roles
            case Passed(name=name, call=call):
                meeting = self._meetings[name]
                meeting.passed, meeting.call = meeting.passed + 1, call
            case Took(call=call, numbers=numbers):
                self._take(call, numbers)
            case Closed():
                self.is_closed = True

    def _hear(self, of: Fence, item: Item) -> None:
        line = self.lines[of]
        line.heard += 1
        match item:
            case Here():
                line.here = item
            case Note(key=key, value=value) if not self.is_closed:
                self._count += 1
                self.unread[self._count] = Received(self.mates[of].role, key, value)
                self._unread_bytes += len(value)
            case Arrival(name=name, roles=roles):
                line.came.setdefault(name, []).append(roles)
            case Over(outcome=outcome):
                line.over = outcome
            case Note():
                pass  # it has ended: nobody will ask for it

    def _take(self, call: str, numbers: Iterable[int]) -> None:
        taken = tuple(self.unread.pop(number) for number in numbers)
        self._unread_bytes -= sum(len(each.value) for each in taken)
        self._given[call] = taken
        while len(self._given) > _REMEMBERED:
            del self._given[next(iter(self._given))]

    def heard(self, of: Fence, seq: int, item: Item) -> tuple[Record, ...]:
        """Take the next item of a mate; nothing where it is not the next, or has no room."""
        line = self.lines.get(of)
        if line is None or seq != line.heard + 1:
            return ()
        if isinstance(item, Note) and not self.is_closed and not self._has_room(item):
            return ()
        if isinstance(item, Arrival) and len(line.came) >= MOST_BARRIERS:
            return ()
        return (Heard(of=of, item=item),)

    def _has_room(self, note: Note) -> bool:
        is_small = self._unread_bytes + len(note.value) <= MAX_UNREAD_BYTES
        return is_small and len(self.unread) < MOST_UNREAD

    def receipt(self, by: Fence, upto: int) -> tuple[Record, ...]:
        """Take note that a mate has what was said; more than was said is nonsense."""
        line = self.lines.get(by)
        if line is None or not line.receipted < upto <= line.receipted + len(line.out):
            return ()
        return (Receipted(by=by, upto=upto),)

    def send(self, call: str, roles: Sequence[str], note: Note) -> tuple[Record, ...]:
        """Send a message to these roles, once."""
        for role in roles:
            if self.is_deaf(role):
                what = f"role {role} has no tshrag-sync where it runs"
                raise Refused(
                    "", what, "let a job on the host drive what it runs on", code="sync_deaf"
                )
        return () if call in self._calls else self.say(roles, note, call)

    def say(self, roles: Sequence[str], item: Item, call: str = "") -> tuple[Record, ...]:
        """Say something to these roles.

        Raises:
            Refused: no such role, one of them cannot listen, or too much was said in all.
            MailboxFull: too much is on its way already.

        """
        fences = [self._fence(role) for role in roles]
        size = len(item.value) if isinstance(item, Note) else 0
        if self._said + len(fences) > MOST_SAID or self._said_bytes + size > MAX_SAID_BYTES:
            what = f"{self._said} messages of {self._said_bytes >> 20} MiB were said"
            fix = f"a job may say {MOST_SAID}, and {MAX_SAID_BYTES >> 20} MiB"
            raise Refused("", what, fix, code="sync_limit")
        if any(len(self.lines[fence].out) >= MOST_UNSENT for fence in fences):
            raise MailboxFull("", f"{MOST_UNSENT} messages are on their way", "receive them there")
        return tuple(Said(to=fence, item=item, call=call) for fence in fences)

    def tell(self, item: Here | Over) -> tuple[Record, ...]:
        """Say something to all mates, whatever is on its way."""
        return tuple(Said(to=fence, item=item) for fence in self.mates)

    def _fence(self, role: str) -> Fence:
        if role not in self._fence_of:
            there = ", ".join(self.others)
            what = (
                f"there is no role {role!a} beside {self.role}" if role != self.role else "itself"
            )
            raise Refused("", what, f"take one of {there}", code="sync_role")
        return self._fence_of[role]

    @property
    def others(self) -> tuple[str, ...]:
        """Return all other roles, in the order of the plan."""
        return tuple(mate.role for mate in self.mates.values())

    def absent(self, name: str) -> tuple[str, ...]:
        """Return who has not come to a barrier at which this job waits."""
        meeting = self._meetings.get(name, _Meeting())
        lines = ((role, self.line_of(role)) for role in meeting.roles if role != self.role)
        return tuple(role for role, line in lines if len(line.came.get(name, ())) <= meeting.passed)

    def line_of(self, role: str) -> Line:
        return self.lines[self._fence(role)]

    def is_deaf(self, role: str) -> bool:
        """Tell whether a role is known to have no ``tshrag-sync``."""
        here = self.line_of(role).here
        return here is not None and not here.can_speak

    def come(self, call: str, name: str, roles: tuple[str, ...]) -> tuple[Record, ...]:
        """Come to a barrier; who waits there since a call before is there already."""
        meeting = self._meetings.get(name)
        if meeting is not None and (meeting.came > meeting.passed or meeting.call == call):
            return ()
        if meeting is None and len(self._meetings) >= MOST_BARRIERS:
            fix = "use a name again: each use counts anew"
            raise Refused("", f"{MOST_BARRIERS} barriers have names", fix, code="sync_limit")
        others = tuple(role for role in roles if role != self.role)
        return (Came(name=name, roles=roles), *self.say(others, Arrival(name=name, roles=roles)))

    def met(self, call: str, name: str, ended: frozenset[str]) -> tuple[Record, ...] | None:
        """Tell whether all have met: what is to be recorded, None: not yet.

        Raises:
            Refused: a mate waits for others there.
            Unavailable: one of `ended` will not come.

        """
        meeting = self._meetings[name]
        if meeting.call == call:
            return ()
        turn = meeting.passed
        missing = self.absent(name)
        for role in meeting.roles:
            if role in (self.role, *missing):
                continue
            theirs = self.line_of(role).came[name][turn]
            if set(theirs) != set(meeting.roles):
                what = f"at {name} {role} waits for {_list(theirs)}, not {_list(meeting.roles)}"
                raise Refused("", what, "name the same roles", code="sync_differs")
        if not missing:
            return (Passed(name=name, call=call),)
        self._check(missing, ended, f"barrier {name}", needs_all=True)
        return None

    def _check(
        self, roles: Sequence[str], ended: frozenset[str], what: str, *, needs_all: bool
    ) -> None:
        """Raise where roles cannot do what is waited for: any of them, or every one."""
        enough = 1 if needs_all else len(roles)
        deaf = [role for role in roles if self.is_deaf(role)]
        gone = [role for role in roles if role in ended]
        if len(deaf) >= enough:
            said = f"role {deaf[0]} has no tshrag-sync where it runs"
            fix = "let a job on the host drive what it runs on, or leave it out: --roles"
            raise Refused("", f"{what}: {said}", fix, code="sync_deaf")
        if len({*gone, *deaf}) >= enough:
            said = ", ".join(f"{role} has ended ({self.line_of(role).over})" for role in gone)
            raise Unavailable("", f"{what}: {said}", "see its output", code="sync_mate_ended")

    def take(
        self, call: str, key: str, roles: Sequence[str], ended: frozenset[str], each: bool
    ) -> tuple[Record, ...] | None:
        """Take the oldest message of any of `roles` with this key, or one of `each` of them."""
        if call in self._given:
            return ()
        for role in roles:
            self._fence(role)
        found: dict[str, int] = {}
        for number, note in self.unread.items():
            if note.key == key and note.role in roles:
                found.setdefault(note.role, number)
        if found and not each:
            return (Took(call=call, numbers=(min(found.values()),)),)
        missing = [role for role in roles if role not in found]
        if not missing:
            return (Took(call=call, numbers=tuple(found[role] for role in roles)),)
        self._check(missing, ended, f"message {key}", needs_all=each)
        return None

    def given(self, call: str) -> tuple[Received, ...]:
        return self._given[call]


def _list(words: Iterable[str]) -> str:
    return ", ".join(words)
