"""What the scheduler records beside assignments."""

from tshrag_common.ids import RunId
from tshrag_controller.core.event import Event
from tshrag_controller.core.policy import Policy


class PolicySet(Event, frozen=True, kw_only=True, array_like=True, tag="policy_set"):
    """From here on the lab schedules by this policy: the leader's settings had changed."""

    policy: Policy


class RoleReleased(Event, frozen=True, kw_only=True, array_like=True, tag="role_released"):
    """A run gives a DUT back before it has done anything on it; with `shun` it wants another."""

    run: RunId
    role: str
    shun: bool = True
