"""What happened in a simulated lab, as its world saw it: written down at once, judged later."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class History:
    """Facts in the order of virtual time; ``faults`` are those that may never happen at all."""

    entries: list[tuple[float, str, tuple[object, ...]]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

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
