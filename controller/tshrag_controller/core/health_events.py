"""Health checks of hosts and DUTs: words of the LOG (see events.py)."""

from tshrag_common.ids import RunId
from tshrag_controller.core.event import Event
from tshrag_controller.core.intent_events import Kind


class CheckOrdered(Event, frozen=True, kw_only=True, array_like=True, tag="check_ordered"):
    """A run looks whether a host or a DUT is well: it alone may come while that is quarantined."""

    run: RunId
    name: str
    why: str = ""
    kind: Kind = "dut"


class CheckEnded(Event, frozen=True, kw_only=True, array_like=True, tag="check_ended"):
    """It has come to its end; ``state`` is that of the run."""

    run: RunId
    name: str
    state: str
    kind: Kind = "dut"


HealthEvent = CheckOrdered | CheckEnded
