"""Channels: who may open one is decided here, and the agent is told; the bytes never come by."""

from functools import partial

from tshrag_common import ids
from tshrag_common.audit_requests import AuditAnswer, ListAudit
from tshrag_common.channel.wants import OPERATORS_ONLY
from tshrag_common.channel_requests import OpenChannel, OpenChannelAnswer
from tshrag_common.commands import ServeChannel
from tshrag_common.errors import InvalidId, shown
from tshrag_controller.answers.asker import Asker
from tshrag_controller.core.access import access
from tshrag_controller.core.decision import Decision, SendChannel
from tshrag_controller.engine import Engine
from tshrag_controller.store.channel_rows import audit
from tshrag_controller.store.store import Store

_SESSION_DIGITS = 32


class ChannelAnswers:
    """Opens channels. Nothing of it lies in the LOG: a channel does not outlive its two ends."""

    def __init__(self, engine: Engine, store: Store) -> None:
        self._engine, self._store = engine, store

    async def open(self, asker: Asker, asked: OpenChannel) -> OpenChannelAnswer:
        ids.token("person", asker.name)
        session = ids.token("session", asked.session)
        if len(session) != _SESSION_DIGITS:
            what = f"{shown(session)} is no session: {_SESSION_DIGITS} random digits are needed"
            raise InvalidId("channel", what)
        if isinstance(asked.want, OPERATORS_ONLY):
            asker.must_operate("exec")
        return await self._engine.ask(lambda decision: _open(decision, asker, asked))

    async def audit(self, asker: Asker, asked: ListAudit) -> AuditAnswer:
        """Return what was done: all of it to operators, what his own org did to another."""
        await self._store.wait_applied(self._engine.sequence)
        org = "" if asker.is_operator else asker.org
        return await self._store.query(partial(audit, asked=asked, org=org))


def _open(decision: Decision, asker: Asker, asked: OpenChannel) -> OpenChannelAnswer:
    dut = ids.dut_id(asked.dut) if asked.dut else None
    agent = ids.agent_id(asked.agent) if asked.agent else None
    granted = access(decision.lab, asker.org, asker.name, dut, agent, write=asked.write)
    command = ServeChannel(
        org=asker.org,
        person=asker.name,
        session=asked.session,
        want=asked.want,
        dut=dut,
        fence=granted.fence,
    )
    decision.then(SendChannel(granted.agent, command))
    return OpenChannelAnswer(
        agent=granted.agent, person=asker.name, fence=granted.fence, until=granted.until
    )
