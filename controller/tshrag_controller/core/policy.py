"""What the lab wants of its scheduler: from the settings of the controller, recorded in the LOG.

Two controllers with the same LOG decide alike, whatever their files say: a new leader whose
settings differ records its own before it decides anything.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

AGEING_S = 300.0
SHARE_POINTS = 50.0
HALF_LIFE_S = 4 * 3600.0

Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Points = Annotated[float, Meta(ge=0, le=1000)]
Gap = Annotated[int, Meta(ge=1, le=100)]
After = Annotated[float, Meta(ge=0, le=86_400)]
Most = Annotated[int, Meta(ge=0, le=100)]
Span = Annotated[float, Meta(ge=1, le=30 * 86_400)]


class Quota(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an org may have at a time; 0: as much as it likes."""

    running_duts: Count = 0
    queued_jobs: Count = 0
    leases: bool = True  # DUTs that its people hold count too


class Consumable(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the whole lab shares: so many at a time (0: no limit), one every so many seconds."""

    count: Count = 0
    every_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0


SETUP_POINTS = 10.0
PREEMPT_GAP = 50
PREEMPT_AFTER_S = 60.0
PREEMPT_MOST = 3
SETUP_S = 10.0
LINGER_S = 30.0
TEARDOWN_S = 600.0


class Policy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Weights of the order, quotas of orgs; ``*`` is every org that has none of its own."""

    ageing_s: Span = AGEING_S  # a job that waits so long gains one point of priority
    share_points: Points = SHARE_POINTS  # what an org loses that used everything alone
    half_life_s: Span = HALF_LIFE_S  # what was used counts half after so long
    weights: dict[str, Annotated[float, Meta(gt=0, le=1e6)]] = {}
    quotas: dict[str, Quota] = {}
    consumables: dict[str, Consumable] = {}
    setup_points: Points = SETUP_POINTS  # what a job gains whose setup is in place
    setup_s: Annotated[float, Meta(ge=0, le=86_400)] = SETUP_S  # of one that was never measured
    linger_s: Annotated[float, Meta(ge=0, le=86_400)] = LINGER_S  # of a setup behind its last job
    teardown_s: Annotated[float, Meta(ge=1, le=86_400)] = TEARDOWN_S  # the most that one may take
    teardown_failed: Literal["next", "quarantine"] = "next"  # who deals with it

    preempt_gap: Gap = PREEMPT_GAP  # so far above in priority who has others give way
    preempt_after_s: After = PREEMPT_AFTER_S  # nothing gives way before it ran so long
    preempt_most: Most = PREEMPT_MOST  # how often a job gives way; 0: never

    def weight(self, org: str) -> float:
        return self.weights.get(org, self.weights.get("*", 1.0))

    def quota(self, org: str) -> Quota:
        return self.quotas.get(org, self.quotas.get("*", _NONE))


_NONE = Quota()
