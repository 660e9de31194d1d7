"""A drill on a live lab: what an operator asks, what he is told."""

from typing import Annotated, Literal

import msgspec

DrillKind = Literal["kill-agent", "cut-link", "restart-controller"]
MOST_S = 600.0


class Drill(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Let this happen now. Refused where the settings of who would suffer it allow no drills.

    ``agent`` is who, but for ``restart-controller``; ``seconds`` how long a link is cut.
    """

    what: DrillKind
    agent: str = ""
    seconds: Annotated[float, msgspec.Meta(ge=0, le=MOST_S)] = 0.0


class DrillAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """It is on its way: to whom, in which epoch it was said, and who has asked."""

    what: DrillKind
    target: str
    epoch: int
    by: str
