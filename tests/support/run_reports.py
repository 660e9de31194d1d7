"""Views as a controller answers them, made by hand: hostile wherever others may write."""

from tshrag_common import ids
from tshrag_common.criteria import Evidence
from tshrag_common.errors import ErrorReport
from tshrag_common.jobs import LoadRef
from tshrag_common.views import AttemptView, JobView, RunView, SeriesView
from tshrag_controller.reports.gathered import HostView, LogTail, RunReport

T0 = 1_800_000_000_000_000
RUN = ids.new_run(1_800_000_000_000, 7)
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></style></pre><svg onload=alert(1)>",
    "javascript:alert(1)",
    "{{7*7}} ${x} `id` $(id)",
    "]]> --> <!-- &lt;b&gt; &amp;",
    "\x1b]52;c;aGFjaw==\x07\x1b[2J\x1b]8;;http://evil/\x07link",
    "\x00\x08\r\x7f\x9b31m",
    "\u202egnp.exe\u2066\u200f\ufeff\u2028\u2029",
    '=HYPERLINK("http://evil")',
    "@everyone +1 -1 |a|b| [x](http://evil) ![y](http://evil)",
    "日本語 wide 👩‍🔬",
    "::metric x 1\n::end",
)


def an_attempt(number: int = 1, **more: object) -> AttemptView:
    fields = {
        "number": number, "fence": 7, "agent": "a1", "state": "ended", "outcome": "passed",
        "assigned_at": T0, "started_at": T0 + 100_000, "ended_at": T0 + 900_000, "exit_code": 0,
        **more,
    }  # fmt: skip
    return AttemptView(**fields)  # type: ignore[arg-type]  # fields of any type


def a_job(serial: int = 1, **more: object) -> JobView:
    fields = {
        "id": ids.job_of(RUN, serial), "run": RUN, "serial": serial, "name": f"*seq.job{serial}",
        "kind": "command", "what": "true", "state": "passed", "started_at": T0 + 100_000,
        "ended_at": T0 + 900_000, "attempts": (an_attempt(),), **more,
    }  # fmt: skip
    return JobView(**fields)  # type: ignore[arg-type]  # fields of any type


def a_run(**more: object) -> RunView:
    fields = {
        "id": RUN, "name": "smoke", "org": "default", "by": "jo", "state": "passed",
        "priority": 50, "created_at": T0, "started_at": T0 + 100_000, "ended_at": T0 + 2_000_000,
        "total": 1, "counts": {"passed": 1}, **more,
    }  # fmt: skip
    return RunView(**fields)  # type: ignore[arg-type]  # fields of any type


def evidence(name: str = "latency", **more: object) -> Evidence:
    fields = {
        "criterion": name, "metric": "network.latency", "statistic": "avg", "verdict": "fail",
        "reason": "avg of network.latency is 200 ms, above max 150 ms", "value": 200.0,
        "bound": 150.0, "bound_name": "max", "margin": -50.0, "unit": "ms", "samples": 60, **more,
    }  # fmt: skip
    return Evidence(**fields)  # type: ignore[arg-type]  # fields of any type


def a_series(key: str = "network.latency", **more: object) -> SeriesView:
    fields = {
        "key": key, "job": "", "attempt": 0, "agent": "a1", "unit": "ms", "count": 60,
        "stats": {"avg": 0.2, "min": 0.1, "max": 0.3, "p95": 0.29, "last": 0.15},
        "spark": (0.1, 0.2, 0.3, 0.2), **more,
    }  # fmt: skip
    return SeriesView(**fields)  # type: ignore[arg-type]  # fields of any type


def a_report(**more: object) -> RunReport:
    fields = {
        "run": a_run(), "jobs": (a_job(),), "series": (a_series(),), "version": "0.1.0", **more,
    }  # fmt: skip
    return RunReport(**fields)  # type: ignore[arg-type]  # fields of any type


def hostile_report() -> RunReport:
    """Return a report in which every text of others is an attack."""
    jobs = tuple(
        a_job(
            serial,
            name=text,
            what=text,
            state="failed",
            target=text,
            error=ErrorReport(code="exit", message=text),
            attempts=(an_attempt(agent=text, dut=text, notices=(text,), outcome="failed"),),
        )
        for serial, text in enumerate(HOSTILE, 1)
    )
    every = "\n".join(HOSTILE)
    load = LoadRef(name=HOSTILE[0], digest="a" * 64, source=HOSTILE[1], commit=HOSTILE[2])
    return RunReport(
        run=a_run(
            name=every,
            by=every,
            org=HOSTILE[0],
            state="failed",
            reason=every,
            total=len(jobs),
            counts={HOSTILE[0]: 3, "failed": 2},
            evidence=tuple(
                evidence(text, reason=text, group=text, unit=text, metric=text) for text in HOSTILE
            ),
            loads=(load,),
        ),
        jobs=jobs,
        series=tuple(a_series(text, unit=text) for text in HOSTILE),
        tails=tuple(
            LogTail(
                job=job.id,
                attempt=1,
                stream="stdout",
                total=9_000,
                data=text.encode("utf-8", "surrogatepass") + b"\xff\xfe\x00\n",
            )
            for job, text in zip(jobs, HOSTILE, strict=True)
        ),
        hosts=(HostView(agent=HOSTILE[0], version=HOSTILE[1], platform=HOSTILE[2]),),
        profile_digest="b" * 64,
        version="0.1.0",
        omitted=(HOSTILE[0],),
    )
