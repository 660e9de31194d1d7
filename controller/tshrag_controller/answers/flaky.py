"""Answers about boards that fail: board or build?"""

from tshrag_common import flaky_requests as fr
from tshrag_common.errors import NotFound
from tshrag_common.ids import DEFAULT_ORG
from tshrag_controller.answers.asker import Asker
from tshrag_controller.core.flaky import Board, Suspicion, boards
from tshrag_controller.core.people import Health
from tshrag_controller.engine import Engine, LabClock
from tshrag_controller.store import flaky_rows
from tshrag_controller.store.store import Store

MOST_SUSPICIONS = 50


class FlakyAnswers:
    """An org sees its own results; operators, and the lab's own org, those of all."""

    def __init__(self, engine: Engine, store: Store, clock: LabClock) -> None:
        self._engine, self._store, self._clock = engine, store, clock

    async def flaky(self, asker: Asker, asked: fr.AskFlaky) -> fr.FlakyAnswer:
        health = await self._engine.ask(
            lambda decision: {
                str(name): decision.lab.people.health.get(name, Health())
                for name in decision.lab.duts
            }
        )
        if asked.dut and asked.dut not in health:
            raise NotFound("dut", asked.dut, health)
        await self._store.wait_applied(self._engine.sequence)
        org = None if asker.is_operator or asker.org == DEFAULT_ORG else asker.org
        since = self._clock.now() - round(asked.days * 86400e6)
        found = boards(await self._store.query(lambda db: flaky_rows.results(db, org, since)))
        tried = {board.dut for board in found}
        found += [Board(name, 0, 0, 0, 0, ()) for name in sorted(health) if name not in tried]
        return fr.FlakyAnswer(
            boards=tuple(
                _view(board, health.get(board.dut, Health()))
                for board in found
                if asked.dut in ("", board.dut)
            )
        )


def _view(board: Board, health: Health) -> fr.BoardView:
    return fr.BoardView(
        dut=board.dut,
        passed=board.passed,
        failed=board.failed,
        errors=board.errors,
        flips=board.flips,
        suspicions=tuple(_suspicion(each) for each in board.suspicions[:MOST_SUSPICIONS]),
        checked_at=health.at,
        check=health.state,
        faults=health.faults,
    )


def _suspicion(each: Suspicion) -> fr.SuspicionView:
    return fr.SuspicionView(
        test=each.test,
        build=each.build,
        here=(each.here.passed, each.here.failed),
        elsewhere=(each.elsewhere.passed, each.elsewhere.failed),
        others=(each.others.passed, each.others.failed),
        verdict=each.verdict,
        why=each.why,
        run=each.run,
    )
