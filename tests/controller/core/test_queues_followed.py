"""Whoever follows the LOG says of those who wait what its leader says."""

from hypothesis import given, settings, strategies as st

from tests.support.builders import S, TestLab, a_plan, a_spec
from tests.support.lab_drill import history
from tshrag_common.jobs import Need
from tshrag_common.states import JobState
from tshrag_controller.core.free_at import Span
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.outlook import outlook
from tshrag_controller.core.queues_followed import tidy
from tshrag_controller.core.replay import apply_frame
from tshrag_controller.core.revive import recorded, revive
from tshrag_controller.core.the_line import lines
from tshrag_controller.core.why import Explanation, explain

MINUTES = {"true": Span(60 * S, 120 * S, 300 * S)}
ONE_SLOT = a_spec(need=Need(slots=1))


def said(lab: Lab, now: int) -> list[Explanation]:
    return [explain(lab, job, now) for _, job in sorted(lab.jobs.items())]


def test_a_job_that_has_begun_stands_before_nobody_any_more() -> None:
    led = TestLab()
    led.hello(slots=1)
    for number in (1, 2, 3):
        led.submit(a_plan((), spec=ONE_SLOT), number)
    led.ended(led.fence(next(iter(led.lab.runs))))
    followed = Lab()
    for number, (at, events) in enumerate(led.frames, 1):
        apply_frame(followed, number, at, 0, events)  # type: ignore[arg-type]  # of a test
    last = max(followed.jobs)
    assert explain(led.lab, led.lab.jobs[last], led.now).ahead == 0
    assert sum(map(len, followed.indexes.ready.values())) == 3, "nobody has taken them out"
    tidy(followed, led.now)
    assert sum(map(len, followed.indexes.ready.values())) == 1
    assert explain(followed, followed.jobs[last], led.now).ahead == 0


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_a_follower_tells_of_the_line_what_a_leader_would_that_starts_now(seed: int) -> None:
    drill = history(seed)
    followed, fresh = drill.replayed, revive(recorded(drill.lab), drill.now)
    tidy(followed, drill.now)
    assert lines(followed, drill.now, MINUTES.get) == lines(fresh, drill.now, MINUTES.get)
    assert said(followed, drill.now) == said(fresh, drill.now)
    for name, job in fresh.jobs.items():
        run = fresh.runs[job.run]
        if job.state is JobState.WAITING and not job.missing and run.spec(job).is_placed:
            mine = outlook(followed, followed.jobs[name], drill.now, MINUTES.get)
            assert mine == outlook(fresh, job, drill.now, MINUTES.get)
