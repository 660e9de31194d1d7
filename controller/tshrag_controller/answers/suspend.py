"""Answers that hold runs back, let them go, move their windows."""

from tshrag_common import suspend_requests as sr
from tshrag_common.ids import JobId, RunId, run_of
from tshrag_controller.answers.asker import Asker
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.on_suspend import on_hold, on_let_go, on_reschedule
from tshrag_controller.engine import Engine


class SuspendAnswers:
    """For the runs of the asker's own org."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def hold(self, asker: Asker, asked: sr.Hold) -> sr.HeldAnswer:
        jobs = await self._engine.ask(
            lambda each: on_hold(each, asker.org, asker.person, asked.id, asked.reason)
        )
        return sr.HeldAnswer(run=_run(asked.id), jobs=jobs)

    async def let_go(self, asker: Asker, asked: sr.LetGo) -> sr.HeldAnswer:
        jobs = await self._engine.ask(
            lambda each: on_let_go(each, asker.org, asker.person, asked.id)
        )
        return sr.HeldAnswer(run=_run(asked.id), jobs=jobs)

    async def reschedule(self, asker: Asker, asked: sr.Reschedule) -> sr.WindowAnswer:
        def decide(each: Decision) -> sr.WindowAnswer:
            window = (asked.not_before, asked.deadline)
            run = on_reschedule(each, asker.org, asker.person, asked.run, *window)
            return sr.WindowAnswer(run=run.id, not_before=run.not_before, deadline=run.deadline)

        return await self._engine.ask(decide)


def _run(name: str) -> RunId:
    return run_of(JobId(name)) if name.startswith("job-") else RunId(name)
