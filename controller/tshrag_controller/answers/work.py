"""Answers about the work that the lab has had."""

import msgspec

from tshrag_common.ids import DEFAULT_ORG
from tshrag_common.work_requests import AskWork, WorkAnswer
from tshrag_controller.answers.asker import Asker
from tshrag_controller.engine import Engine, LabClock
from tshrag_controller.store import work_rows
from tshrag_controller.store.store import Store


class WorkAnswers:
    """An org sees its own jobs; operators, and the lab's own org, those of all."""

    def __init__(self, engine: Engine, store: Store, clock: LabClock) -> None:
        self._engine, self._store, self._clock = engine, store, clock

    async def work(self, asker: Asker, asked: AskWork) -> WorkAnswer:
        policy = await self._engine.ask(lambda decision: decision.lab.policy)
        await self._store.wait_applied(self._engine.sequence)
        org = None if asker.is_operator or asker.org == DEFAULT_ORG else asker.org
        until = asked.until or self._clock.now() + 1
        rows, more = await self._store.query(lambda db: work_rows.rows(db, org, asked, until))
        return WorkAnswer(
            rows=tuple(rows), more=more, policy=msgspec.Raw(msgspec.json.encode(policy))
        )
