"""What setups of groups cost and saved, what came of what the lab does by itself -> counters.

In the transaction of their frame.
"""

from collections.abc import Callable
from typing import Any, Protocol

from tshrag_common.reports import Ended
from tshrag_controller.core import teardown_events as e
from tshrag_controller.core.health_events import CheckEnded, CheckOrdered

SPENT_US, SAVED_US = "setup_us.made", "setup_us.found"


class Counting(Protocol):
    """Where counters are kept."""

    def count(self, name: str, more: int = 1) -> None:
        """Add to the counter `name` of the lab."""
        ...

    def count_of(self, run: int, name: str, more: int = 1) -> None:
        """Add to the counter `name` of the lab, and of the org of a run."""
        ...

    def number(self, run: str) -> int:
        """Return the short number of a run."""
        ...


def note_setup(rows: Counting, run: int, ended: Ended) -> None:
    """Count what an attempt did with the setup of its group, and how long that took or saved."""
    if not ended.setup:
        return
    rows.count_of(run, f"setups.{ended.setup}")
    if ended.setup_us > 0:
        rows.count_of(run, f"setup_us.{ended.setup}", ended.setup_us)


def _teardown_ended(rows: Counting, event: e.TeardownEnded) -> None:
    rows.count_of(rows.number(event.run), f"teardowns.{event.state}")


def _check_ended(rows: Counting, event: CheckEnded) -> None:
    rows.count(f"health.{event.state}")


def _nothing(rows: Counting, event: e.TeardownOrdered | CheckOrdered) -> None:
    """Leave no row: its run is one."""


WRITERS: dict[type, Callable[[Any, Any], None]] = {
    e.TeardownOrdered: _nothing,
    e.TeardownEnded: _teardown_ended,
    CheckOrdered: _nothing,
    CheckEnded: _check_ended,
}
