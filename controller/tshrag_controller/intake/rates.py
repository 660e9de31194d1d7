"""How much an org may ask in a time: a flood of one must not make the others wait.

A bucket an org, full at first: each submit takes a token, tokens come back evenly. What is too
much is refused at once, with the time to wait: it costs us nothing and queues nowhere.
"""

from tshrag_common.clock import Clock
from tshrag_common.errors import RateLimited
from tshrag_common.ids import OrgId

_MOST_ORGS = 10_000


class Rates:
    """Buckets by org. ``per_s`` 0: no limit."""

    def __init__(self, clock: Clock, per_s: float, burst: int) -> None:
        self._clock, self._per_s, self._burst = clock, per_s, float(burst)
        self._buckets: dict[OrgId, tuple[float, float]] = {}  # tokens, and when that was so
        self.refused = 0

    def take(self, org: OrgId) -> None:
        """Take a token of `org`.

        Raises:
            RateLimited: there is none; it says when there will be one.

        """
        if not self._per_s:
            return
        now = self._clock.monotonic()
        had, at = self._buckets.get(org, (self._burst, now))
        tokens = min(self._burst, had + (now - at) * self._per_s)
        if tokens < 1.0:
            self.refused += 1
            what = f"an org may submit {self._per_s:g} times a second, {self._burst:g} at once"
            raise RateLimited(org, what, (1.0 - tokens) / self._per_s)
        if len(self._buckets) >= _MOST_ORGS:
            self._forget_full(now)
        self._buckets[org] = (tokens - 1.0, now)

    def _forget_full(self, now: float) -> None:
        """Drop the buckets that are full again: a new one would be the same."""
        for org, (tokens, at) in list(self._buckets.items()):
            if tokens + (now - at) * self._per_s >= self._burst:
                del self._buckets[org]
