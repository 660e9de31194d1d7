"""Errors of the lab: one tree, one line each, the same on every wire.

* LabError
  + Refused             the request cannot be granted; asking again will not help
    - Invalid           a document or a request has problems, all of them named at once
    - InvalidId
    - IllegalMove
    - StaleFence
    - Fenced
    - NotFound
    - PolicyDenied
  + Unavailable         the world is in the way; asking again may help
    - Unreachable
    - DeadlineExceeded
    - StorageFull

A room may hang leaves of its own on Refused or Unavailable; a leaf has its own ``code``.
An error reads ``code: where: what; how to fix``. It crosses a wire as an ErrorReport.
"""

from collections.abc import Iterable
from difflib import get_close_matches

import msgspec


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing wrong with a document: what, where, and how to mend it.

    ``where`` is a path of fields (``schedule.sequence[0].load``); ``file`` is the document that it
    stands in, as its author named it. ``line`` and ``column`` count from 1; 0 where there is none.
    """

    code: str
    where: str
    what: str
    fix: str = ""
    line: int = 0
    file: str = ""
    column: int = 0

    def __str__(self) -> str:
        place = self.file or self.where
        numbers = [str(number) for number in (self.line, self.column) if number and place]
        path = self.where if self.file else ""
        parts = (self.code, ":".join([place, *numbers]), path, self.what)
        said = ": ".join(part for part in parts if part)
        return f"{said}; {self.fix}" if self.fix else said


class ErrorReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error on the wire."""

    code: str
    message: str
    retryable: bool = False
    problems: tuple[Problem, ...] = ()
    retry_after_s: float = 0.0  # not before; 0: nobody knows


class LabError(Exception):
    """Any error that a person or a program of the lab has to know about."""

    code = "error"
    retryable = False

    def __init__(self, where: str, what: str, fix: str = "", *, code: str = "") -> None:
        self.code = code or type(self).code
        self.where, self.what, self.fix = where, what, fix
        said = f"{where}: {what}" if where else what
        super().__init__(f"{said}; {fix}" if fix else said)

    @property
    def line(self) -> str:
        """Return the one line that a person reads."""
        return f"{self.code}: {self}"

    def report(self) -> ErrorReport:
        return ErrorReport(code=self.code, message=str(self), retryable=self.retryable)


class Refused(LabError):
    """The request cannot be granted; asking again will not help."""

    code = "refused"


class Unavailable(LabError):
    """The world is in the way; asking again may help."""

    code = "unavailable"
    retryable = True


class Invalid(Refused):
    """A document or a request has problems; all of them are here."""

    code = "invalid"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems]
        super().__init__("", "\n".join(lines) or "no problem was named")

    @property
    def line(self) -> str:
        return str(self)

    def report(self) -> ErrorReport:
        return ErrorReport(code=self.code, message=str(self), problems=self.problems)


class InvalidId(Refused):
    """Text that is no id: it would break a subject, a path or a shell."""

    code = "invalid_id"


class NotFound(Refused):
    """There is no such thing; ``nearest`` names what was perhaps meant."""

    code = "not_found"

    def __init__(self, kind: str, name: str, known: Iterable[str] = ()) -> None:
        near = nearest(name, known)
        fix = f"nearest: {', '.join(near)}" if near else ""
        super().__init__("", f"{shown(name)} is not known", fix, code=f"unknown_{kind}")
        self.kind, self.name = kind, name


class PolicyDenied(Refused):
    """The rules of the lab forbid it."""

    code = "policy_denied"


class IllegalMove(Refused):
    """A state machine has no row for this cause in this state."""

    code = "illegal_move"

    def __init__(self, machine: str, state: str, cause: str) -> None:
        super().__init__(machine, f"no {cause} in state {state}")
        self.machine, self.state, self.cause = machine, state, cause


class StaleFence(Refused):
    """A command or a report of an attempt that a later one has replaced."""

    code = "stale_fence"

    def __init__(self, fence: int, newest: int) -> None:
        super().__init__("", f"fence {fence} is stale: {newest} has been seen")
        self.fence, self.newest = fence, newest


class Fenced(Refused):
    """Another leader has written to the LOG: this one is deposed."""

    code = "fenced"

    def __init__(self, epoch: int, sequence: int) -> None:
        super().__init__("lab.v1.log", f"frame {sequence} is not of epoch {epoch}")
        self.epoch, self.sequence = epoch, sequence


class Unreachable(Unavailable):
    """A server, a host or a DUT does not answer."""

    code = "unreachable"


class DeadlineExceeded(Unavailable):
    """The time that the caller gave is over."""

    code = "deadline_exceeded"


class StorageFull(Unavailable):
    """A disk, a stream or a spool has reached its limit; nothing was lost, nothing was taken."""

    code = "storage_full"


class RateLimited(Unavailable):
    """More was asked than an org may in so short a time; ``retry_after_s`` says when again."""

    code = "rate_limited"

    def __init__(self, where: str, what: str, retry_after_s: float) -> None:
        super().__init__(where, what, f"try again in {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s

    def report(self) -> ErrorReport:
        return msgspec.structs.replace(super().report(), retry_after_s=self.retry_after_s)


def nearest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return the known words most like `name`, best first; case does not count."""
    folded = {word.lower(): word for word in known}
    return [folded[word] for word in get_close_matches(name.lower(), folded, n=most, cutoff=0.5)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for the nearest known word, empty where none is near."""
    near = nearest(name, known, most=1)
    return f"did you mean {near[0]!r}?" if near else ""


def shown(text: str, most: int = 80) -> str:
    """Return hostile text as it may stand in an error: quoted, escaped, cut."""
    cut = text if len(text) <= most else text[:most] + "…"
    return ascii(cut)
