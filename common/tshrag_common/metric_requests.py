"""What is asked of metrics: samples and their statistics, what they are, what was left out."""

from typing import Annotated

import msgspec

from tshrag_common.ids import Whole
from tshrag_common.metrics import MetricInfo, MetricType
from tshrag_common.requests import Offset
from tshrag_common.views import SeriesView


class ListMetrics(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Keys of a run, GLOB allowed; with ``stats`` the named statistics of each series."""

    run: str
    key: str = "*"
    stats: tuple[str, ...] = ()
    job: str = ""


class MetricsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Series by key, then job. ``whole`` holds each key over all its series, ``infos`` its unit.

    ``more``: the run has further series; a narrower key shows them.
    """

    series: tuple[SeriesView, ...]
    whole: tuple[SeriesView, ...] = ()
    infos: tuple[MetricInfo, ...] = ()
    more: bool = False


class GetSeries(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Samples of one key of a run, by time; page by ``offset``."""

    run: str
    key: str
    job: str = ""
    offset: Offset = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 10_000


class SamplesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Columns of equal length: instants, values, durations (0 where none), job of each."""

    at: tuple[int, ...]
    value: tuple[float, ...]
    duration_us: tuple[int, ...]
    job: tuple[str, ...]
    more: bool = False


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
