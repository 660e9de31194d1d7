"""What happened in a simulated lab, as its world saw it: written down at once, judged later.

`recorded` makes the product write its own history, too, the lines of ``make chaos``: the same
rules read it, with the virtual clock for that of the machine.
"""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.vloop import LIFE, VirtualLoop
from tshrag_common import history as product


@dataclass
class History:
    """Facts in the order of virtual time; ``faults`` are those that may never happen at all."""

    entries: list[tuple[float, str, tuple[object, ...]]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    lines_of_product: list[dict[str, Any]] = field(default_factory=list)
    lives: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Life -> who writes, and in which of its starts."""

    def note(self, at: float, what: str, *facts: object) -> None:
        self.entries.append((at, what, facts))

    def violate(self, at: float, rule: str, what: str) -> None:
        """Note that an invariant does not hold."""
        self.broken.append(f"{rule}: {what} (at {at:.3f} s)")

    def of(self, what: str) -> Iterator[tuple[float, tuple[object, ...]]]:
        return ((at, facts) for at, kind, facts in self.entries if kind == what)

    @property
    def digest(self) -> str:
        """Return a number that two equal runs share."""
        summed = hashlib.sha256()
        for entry in self.entries:
            summed.update(repr(entry).encode())
        return summed.hexdigest()[:16]

    def lines(self) -> list[str]:
        return [f"{at:9.3f}  {what}  {facts}" for at, what, facts in self.entries]


@contextmanager
def recorded(history: History, loop: VirtualLoop) -> Iterator[None]:
    """Let the product note what it does, as if it were in test mode, and its tracebacks too."""

    def note(ev: str, **facts: object) -> None:
        actor, boot = history.lives.get(LIFE.get(), ("", ""))
        fixed = {"mono_ns": round(loop.time() * 1e9), "actor": actor, "boot": boot, "ev": ev}
        history.lines_of_product.append({**fixed, **facts})

    was, is_on, escapes = product.note, product.IS_ON, product.Escapes(logging.ERROR)
    level = logging.root.manager.disable
    product.note, product.IS_ON = note, True
    logging.disable(min(level, logging.WARNING))
    logging.getLogger().addHandler(escapes)
    try:
        yield
    finally:
        product.note, product.IS_ON = was, is_on
        logging.disable(level)
        logging.getLogger().removeHandler(escapes)
