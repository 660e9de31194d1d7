"""The benchmarks work: each in its quick form, as `make bench` would start it."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks import run
from benchmarks.compare import compared
from benchmarks.harness import Figure, Result, Scale, figure, read_results
from benchmarks.run import BENCHES

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHES)
def test_a_benchmark_puts_its_figure_beside_a_limit_of_the_same_run(
    name: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "benchmarks.run", "--quick", "--results", str(tmp_path), name]
    said = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=55, check=False
    )
    assert said.returncode == 0, said.stderr[-3000:]
    result = read_results(tmp_path)[name]
    assert result.figures
    assert result.quick
    assert result.machine["cores"]
    for each in result.figures:
        assert each.value > 0
        assert each.limit > 0
        assert each.ratio > 0
        assert each.limit_is
        assert each.name in said.stdout


def a_figure(ours: float, limit: float) -> Figure:
    return figure(
        "jobs", "jobs", "jobs/s", ours=[ours, ours, 1.0], limits=[limit, limit, limit], limit_is="x"
    )


def test_a_ratio_is_the_median_of_the_ratios_of_each_turn() -> None:
    found = figure("a", "a", "1/s", ours=[10, 90, 20], limits=[100, 100, 50], limit_is="x")
    assert (found.value, found.limit, found.ratio) == (20, 100, 0.4)


def test_an_aim_of_the_ratio_is_held_against_the_ratio() -> None:
    met = figure("a", "a", "1/s", ours=[60], limits=[100], limit_is="x", aim=0.5, aim_is="ratio")
    missed = figure("a", "a", "ms", ours=[60], limits=[1], limit_is="x", aim=5, better="lower")
    assert met.is_met is True
    assert missed.is_met is False


def test_a_comparison_goes_by_ratio_and_knows_noise(tmp_path: Path) -> None:
    for folder, ours in (("old", 100.0), ("new", 60.0), ("near", 95.0)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "jobs.json").write_bytes(_a_result(a_figure(ours, 200.0)))
    old, new, near = (read_results(tmp_path / name) for name in ("old", "new", "near"))
    assert "WORSE" in compared(old, new)[1]
    assert "better" in compared(new, old)[1]
    assert "same" in compared(old, near)[1]


def _a_result(*figures: Figure) -> bytes:
    return msgspec.json.encode(
        Result(
            bench="jobs",
            date="2026-01-01T00:00:00+00:00",
            commit="abc",
            command="make bench",
            quick=False,
            took_s=1.0,
            machine={"cores": "2"},
            load_before=0.1,
            figures=figures,
        )
    )


def test_one_that_fails_does_not_take_the_others_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_scale: Scale) -> list[Figure]:
        raise RuntimeError("no disk")

    def works(_scale: Scale) -> list[Figure]:
        return [figure("works", "x", "s", ours=[1.0], limits=[2.0], limit_is="x")]

    monkeypatch.setattr(run, "BENCHES", {"bad": fails, "good": works})
    with pytest.raises(SystemExit, match="failed: bad"):
        run.main(["--results", str(tmp_path)])
    said = capsys.readouterr()
    assert "no disk" in said.err
    assert "works" in said.out
    assert list(read_results(tmp_path)) == ["good"]
