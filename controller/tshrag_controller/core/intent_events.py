"""What operators want of hosts and DUTs: words of the LOG (see events.py)."""

from typing import Literal

from tshrag_controller.core.event import Event

Kind = Literal["agent", "dut"]


class IntentSet(Event, frozen=True, kw_only=True, array_like=True, tag="intent_set"):
    """A host or a DUT is taken out of service: by whom, why, until when (0: until it is undone)."""

    kind: Kind
    name: str
    what: str  # cordoned, draining, maintenance, quarantined
    by: str
    reason: str = ""
    until: int = 0


class IntentCleared(Event, frozen=True, kw_only=True, array_like=True, tag="intent_cleared"):
    """It is in service again, as far as people are concerned."""

    kind: Kind
    name: str
    by: str = ""  # empty: its time was over
    reason: str = ""


IntentEvent = IntentSet | IntentCleared
