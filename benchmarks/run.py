"""``make bench``: all benchmarks, or those named; a table at the end, results as JSON.

python -m benchmarks.run [--quick] [--results FOLDER] [NAME ...]

One that fails says why and keeps its last result; the others go on, and the exit code is 1.
"""

import argparse
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from benchmarks import (
    bench_boards,
    bench_console,
    bench_fleet,
    bench_gangs,
    bench_growth,
    bench_jobs,
    bench_judge,
    bench_latency,
    bench_memory,
    bench_noop,
    bench_samples,
    bench_schedule,
    bench_spawn,
    bench_store,
    bench_takeover,
    bench_tunnels,
)
from benchmarks.harness import RESULTS, Figure, Measure, Result, Scale, conduct

BENCHES: dict[str, Measure] = {
    "console": bench_console.measure,
    "jobs": bench_jobs.measure,
    "noop": bench_noop.measure,
    "latency": bench_latency.measure,
    "samples": bench_samples.measure,
    "memory": bench_memory.measure,
    "fleet": bench_fleet.measure,
    "growth": bench_growth.measure,
    "schedule": bench_schedule.measure,
    "boards": bench_boards.measure,
    "spawn": bench_spawn.measure,
    "store": bench_store.measure,
    "judge": bench_judge.measure,
    "gangs": bench_gangs.measure,
    "takeover": bench_takeover.measure,
    "tunnels": bench_tunnels.measure,
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(BENCHES)}")
    parser.add_argument("--quick", action="store_true", help="a smoke test, in seconds")
    parser.add_argument("--results", type=Path, help="folder of the JSON files")
    said = parser.parse_args(argv)
    unknown = sorted(set(said.names) - BENCHES.keys())
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    folder: Path = said.results or _default_folder(said.quick)
    results: list[Result] = []
    failed: list[str] = []
    for name in said.names or BENCHES:
        print(f"{name} ...", flush=True)
        try:
            results.append(conduct(name, BENCHES[name], Scale(said.quick), folder))
        except Exception:
            traceback.print_exc()
            failed.append(name)
    print(table(results))
    print(f"results in {folder}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _default_folder(quick: bool) -> Path:
    """Return where results go; those of a smoke test never stand beside real ones."""
    return Path(tempfile.mkdtemp(prefix="bench-quick-")) if quick else RESULTS


def table(results: Sequence[Result]) -> str:
    """Return the figures of results as lines of text, ours beside its limit."""
    head = ("figure", "ours", "limit", "ratio", "aim", "", "unit; the limit is")
    rows = [head, *(_row(each) for result in results for each in result.figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _row(each: Figure) -> tuple[str, ...]:
    aim = ""
    if each.aim is not None:
        sign = ">=" if each.better == "higher" else "<="
        aim = f"{sign} {each.aim:g}{' of limit' if each.aim_is == 'ratio' else ''}"
    met = {True: "met", False: "MISSED", None: ""}[each.is_met]
    figures = (_short(each.value), _short(each.limit), f"{each.ratio:.3g}")
    return (each.name, *figures, aim, met, f"{each.unit}; {each.limit_is}")


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
