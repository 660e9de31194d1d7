"""What is asked about metrics themselves: what they are, who writes them, what was left out."""

import msgspec

from tshrag_common.ids import Whole
from tshrag_common.metrics import MetricType


class ListInfos(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The metrics of a run whose keys match a GLOB; declared ones without samples too."""

    run: str
    key: str = "*"


class InfoView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One metric of a run.

    ``writers``: loads by name, commands, or the agent's own sampler. ``labels`` are those that
    its declaration allows. ``overflow`` counts samples beyond a cap of series (they are also the
    series ``KEY.overflow``), ``refused`` those that were not taken for any reason, these included.
    """

    key: str
    unit: str = ""
    type: MetricType = "gauge"
    description: str = ""
    declared: bool = False
    writers: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    series: Whole = 0
    count: Whole = 0
    first_at: int = 0
    last_at: int = 0
    overflow: Whole = 0
    refused: Whole = 0


class InfosAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """By key. ``more``: the run has further metrics; a narrower key shows them."""

    infos: tuple[InfoView, ...]
    more: bool = False
