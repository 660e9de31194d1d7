"""What people say of attempts that no machine can know: words of the LOG (see events.py)."""

from tshrag_common.ids import Fence
from tshrag_controller.core.event import Event


class AttemptResolved(Event, frozen=True, kw_only=True, array_like=True, tag="attempt_resolved"):
    """A person says that nothing of an attempt is alive; its loss follows in the same frame."""

    fence: Fence
    by: str
    reason: str
