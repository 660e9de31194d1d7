"""Answers to a person who gives up an attempt whose agent is away."""

from collections.abc import Mapping

from tshrag_common.errors import Refused
from tshrag_common.ids import DutId
from tshrag_common.resolve_requests import Resolve, ResolveAnswer
from tshrag_controller.answers.asker import Asker
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.on_lease import Resolving, may_resolve, on_resolve, resolving
from tshrag_controller.engine import Engine
from tshrag_controller.outlets import Outlets
from tshrag_controller.settings import OutletTable


class ResolveAnswers:
    """The word of a person, where no machine can know; or that of an outlet."""

    def __init__(self, engine: Engine, outlets: Mapping[str, OutletTable]) -> None:
        self._engine, self._outlets = engine, Outlets(outlets)

    async def resolve(self, asker: Asker, asked: Resolve) -> ResolveAnswer:
        """Tell what it means; with ``lost`` and a reason, or a power cycle that is seen, do it."""
        reason = " ".join(asked.reason.split())
        if asked.lost and not reason and not asked.power_cycle:
            fix = "say why nothing of it can be alive: --reason 'powered off by hand'"
            raise Refused("reason", "it is missing", fix, code="reason_missing")
        if asked.power_cycle:
            reason = await self._cycled(asker, asked.attempt, reason)
        does = asked.lost or asked.power_cycle

        def decide(decision: Decision) -> Resolving:
            if does:
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
            done=does,
            by=asker.name if does else "",
        )

    async def _cycled(self, asker: Asker, name: str, reason: str) -> str:
        """Switch the DUT of an attempt off and on; return what was seen, for the record."""
        found = await self._engine.ask(lambda decision: may_resolve(decision.lab, asker.org, name))
        dut = found.attempt.dut
        self._outlets.of(dut)
        await self._outlets.cycle(DutId(dut or ""))
        seen = f"power of {dut} was seen off and on again"
        return f"{seen}; {reason}" if reason else seen
