"""PURE. Statistics of samples as SQL over the view ``samples``.

They are those of `tshrag_common.statistics`; a test holds them against each other.

``rate`` of a counter adds what it grew by, series by series, right across resets; with a step it
is per second of the step. Every other statistic is of all samples of a group.
"""

import re

import msgspec

from tshrag_common.errors import Refused
from tshrag_common.statistics import UnknownStatistic, is_one_number

BY = ("job", "dut", "host", "run")
_COLUMNS = {"host": "agent"}
_PLAIN = {
    "avg": "favg(value)",
    "sum": "fsum(value)",
    "min": "min(value)",
    "max": "max(value)",
    "count": "count(*)",
    "first": "arg_min(value, time)",
    "last": "arg_max(value, time)",
    "median": "quantile_cont(value, 0.5)",
    "stdev": "stddev_samp(value)",
}
_QUANTILE = re.compile(r"p([0-9.]+)")
_SERIES = "key, run, job, attempt, agent, dut"


class Grouping(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a row: the key, then what `by` says, then the step of time."""

    stats: tuple[str, ...]
    by: tuple[str, ...] = ()
    step_us: int = 0
    job: bool = False  # $job bounds the samples too

    @property
    def heads(self) -> tuple[str, ...]:
        return (*(("time",) if self.step_us else ()), "key", *self.by)


def statistics_sql(grouping: Grouping) -> str:
    """Return the query: a column for each of `heads`, then unit, then the statistics.

    Raises:
        UnknownStatistic: one is none.
        Refused: one is no single number, or is none to group by.

    """
    for name in grouping.by:
        if name not in BY:
            raise Refused("--by", f"{name!r}", "by " + ", ".join(BY))
    heads = ["key", *(f"{_COLUMNS.get(name, name)} AS {name}" for name in grouping.by)]
    if grouping.step_us:
        heads.insert(0, f"time_bucket(to_microseconds({grouping.step_us}), time) AS time")
    stats = [f'{_statistic(name, grouping.step_us)} AS "{name}"' for name in grouping.stats]
    order = ", ".join(str(at + 1) for at in range(len(grouping.heads)))
    return (
        f"SELECT {', '.join(heads)}, any_value(unit) AS unit, {', '.join(stats)} "
        f"FROM {_source(grouping)} GROUP BY {order} ORDER BY {order}"
    )


def _source(grouping: Grouping) -> str:
    where = " WHERE job = $job" if grouping.job else ""
    if "rate" not in grouping.stats:
        return f"(SELECT * FROM samples{where})"
    return (
        "(SELECT *, CASE WHEN was IS NULL THEN NULL WHEN type <> 'counter' OR value >= was "
        "THEN value - was ELSE value END AS grown FROM (SELECT *, lag(value) OVER "
        f"(PARTITION BY {_SERIES} ORDER BY time) AS was FROM samples{where}))"
    )


def _statistic(name: str, step_us: int) -> str:
    if not is_one_number(name):
        if name in ("num", "hist"):
            fix = "'tshrag metrics RUN KEY --stat hist' has it of one run"
            raise Refused("--stat", f"{name} is no single number", fix)
        raise UnknownStatistic(name, "--stat")
    if name == "rate":
        span = f"{step_us / 1e6!r}" if step_us else _SPAN
        return f"fsum(grown) / {span}"
    found = _QUANTILE.fullmatch(name)
    return f"quantile_cont(value, {float(found[1]) / 100!r})" if found else _PLAIN[name]


_SPAN = "nullif((epoch_us(max(time)) - epoch_us(min(time))) / 1e6, 0)"


def samples_sql(*, job: bool = False) -> str:
    """Return the query of the samples themselves."""
    where = " WHERE job = $job" if job else ""
    return (
        "SELECT time, value, duration_us, key, unit, run, job, attempt, agent AS host, dut "
        f"FROM samples{where} ORDER BY key, run, job, attempt, time"
    )
