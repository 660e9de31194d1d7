"""Answers to operators who hold a drill; the settings of who suffers it must allow it."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable

from tshrag_common.commands import RunDrill
from tshrag_common.drill_requests import Drill, DrillAnswer
from tshrag_common.errors import NotFound, PolicyDenied, Refused, Unavailable
from tshrag_common.ids import AgentId
from tshrag_common.states import AgentState
from tshrag_controller.answers.asker import Asker
from tshrag_controller.core.decision import Decision, SendDrill
from tshrag_controller.engine import Engine

logger = logging.getLogger(__name__)

ANSWER_FIRST_S = 0.3
"""The answer must be out before the process that gives it ends."""


def end_in_order() -> None:
    """Do what a supervisor does that restarts us; it starts the next one."""
    os.kill(os.getpid(), signal.SIGTERM)


class DrillAnswers:
    """Lets things happen on purpose."""

    def __init__(
        self, engine: Engine, node: str, allowed: bool, end: Callable[[], None] = end_in_order
    ) -> None:
        self._engine, self._node, self._allowed, self._end = engine, node, allowed, end

    async def drill(self, asker: Asker, asked: Drill) -> DrillAnswer:
        asker.must_operate("drill")
        facts = {"what": asked.what, "agent": asked.agent, "by": asker.person}
        if asked.what == "restart-controller":
            if not self._allowed:
                raise _off(f"controller {self._node}", "[controller] drills = true")
            target = self._node
            asyncio.get_running_loop().call_later(ANSWER_FIRST_S, self._end)
        else:
            if asked.what == "cut-link" and not asked.seconds:
                raise Refused("seconds", "for how long?", "--for 20s", code="range")
            target = await self._engine.ask(lambda decision: _send(decision, asked))
        logger.warning("a drill begins", extra=facts)
        epoch = self._engine.epoch
        return DrillAnswer(what=asked.what, target=target, epoch=epoch, by=asker.person)


def _send(decision: Decision, asked: Drill) -> str:
    name = AgentId(asked.agent)
    agent = decision.lab.agents.get(name)
    if agent is None:
        raise NotFound("agent", asked.agent, decision.lab.agents)
    if not agent.facts.drills:
        raise _off(f"agent {name}", "[agent] drills = true")
    if agent.state is not AgentState.ONLINE:
        what = f"it is {agent.state}: nobody could tell the drill from what is wrong already"
        raise Unavailable(f"agent {name}", what, code="agent_away")
    kills = asked.what == "kill-agent"
    command = RunDrill(what="kill" if kills else "cut", seconds=asked.seconds)
    decision.then(SendDrill(name, command))
    return name


def _off(where: str, setting: str) -> PolicyDenied:
    fix = f"set {setting} there, and let its supervisor start it again"
    return PolicyDenied(where, "its settings allow no drills", fix, code="drills_off")
