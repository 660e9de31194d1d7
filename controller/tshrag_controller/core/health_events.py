"""Health checks of DUTs: words of the LOG (see events.py)."""

from tshrag_common.ids import DutId, RunId
from tshrag_controller.core.event import Event


class CheckOrdered(Event, frozen=True, kw_only=True, array_like=True, tag="check_ordered"):
    """A run looks whether a DUT is well: it alone may have the DUT while it is quarantined."""

    run: RunId
    dut: DutId
    why: str = ""


class CheckEnded(Event, frozen=True, kw_only=True, array_like=True, tag="check_ended"):
    """It has come to its end; ``state`` is that of the run."""

    run: RunId
    dut: DutId
    state: str


HealthEvent = CheckOrdered | CheckEnded
