"""By which way an attempt is made: in the agent, on its host, on a DUT; or not at all."""

import logging

from tshrag_agent.attempts.attempt import Attempt, Steps
from tshrag_agent.attempts.board_steps import BoardSteps
from tshrag_agent.attempts.builtins import BuiltinSteps
from tshrag_agent.attempts.dut_steps import DutPlace, DutSteps
from tshrag_agent.attempts.setups import Leaving
from tshrag_agent.attempts.steps import HostSteps, Site
from tshrag_agent.boards.boards import Boards
from tshrag_agent.duts import Duts
from tshrag_agent.gang.gangs import Joining, Voice
from tshrag_common.errors import LabError, Refused

logger = logging.getLogger(__name__)


class Impossible:
    """The steps of an attempt that this agent has no way for: its DUT is not configured any more.

    The journal may hold such an attempt when `agent.toml` was changed after a crash.
    """

    def __init__(self, error: LabError) -> None:
        self._error = error

    async def work(self) -> None:
        raise self._error

    async def clean_up(self) -> None:
        """Nothing of it was ever begun here."""


def _not_opened(error: OSError) -> LabError:
    return Refused("dut", str(error), "see [dut] in agent.toml", code="no_transport")


def _voice_of(steps: Steps) -> Voice:
    if isinstance(steps, HostSteps):
        return "socket"
    return "wire" if isinstance(steps, DutSteps) and steps.can_converse else "none"


class Ways:
    """The ways of one agent."""

    def __init__(self, site: Site, duts: Duts, boards: Boards) -> None:
        self._site, self._duts, self._boards = site, duts, boards

    def steps(self, attempt: Attempt) -> Steps:
        """Choose how an attempt is made; one that cannot be made here ends with the reason."""
        steps: Steps
        voice: Voice = "none"
        try:
            steps = self._possible(attempt)
            voice = _voice_of(steps)
            steps = Leaving(attempt, steps, self._site.setups)
        except (LabError, OSError) as error:
            logger.error("an attempt is not possible here", extra={**attempt.facts})
            steps = Impossible(error if isinstance(error, LabError) else _not_opened(error))
        if self._site.gangs is None or not attempt.start.mates:
            return steps
        return Joining(attempt, steps, self._site.gangs, voice)

    def _possible(self, attempt: Attempt) -> Steps:
        spec, dut = attempt.spec, attempt.start.dut
        if dut is not None:
            self._boards.used_by(dut, f"{attempt.start.run}/{attempt.start.fence}")
        if spec.board is not None and dut is not None:
            return BoardSteps(attempt, self._site, self._boards, self._duts)
        if spec.load is not None and spec.load.builtin:
            return BuiltinSteps(attempt, self._site.journal, self._site.clock)
        if dut is None or self._duts.is_host(dut, spec.need.target.runtime):
            return HostSteps(attempt, self._site)
        transport = self._duts.transport(dut, spec.need.target.runtime)
        table = self._duts.table(dut)
        return DutSteps(
            attempt,
            self._site,
            DutPlace(dut, transport, table.os, table.arch, self._boards.board(dut)),
        )
