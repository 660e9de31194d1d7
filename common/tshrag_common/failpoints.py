"""Places at which a test lets a process die, stop, wait or find a full disk.

``TSHRAG_FAILPOINT=name[:n][:panic|stop|sleep=ms|enospc]``, several joined with commas: at the n-th
passage (the first) the process dies by SIGKILL (``panic``, the default), stops by SIGSTOP, or is
told that the disk is full; with ``sleep`` it waits there at that and every later passage.

In production `failpoint` is a function that does nothing. The variable counts only together with
``TSHRAG_TEST_MODE=1``: where it stands alone it has slipped in, and is refused with a warning.
"""

import errno
import logging
import os
import random
import re
import signal
import time
from collections.abc import Callable, Mapping
from typing import Literal, get_args

from tshrag_common import history
from tshrag_common.history import TEST_MODE

logger = logging.getLogger(__name__)

FAILPOINT = "TSHRAG_FAILPOINT"

Failpoint = Literal[
    "journal.before_fsync",  # a transaction of the agent's journal is about to be written
    "journal.after_fsync",  # it is on the disk, and nobody knows yet
    "journal.trimming",  # confirmed records are deleted, that is not yet noted
    "intake.before_fence",  # commands were checked, no fence is taken yet
    "intake.journaled",  # starts are in the journal, nothing runs, nothing is said
    "attempt.accepted",  # the attempt is reported as accepted, nothing runs yet
    "attempt.ended",  # nothing of it is alive, its end is in no journal
    "attempt.cleanup",  # work is over, cleaning up begins
    "attempt.told",  # its end is in the journal
    "recover.found",  # a restarted agent knows what was left, and has not adopted it
    "outbound.stored",  # a stream has the message, the agent has not noted it
    "beat.answered",  # a heartbeat was answered, nothing of it is obeyed yet
    "shepherd.spawned",  # a process of a job runs, it is in no record of the shepherd
    "shepherd.ended",  # an attempt is over, its exit is in no record
    "engine.decided",  # events are in the Lab, not in the LOG
    "engine.appended",  # the frame is in the LOG, no answer and no command has left
    "pen.stored",  # the compare-and-set of a frame has held, the answer is not looked at
    "dispatch.starts",  # a start (member k of n of a turn) is about to be sent
    "dispatch.sent",  # a message of commands, a cancel among them, has left
    "projecting.taken",  # frames are in the LOG, not in the projection
    "projecting.stored",  # they are in the projection, and confirmed to nobody
    "ingest.stored",  # samples or output are in the store, confirmed to nobody
    "checkpoint.stored",  # a checkpoint is stored, the LOG behind it is not purged
    "blobs.piece",  # a piece of a load or an artifact has come, its whole has not
]
FAILPOINTS: tuple[Failpoint, ...] = get_args(Failpoint)

_POINT = re.compile(
    r"(?P<name>[a-z_.]+)(:(?P<n>[1-9][0-9]*))?(:(?P<act>panic|stop|enospc|(sleep|jitter)=[0-9]+))?"
)


class UnknownFailpoint(ValueError):
    """``TSHRAG_FAILPOINT`` names no place, or nothing that can be done there."""


class _Point:
    """What happens at one place."""

    def __init__(self, first: int, act: str) -> None:
        self._first, self._act = first, act
        self._passed = 0

    def __call__(self) -> None:
        self._passed += 1
        what, _, number = self._act.partition("=")
        if what == "sleep" and self._passed >= self._first:
            time.sleep(int(number) / 1000)
        elif what == "jitter" and self._passed >= self._first:
            time.sleep(random.uniform(0, int(number)) / 1000)
        elif self._passed == self._first:
            _act(what)


def _act(what: str) -> None:
    if what == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.kill(os.getpid(), signal.SIGSTOP if what == "stop" else signal.SIGKILL)


def _nothing(_name: Failpoint) -> None:
    """Pass: no test is on."""


def bound(environment: Mapping[str, str]) -> Callable[[Failpoint], None]:
    """Return what is called at every place: with the `environment` of production, nothing.

    Raises:
        UnknownFailpoint: the variable cannot be understood.

    """
    text = environment.get(FAILPOINT, "")
    if not text:
        return _nothing
    if environment.get(TEST_MODE) != "1":
        logger.warning("%s is refused: it counts in tests only, with %s=1", FAILPOINT, TEST_MODE)
        return _nothing
    points = dict(map(_point, text.split(",")))

    def pass_by(name: Failpoint) -> None:
        point = points.get(name)
        if point is not None:
            history.note("failpoint", name=name)
            point()

    return pass_by


def _point(text: str) -> tuple[str, _Point]:
    found = _POINT.fullmatch(text)
    if found is None or found["name"] not in FAILPOINTS:
        known = ", ".join(FAILPOINTS)
        raise UnknownFailpoint(f"{FAILPOINT}: {text!r}; name[:n][:action], a name of {known}")
    return found["name"], _Point(int(found["n"] or 1), found["act"] or "panic")


failpoint = bound(os.environ)
