"""PURE: the result of a tool, as it writes it -> numbers with units.

Every byte is hostile: sizes are bounded by the caller, depth and count here. What cannot be read
raises BadResult; a number that is none (NaN, text) is left out.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError, XMLParser

from tshrag_common.errors import Refused
from tshrag_common.results import ResultForm

MOST_RESULTS = 5000
_ODD = re.compile(r"[^a-z0-9_]+")
_LAVA = re.compile(
    r"^\s*(\S{1,200})\s+(pass|fail|skip|unknown)(?:\s+(\S{1,40})(?:\s+(\S{1,40}))?)?\s*$"
)


class BadResult(Refused):
    """A result that is not in the form that the manifest says."""

    code = "bad_result"


class Result(NamedTuple):
    """A number; the key is below the prefix of its file."""

    key: str
    value: float
    unit: str = ""


def parse(form: ResultForm, data: bytes) -> list[Result]:
    """Return the numbers of a result.

    Raises:
        BadResult: it is not in that form, or it has none, or too many.

    """
    found: list[Result] = []
    for result in _FORMS[form](data):
        if math.isfinite(result.value):
            found.append(result)
        if len(found) > MOST_RESULTS:
            raise BadResult(form, f"more than {MOST_RESULTS} numbers")
    if not found:
        raise BadResult(form, "no numbers in it")
    return found


def word(text: str) -> str:
    """Return `text` as a segment of a key: what cannot stand in one becomes ``_``."""
    return _ODD.sub("_", text.lower()).strip("_")[:60] or "unnamed"


def _json(form: str, data: bytes) -> Mapping[str, object]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadResult(form, f"no JSON: {str(error)[:120]}") from None
    if not isinstance(found, dict):
        raise BadResult(form, "no JSON object")
    return found


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 else None


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _items(value: object) -> list[Mapping[str, object]]:
    return [_mapping(each) for each in value] if isinstance(value, list) else []


def _pytest(data: bytes) -> Iterator[Result]:
    """Read JUnit XML as pytest writes it: how many of each outcome, and how long each test took."""
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise BadResult("pytest-junit", "has a document type")
    parser = XMLParser()
    try:
        parser.feed(data)
        root: Element = parser.close()
    except ParseError as error:
        raise BadResult("pytest-junit", f"no XML: {error}") from None
    cases = list(root.iter("testcase"))
    if not cases and root.tag not in ("testsuites", "testsuite"):
        raise BadResult("pytest-junit", f"begins with <{root.tag[:40]}>")
    counts = {"passed": 0, "failed": 0, "errors": 0, "skipped": 0}
    for case in cases:
        tags = {child.tag for child in case}
        outcome = next(
            (name for tag, name in _OUTCOMES if tag in tags),
            "passed",
        )
        counts[outcome] += 1
    yield from (Result(name, count) for name, count in counts.items())
    yield Result("total", len(cases))
    times = [float(text) for case in cases if _is_number(text := case.get("time", ""))]
    yield Result("time", math.fsum(times), "s")


_OUTCOMES = (("error", "errors"), ("failure", "failed"), ("skipped", "skipped"))


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,12})?", text) is not None


def _k6(data: bytes) -> Iterator[Result]:
    """Read k6's ``--summary-export`` (flat) or ``handleSummary`` (with ``values``)."""
    metrics = _mapping(_json("k6-json", data).get("metrics"))
    for name, metric in metrics.items():
        body = _mapping(metric)
        values = _mapping(body.get("values")) or body
        is_time = body.get("contains") == "time" or word(name).endswith("_duration")
        for stat, value in values.items():
            number = _number(value)
            if number is None or stat in ("thresholds", "contains", "type"):
                continue
            is_span = is_time and stat not in ("count", "rate", "passes", "fails")
            yield Result(f"{word(name)}.{_percentile(stat)}", number, "ms" if is_span else "")


def _percentile(stat: str) -> str:
    found = re.fullmatch(r"p\(([0-9]{1,2})(?:\.([0-9]{1,4}))?\)", stat)
    if found is None:
        return word(stat)
    return f"p{found[1]}" + (f"_{found[2]}" if found[2] else "")


def _fio(data: bytes) -> Iterator[Result]:
    """Read ``fio --output-format=json``: per job and direction rates and completion latencies."""
    text = data[max(0, data.find(b"{")) :]  # fio prints warnings before it
    for job in _items(_json("fio-json", text).get("jobs")):
        name = word(str(job.get("jobname", "job")))
        for way in ("read", "write", "trim"):
            side = _mapping(job.get(way))
            if _number(side.get("total_ios")):
                yield from _fio_side(f"{name}.{way}", side)


def _fio_side(name: str, side: Mapping[str, object]) -> Iterator[Result]:
    for field, unit in (("iops", ""), ("bw_bytes", "B/s"), ("io_bytes", "B")):
        yield from _of(f"{name}.{field}", side.get(field), unit)
    latency = _mapping(side.get("clat_ns"))
    for stat in ("min", "max", "mean", "stddev"):
        yield from _of(f"{name}.clat_{stat}", latency.get(stat), "ns")
    for level, value in _mapping(latency.get("percentile")).items():
        if _is_number(level):
            digits = f"{float(level):g}".replace(".", "_")
            yield from _of(f"{name}.clat_p{digits}", value, "ns")


def _of(key: str, value: object, unit: str) -> Iterator[Result]:
    number = _number(value)
    if number is not None:
        yield Result(key, number, unit)


def _iperf3(data: bytes) -> Iterator[Result]:
    """Read ``iperf3 -J``: the sums at its end; an error of iperf3 is one here."""
    document = _json("iperf3-json", data)
    if document.get("error"):
        raise BadResult("iperf3-json", f"iperf3 says: {str(document['error'])[:120]}")
    end = _mapping(document.get("end"))
    units = {"bits_per_second": "bps", "bytes": "B", "seconds": "s", "jitter_ms": "ms"}
    for name in ("sum", "sum_sent", "sum_received"):
        for field, value in _mapping(end.get(name)).items():
            number = _number(value)
            if number is None or field in ("start", "end"):
                continue
            yield Result(f"{name}.{word(field)}", number, units.get(field, ""))


def _linaro(data: bytes) -> Iterator[Result]:
    """Read lines ``name pass|fail|skip [number [unit]]`` of Linaro's test-definitions."""
    for line in data.decode("utf-8", "replace").split("\n"):
        found = _LAVA.match(line)
        if found is None:
            continue
        name = word(found[1])
        if found[2] in ("pass", "fail"):
            yield Result(f"{name}.passed", float(found[2] == "pass"))
        if found[3] and re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,12})?", found[3]):
            yield Result(f"{name}.measured", float(found[3]), found[4] or "")


_SYSBENCH = (
    (r"events per second:\s+([0-9.]+)", "events_per_second", ""),
    (r"total time:\s+([0-9.]+)s", "total_time", "s"),
    (r"total number of events:\s+([0-9]+)", "events", ""),
    (r"min:\s+([0-9.]+)", "latency_min", "ms"),
    (r"avg:\s+([0-9.]+)", "latency_avg", "ms"),
    (r"max:\s+([0-9.]+)", "latency_max", "ms"),
    (r"95th percentile:\s+([0-9.]+)", "latency_p95", "ms"),
    (r"transactions:\s+[0-9]+\s+\(([0-9.]+) per sec", "transactions_per_second", ""),
    (r"queries:\s+[0-9]+\s+\(([0-9.]+) per sec", "queries_per_second", ""),
    (r"\(([0-9.]+) MiB/sec\)", "mib_per_second", "MiB/s"),
)


def _sysbench(data: bytes) -> Iterator[Result]:
    """Read what sysbench prints."""
    text = data.decode("utf-8", "replace")
    if "sysbench" not in text:
        raise BadResult("sysbench", "no output of sysbench")
    for pattern, key, unit in _SYSBENCH:
        found = re.search(pattern, text)
        if found is not None and _is_number(found[1]):
            yield Result(key, float(found[1]), unit)


def _hyperfine(data: bytes) -> Iterator[Result]:
    """Read ``hyperfine --export-json``: a command a number, by its name where it has one."""
    for number, row in enumerate(_items(_json("hyperfine-json", data).get("results")), 1):
        name = word(str(row["name"])) if isinstance(row.get("name"), str) else f"command_{number}"
        for field in ("mean", "stddev", "median", "min", "max", "user", "system"):
            value = _number(row.get(field))
            if value is not None:
                yield Result(f"{name}.{field}", value, "s")


_FORMS: Mapping[ResultForm, Callable[[bytes], Iterable[Result]]] = {
    "pytest-junit": _pytest,
    "k6-json": _k6,
    "fio-json": _fio,
    "iperf3-json": _iperf3,
    "linaro-test-definitions": _linaro,
    "sysbench": _sysbench,
    "hyperfine-json": _hyperfine,
}

PREFIXES: Mapping[ResultForm, str] = {
    "pytest-junit": "pytest",
    "k6-json": "k6",
    "fio-json": "fio",
    "iperf3-json": "iperf3",
    "linaro-test-definitions": "test",
    "sysbench": "sysbench",
    "hyperfine-json": "hyperfine",
}
