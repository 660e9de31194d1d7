"""The verdict of a long run: 1,000 criteria on 10 million samples, from the store to the evidence.

100 keys, ten criteria each: quantiles, means, extremes, deviations, rates, slopes, windows. The
limit is the arithmetic alone, by numpy, on columns that lie in memory.
"""

import resource
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import stored_data as data
from benchmarks.harness import Figure, Scale, figure, run_async
from tests.support.builders import T0
from tests.support.stored import StoredLab, samples
from tshrag_common import ids
from tshrag_common.criteria import CompiledCriterion, Criterion
from tshrag_common.criteria_compile import compile_criteria
from tshrag_common.metrics import MetricInfo, SampleBatch, pack
from tshrag_controller.judging import judge_all
from tshrag_controller.store.sources import judged
from tshrag_controller.store.store import Store

KEYS, BATCH = 100, 10_000
ASKED = (
    "avg", "p50", "p95", "p99", "max", "min", "stdev", "count", "slope", "last",
)  # fmt: skip


def measure(scale: Scale) -> list[Figure]:
    return run_async(_measure(scale))


def _criteria() -> tuple[CompiledCriterion, ...]:
    found: list[CompiledCriterion] = []
    for key in range(KEYS):  # a profile has 200 at most: these are those of five
        names = {f"{each}-{key}": f"net.k{key}::{each}" for each in ASKED}
        found += compile_criteria(
            {name: Criterion(metric=metric, max=1e12) for name, metric in names.items()}
        )
    return tuple(found)


async def _measure(scale: Scale) -> list[Figure]:
    each = scale.of(100_000, 200)
    folder = Path(tempfile.mkdtemp(prefix="tshrag-bench-judge-"))
    try:
        store = await Store.open(folder)
        run = await _filled(store, each)
        criteria = _criteria()
        reads: list[float] = []
        verdicts: list[float] = []
        limits: list[float] = []
        for _ in range(scale.of(2, 1)):
            began = time.perf_counter()
            found = await store.query(lambda db: judged(db, run, criteria))
            read_at = time.perf_counter()
            evidence = judge_all(criteria, found)
            done_at = time.perf_counter()
            if {one.verdict for one in evidence} != {"pass"} or len(evidence) != len(criteria):
                raise AssertionError(next(one for one in evidence if one.verdict != "pass"))
            reads.append(read_at - began)
            verdicts.append(done_at - began)
            limits.append(_numpy_s([(one.times, one.values) for one in found.sources]))
        await store.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    what = f"{len(criteria)} criteria on {KEYS * each} samples of {KEYS} keys"
    facts = {
        "read_s": round(sorted(reads)[len(reads) // 2], 3),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    return [
        figure(
            "judge_final", f"{what}: read from the hot store and judged", "s",
            ours=verdicts, limits=limits, limit_is="the same statistics by numpy, from memory",
            better="lower", facts=facts,
        )
    ]  # fmt: skip


async def _filled(store: Store, each: int) -> ids.RunId:
    """Return a run with so many samples of each key."""
    run = await StoredLab(store).started_run()
    numbers, size, sent = data.values(min(each, 100_000)), min(BATCH, each), 0
    for key in range(KEYS):
        info = MetricInfo(key=f"net.k{key}", unit="ms")
        for first in range(0, each, size):
            times = data.times(size, T0 + first * 1000)
            series = pack(info, times, numbers[first : first + size])
            batch = SampleBatch(run=run, job=ids.job_of(run, 1), attempt=1, series=(series,))
            sent += 1
            await store.take_samples([samples(batch, first=sent)])
    return run


def _numpy_s(columns: list[tuple[Sequence[int], Sequence[float]]]) -> float:
    import numpy as np

    began = time.perf_counter()
    for at, value in columns:
        times, values = np.asarray(at), np.asarray(value)
        np.isfinite(values).all()
        values.mean(), np.quantile(values, (0.5, 0.95, 0.99)), values.max(), values.min()
        values.std(ddof=1), len(values), np.polyfit(times - times[0], values, 1), values[-1]
    return time.perf_counter() - began
