"""Run reports: harmless whatever is in them, the same each time, readable by strict readers."""

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from html.parser import HTMLParser

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from tests.support.run_reports import (
    HOSTILE,
    a_job,
    a_report,
    a_run,
    a_series,
    evidence,
    hostile_report,
)
from tshrag_common.errors import ErrorReport
from tshrag_controller.reports.document import to_json
from tshrag_controller.reports.gathered import LogTail, RunReport, judged_first
from tshrag_controller.reports.html import to_html
from tshrag_controller.reports.junit import to_junit
from tshrag_controller.reports.markdown import escaped, to_markdown
from tshrag_controller.reports.table import to_text

Renderer = Callable[[RunReport], str]
ALL: tuple[Renderer, ...] = (to_text, to_markdown, to_json, to_junit, to_html)
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
TAGS = {
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "span", "table",
    "thead", "tbody", "tr", "th", "td", "code", "pre", "svg", "rect", "text", "line", "polyline",
    "circle", "polygon",
}  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "http-equiv", "content", "name", "class", "width", "height", "role",
    "aria-label", "viewbox", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "points",
    "text-anchor",
}  # fmt: skip


class _Page(HTMLParser):
    """What a browser would see."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def page_of(html: str) -> _Page:
    page = _Page()
    page.feed(html)
    page.close()
    assert page.open == []
    return page


@pytest.mark.parametrize("render", ALL)
def test_the_same_run_gives_the_same_bytes(render: Renderer) -> None:
    assert render(hostile_report()) == render(hostile_report())


@pytest.mark.parametrize("render", ALL)
def test_no_control_character_gets_through(render: Renderer) -> None:
    found = CONTROLS.findall(render(hostile_report()))
    assert not found, [ascii(each) for each in found]


def test_html_holds_only_the_markup_of_ours_whatever_the_names_are() -> None:
    page = page_of(to_html(hostile_report()))
    assert set(page.tags) <= TAGS
    assert {name for name, _ in page.attributes} <= ATTRIBUTES
    assert not any(name.startswith("on") or name in ("href", "src") for name, _ in page.attributes)
    assert not any(text.startswith("javascript:") for name, text in page.attributes)


def test_html_shows_hostile_names_as_the_text_they_are() -> None:
    text = "".join(page_of(to_html(hostile_report())).texts)
    assert HOSTILE[0] in text
    assert HOSTILE[1] in text


def test_html_forbids_itself_every_source_and_fetches_nothing() -> None:
    page = to_html(hostile_report())
    assert "Content-Security-Policy\" content=\"default-src 'none'" in page
    assert not re.search(r"<(script|link|iframe|img|object|embed|base|form)\b", page)
    assert "url(" not in page
    assert "@import" not in page


def test_html_draws_the_bound_that_decided() -> None:
    report = a_report(run=a_run(evidence=(evidence(),)), series=(a_series(),))
    assert to_html(report).count('class="bound"') == 2, "beside the metric, and in its chart"
    assert 'class="bound"' not in to_html(a_report())


def test_html_shows_the_chart_of_what_was_judged_beside_the_verdict() -> None:
    report = a_report(run=a_run(evidence=(evidence(),)), series=(a_series(),))
    verdict, _, rest = to_html(report).partition("<h2>Jobs</h2>")
    assert 'class="chart"' in verdict
    assert 'class="chart"' not in rest


def test_what_was_judged_stands_before_what_the_lab_measured_beside_it() -> None:
    judged = evidence()
    keys = ("attempt.cpu", "dut.one.load.avg1", "net.sent", judged.metric, "zoo.count")
    series = [msgspec.structs.replace(a_series(), key=key) for key in keys]
    found = [each.key for each in judged_first([judged], series)]
    assert found == [judged.metric, "net.sent", "zoo.count", "attempt.cpu", "dut.one.load.avg1"]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_no_text_whatever_makes_markup_of_html(text: str) -> None:
    report = a_report(
        run=a_run(name=text, reason=text, evidence=(evidence(text, reason=text),)),
        jobs=(a_job(name=text, what=text, error=ErrorReport(code="exit", message=text)),),
    )
    plain = page_of(to_html(a_report(run=a_run(reason="x", evidence=(evidence(),)))))
    assert set(page_of(to_html(report)).tags) <= set(plain.tags)


def test_junit_is_read_by_a_strict_parser_and_counts_what_failed() -> None:
    root = ElementTree.fromstring(to_junit(hostile_report()))
    suites = {suite.get("name"): suite for suite in root.iter("testsuite")}
    assert suites["jobs"].get("tests") == suites["jobs"].get("failures") == str(len(HOSTILE))
    assert suites["criteria"].get("failures") == str(len(HOSTILE))
    names = [case.get("name") for case in suites["jobs"].iter("testcase")]
    assert names[0] == HOSTILE[0]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.binary(max_size=60))
def test_no_text_and_no_output_breaks_junit(text: str, output: bytes) -> None:
    job = a_job(name=text, state="failed", error=ErrorReport(code="exit", message=text))
    tail = LogTail(job=job.id, attempt=1, stream="stdout", total=len(output), data=output)
    made = to_junit(
        a_report(run=a_run(name=text, evidence=(evidence(),)), jobs=(job,), tails=(tail,))
    )
    assert ElementTree.fromstring(made).tag == "testsuites"


@pytest.mark.parametrize(
    ("state", "tag"),
    [("passed", ""), ("failed", "failure"), ("error", "error"), ("timeout", "error"),
     ("cancelled", "skipped"), ("skipped", "skipped")],
)  # fmt: skip
def test_junit_tells_a_failure_from_an_error_and_from_what_was_left_out(
    state: str, tag: str
) -> None:
    root = ElementTree.fromstring(to_junit(a_report(jobs=(a_job(state=state),))))
    case = next(root.iter("testcase"))
    assert [child.tag for child in case] == ([tag] if tag else [])


def test_a_criterion_without_data_is_an_error_in_junit() -> None:
    run = a_run(state="error", evidence=(evidence(verdict="error", value=None, margin=None),))
    root = ElementTree.fromstring(to_junit(a_report(run=run)))
    suite = next(each for each in root.iter("testsuite") if each.get("name") == "criteria")
    assert suite.get("errors") == "1"


def test_markdown_has_no_links_no_html_and_no_cell_too_many() -> None:
    made = to_markdown(hostile_report())
    outside = [line for line in made.splitlines() if not line.startswith("    ")]
    text = re.sub(r"(?<!\\)`[^`]*`", "", "\n".join(outside))  # code spans hold no markup
    tags = re.findall(r"<(?!/?details>|/?summary>)\w*", text)
    assert tags == []
    assert "](http" not in text
    for line in outside:
        if line.startswith("| ") and "criterion" not in line:
            assert line.count(" | ") >= 3
    assert "@everyone" not in "\n".join(outside)


def test_markdown_escapes_every_sign_that_means_something() -> None:
    assert escaped("a|b*c_d`e") == r"a\|b\*c\_d\`e"
    assert escaped("<b>") == "&lt;b&gt;"


def test_markdown_shows_first_what_did_not_pass() -> None:
    made = to_markdown(a_report(jobs=(a_job(1), a_job(2, state="failed"))))
    rows = [line for line in made.splitlines() if "seq" in line]
    assert rows[0].startswith("| 2 |")


def test_json_names_its_form_and_holds_the_run() -> None:
    made = json.loads(to_json(a_report()))
    assert made["format"] == "tshrag.run-report/1"
    assert made["run"]["id"] == a_run().id


def test_text_shows_value_bound_margin_and_samples() -> None:
    made = to_text(a_report(run=a_run(state="failed", evidence=(evidence(),))))
    line = next(line for line in made.splitlines() if line.startswith("latency"))
    assert line.split("  ")[0] == "latency"
    for part in ("fail", "200 ms", "≤ 150 ms", "-50 ms", "60", "avg of network.latency"):
        assert part in line


def test_text_draws_a_bar_where_the_job_was_in_the_run() -> None:
    early = a_job(1, started_at=a_run().started_at, ended_at=a_run().started_at + 100_000)
    late = a_job(2, started_at=a_run().ended_at - 100_000, ended_at=a_run().ended_at)
    made = to_text(a_report(jobs=(early, late)))
    bars = [line.split("|")[1] for line in made.splitlines() if line.count("|") == 2]
    assert bars[0].startswith("█")
    assert bars[1].endswith("█")
    assert bars[1].startswith(" ")


def test_a_run_without_a_single_job_that_began_has_a_report() -> None:
    nothing = a_report(
        run=a_run(state="cancelled", started_at=0, ended_at=0, counts={}),
        jobs=(a_job(state="cancelled", started_at=0, ended_at=0, attempts=()),),
        series=(),
    )
    for render in ALL:
        assert render(nothing)
