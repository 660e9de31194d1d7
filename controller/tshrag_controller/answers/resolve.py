"""Answers to a person who gives up an attempt whose agent is away."""

from tshrag_common.errors import Refused
from tshrag_common.resolve_requests import Resolve, ResolveAnswer
from tshrag_controller.answers.asker import Asker
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.on_lease import Resolving, on_resolve, resolving
from tshrag_controller.engine import Engine


class ResolveAnswers:
    """The word of a person, where no machine can know."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def resolve(self, asker: Asker, asked: Resolve) -> ResolveAnswer:
        """Tell what it means; with ``lost`` and a reason, do it."""
        reason = " ".join(asked.reason.split())
        if asked.lost and not reason:
            fix = "say why nothing of it can be alive: --reason 'powered off by hand'"
            raise Refused("reason", "it is missing", fix, code="reason_missing")

        def decide(decision: Decision) -> Resolving:
            if asked.lost:
                return on_resolve(decision, asker.org, asked.attempt, asker.name, reason)
            return resolving(decision.lab, asker.org, asked.attempt)

        found = await self._engine.ask(decide)
        attempt = found.attempt
        return ResolveAnswer(
            job=attempt.job,
            attempt=attempt.number,
            fence=attempt.fence,
            agent=attempt.agent,
            agent_state=found.agent_state,
            state=attempt.state,
            frees=found.frees,
            dut=attempt.dut or "",
            job_open=found.is_job_open,
            gives_up_at=found.gives_up_at,
            done=asked.lost,
            by=asker.name if asked.lost else "",
        )
