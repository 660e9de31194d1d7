"""PURE: samples and statistics as CSV that other programs, spreadsheets too, can take."""

from collections.abc import Iterable, Sequence

from tshrag_common.metric_requests import SamplesAnswer
from tshrag_common.units import UNITS
from tshrag_common.views import SeriesView
from tshrag_controller.reports.text import csv_cell


def samples_csv(samples: SamplesAnswer, unit: str, *, head: bool = True) -> str:
    """Return samples in the form of a job directory: ``timestamp,value``, in the metric's unit.

    Timestamps are microseconds UTC. With durations there is a column ``duration_us``; `head` is
    False for every page but the first.
    """
    found = UNITS.get(unit)
    spans = any(samples.duration_us)
    lines = [f"timestamp,{'duration_us,' if spans else ''}value"] if head else []
    for at, value, duration in zip(samples.at, samples.value, samples.duration_us, strict=True):
        number = f"{found.from_base(value) if found else value:.15g}"
        lines.append(f"{at},{duration},{number}" if spans else f"{at},{number}")
    return "".join(f"{line}\n" for line in lines)


def statistics_csv(series: Iterable[SeriesView], stats: Sequence[str]) -> str:
    """Return one row a series; text is quoted and no spreadsheet takes it for a formula."""
    heads = ("metric", "job", "host", "dut", "unit", "count", *stats)
    lines = [",".join(csv_cell(head) for head in heads)]
    for each in series:
        texts = (each.key, each.job, each.agent, each.dut, each.unit)
        numbers = [_number(each.stats.get(name), each.unit, name) for name in stats]
        lines.append(",".join([*map(csv_cell, texts), str(each.count), *numbers]))
    return "".join(f"{line}\n" for line in lines)


def _number(value: object, unit: str, statistic: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else csv_cell(str(value))
    found = UNITS.get(unit) if statistic not in ("count", "rate") else None
    return f"{found.from_base(value) if found else value:.15g}"
