"""Teardowns of groups that have ended: words of the LOG (see events.py)."""

from tshrag_common.ids import DutId, RunId
from tshrag_controller.core.event import Event


class TeardownOrdered(Event, frozen=True, kw_only=True, array_like=True, tag="teardown_ordered"):
    """A run undoes the setup that a DUT carries: its group has ended."""

    run: RunId
    dut: DutId
    digest: str


class TeardownEnded(Event, frozen=True, kw_only=True, array_like=True, tag="teardown_ended"):
    """It is over; ``state`` is that of the run, or ``withdrawn``: it was not needed any more."""

    run: RunId
    dut: DutId
    digest: str
    state: str


TeardownEvent = TeardownOrdered | TeardownEnded
