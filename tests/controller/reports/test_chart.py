from xml.etree import ElementTree

from tshrag_common.criteria import Evidence
from tshrag_common.views import SeriesView
from tshrag_controller.reports.chart import MOST_LINES, chart, lines_of
from tshrag_controller.store.series import slices

S = 1_000_000


def a_view(values: list[float], times: list[int] | None = None) -> SeriesView:
    at = times or [n * S for n in range(len(values))]
    found = slices(at, values)
    return SeriesView(
        key="net.latency", job="", attempt=1, agent="a1", unit="ms", count=len(values),
        first_at=min(at), last_at=max(at), spark=found.means, spark_low=found.lows,
        spark_high=found.highs, spark_gaps=found.gaps,
    )  # fmt: skip


def an_evidence(**more: object) -> Evidence:
    fields = {
        "criterion": "fast", "metric": "net.latency", "statistic": "max", "verdict": "pass",
        "reason": "", "value": 20.0, "bound": 50.0, "bound_name": "max", "unit": "ms", **more,
    }  # fmt: skip
    return Evidence(**fields)  # type: ignore[arg-type]  # fields of any type


def classes(svg: str) -> list[str]:
    return [str(each.get("class")) for each in ElementTree.fromstring(svg).iter()]


def test_a_metric_that_nobody_judged_has_no_chart() -> None:
    assert chart(a_view([1.0, 2.0]), ()) == ""
    assert chart(a_view([1.0]), [an_evidence(metric="other")]) == ""
    assert chart(a_view([1.0]), [an_evidence(statistic="count", bound=3.0, unit="")]) == ""


def test_a_bound_that_held_is_a_line_with_its_name_and_marks_nothing() -> None:
    svg = chart(a_view([0.01, 0.02, 0.03]), [an_evidence()])
    assert classes(svg).count("bound") == 1 and "breach" not in classes(svg)
    assert "50 ms fast" in svg and "2s" in svg


def test_what_is_beyond_a_bound_is_marked_though_the_mean_hides_it() -> None:
    values = [0.01] * 400
    values[200] = 0.9
    found = an_evidence(verdict="fail", value=900.0)
    assert classes(chart(a_view(values), [found])).count("breach") == 1
    low = an_evidence(verdict="fail", value=10.0, bound=11.0, bound_name="min")
    assert classes(chart(a_view(values), [low])).count("breach") == 40


def test_a_gap_is_shaded_and_the_line_is_broken() -> None:
    times = [n * S for n in range(20)] + [n * S for n in range(60, 80)]
    svg = chart(a_view([0.01] * 40, times), [an_evidence()])
    assert classes(svg).count("course") == 2
    assert 18 <= classes(svg).count("gap") <= 21


def test_hostile_names_and_many_criteria_stay_harmless() -> None:
    found = [an_evidence(criterion=f"<b>&{n}", bound=float(n)) for n in range(50)]
    svg = chart(a_view([0.01, 0.02]), found)
    assert "<b>" not in svg and len(lines_of(found, a_view([0.1]).key)) == MOST_LINES
    assert classes(svg).count("bound") == MOST_LINES


def test_one_sample_and_equal_samples_are_drawn() -> None:
    for values in ([0.05], [0.05, 0.05], [0.0]):
        assert "nan" not in chart(a_view(values), [an_evidence(bound=0.0)])


def test_a_steady_series_has_no_gap_however_the_slices_fall() -> None:
    at = [n * 200_000 + (n * 7919) % 40_000 for n in range(15)]
    assert slices(at, [1.0] * 15).gaps == ()


def test_a_silence_is_a_gap() -> None:
    at = [n * 200_000 for n in range(40) if not 20 <= n < 30]
    assert slices(at, [1.0] * len(at)).gaps == tuple(range(15, 23))


def test_samples_of_one_instant_have_a_course() -> None:
    assert slices([5, 5, 5], [1.0, 2.0, 3.0]).means == (2.0, 2.0, 2.0)
