"""PURE: the timing contract of leases; both sides count by it, each with its own monotonic clock.

    T                the lease: how long an attempt may go on without an answered heartbeat
    T - MARGIN_S     its agent ends it, counted from when the last answered heartbeat was *sent*
    T + GRANT_S      what it held is given again, counted from when that heartbeat was *processed*

Between the two an agent that is frozen has its processes ended by the shepherd, a board by the
lease of its wrapper. An attempt without a lease goes on to its own time limit.
"""

SHARED_S = 20.0
"""The lease of an attempt on a DUT that several agents reach."""
LEAST_S = 20.0
"""A shorter lease would end attempts whose host is only slow."""
MARGIN_S = 4.0
GRANT_S = 10.0


def lease_s(disconnect_s: float, shared: bool) -> float:
    """Return the lease of an attempt; 0: none, its own time limit holds."""
    return disconnect_s or (SHARED_S if shared else 0.0)


def ends_at(lease_s: float, sent_at: float) -> float:
    """Return when the agent ends an attempt whose last answered heartbeat left at `sent_at`."""
    return sent_at + lease_s - MARGIN_S


def is_over(lease_s: float, silent_s: float) -> bool:
    """Tell whether what is held under a lease may be given again after so long a silence."""
    return lease_s > 0 and silent_s >= lease_s + GRANT_S
