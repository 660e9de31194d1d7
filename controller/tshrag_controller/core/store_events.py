"""What people did to the stored samples: words of the LOG (see events.py)."""

from tshrag_controller.core.event import Event


class StoreTended(Event, frozen=True, kw_only=True, array_like=True, tag="store_tended"):
    """An operator had the store seal, collect or take up samples; `told` is what came of it."""

    by: str
    what: str
    told: str = ""
