"""PURE: a run report as JUnit XML, as CI servers read it.

Each job is a case of the suite "jobs", each criterion one of "criteria". Characters that XML 1.0
does not know are shown escaped: one NUL of a console would make the whole file unreadable.
"""

import re

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from tshrag_common.criteria import Evidence
from tshrag_common.views import JobView
from tshrag_controller.reports.evidence import asked_text
from tshrag_controller.reports.gathered import RunReport, began_at
from tshrag_controller.reports.text import clean, decoded, instant

_ILLEGAL = re.compile(r"[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FAILED = ("failed",)
_SKIPPED = ("skipped", "expired", "cancelled")


def to_junit(report: RunReport) -> str:
    """Return the report as one XML document."""
    whole = JUnitXml(_legal(clean(report.run.name)))
    whole.add_testsuite(_jobs(report))
    if report.run.evidence:
        whole.add_testsuite(_criteria(report))
    whole.update_statistics()  # type: ignore[no-untyped-call]  # it has no types
    raw: bytes = whole.tostring()  # type: ignore[no-untyped-call]  # it has no types
    return raw.decode() + "\n"


def _jobs(report: RunReport) -> TestSuite:
    suite = _suite(report, "jobs")
    tails: dict[tuple[str, str], str] = {}
    for tail in report.tails:
        tails[tail.job, tail.stream] = decoded(tail.data)
    for job in report.jobs:
        case = TestCase(
            _legal(clean(job.name)), f"tshrag.{_legal(clean(report.run.name))}", _seconds(job)
        )
        result = _result(job)
        if result is not None:
            case.result = [result]
        if out := tails.get((job.id, "stdout")):
            case.system_out = _legal(out)
        if err := tails.get((job.id, "stderr")):
            case.system_err = _legal(err)
        suite.add_testcase(case)
    return suite


def _criteria(report: RunReport) -> TestSuite:
    suite = _suite(report, "criteria")
    for each in report.run.evidence:
        case = TestCase(
            _legal(clean(each.criterion)), f"tshrag.{_legal(clean(report.run.name))}.criteria", 0.0
        )
        result = _judged(each)
        if result is not None:
            case.result = [result]
        suite.add_testcase(case)
    return suite


def _suite(report: RunReport, name: str) -> TestSuite:
    suite = TestSuite(name)
    suite.timestamp = instant(began_at(report))
    suite.add_property("run", _legal(report.run.id))
    suite.add_property("state", _legal(report.run.state))
    for load in report.run.loads:
        suite.add_property(f"load.{_legal(clean(load.name))}", _legal(load.digest or load.builtin))
    return suite


def _result(job: JobView) -> Failure | Error | Skipped | None:
    if job.state == "passed":
        return None
    message = _legal(clean(job.error.message if job.error else job.state))
    kind = _legal(job.error.code if job.error else job.state)
    if job.state in _FAILED:
        return Failure(message, kind)
    if job.state in _SKIPPED:
        return Skipped(f"{_legal(job.state)}: {message}", kind)
    return Error(message, kind)


def _judged(evidence: Evidence) -> Failure | Error | Skipped | None:
    if evidence.verdict == "pass":
        return None
    made = Failure if evidence.verdict == "fail" else Error
    return made(_legal(clean(evidence.reason)), _legal(asked_text(evidence)))


def _seconds(job: JobView) -> float:
    if not job.started_at or not job.ended_at:
        return 0.0
    return round(max(0, job.ended_at - job.started_at) / 1e6, 6)


def _legal(text: str) -> str:
    return _ILLEGAL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
