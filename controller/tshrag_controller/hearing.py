"""What a controller hears on the bus: a standby those who only read, the leader everything."""

import logging
from collections.abc import Callable

from tshrag_common import subjects
from tshrag_common.asking import READS
from tshrag_common.bus.client import Subscription
from tshrag_common.bus.connection import Bus
from tshrag_common.bus.messages import Message
from tshrag_controller.intake.served import Served

logger = logging.getLogger(__name__)

QUEUE = "controllers"
"""Of a question each of them could answer, one controller is asked."""


class Hearing:
    """The subscriptions of one term."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._subscriptions: list[Subscription] = []

    async def as_standby(
        self,
        pulse: Callable[[Message], None],
        beat: Callable[[Message], None],
        requests: Served,
    ) -> None:
        """Hear pulses and beats, and whoever only reads; that goes on when we lead."""
        await self._hear(subjects.ctl_heartbeat(), pulse)
        await self._hear(subjects.any_said("hb"), beat)
        for verb in sorted(READS):
            await self._hear(subjects.req_verb(verb), requests.hear, QUEUE)
        await self._bus.settled()

    async def as_leader(self, lead: Served, blobs: Served, requests: Served) -> None:
        """Hear what the leader alone answers, too."""

        def request(message: Message) -> None:
            if message.subject.rpartition(".")[2] not in READS:  # those come by the queue
                requests.hear(message)

        await self._hear(subjects.ctl_lead(), lead.hear)
        await self._hear(subjects.any_said("blob"), blobs.hear)
        await self._hear(subjects.any_req(), request)
        await self._bus.settled()

    async def end(self) -> None:
        for subscription in self._subscriptions:
            await subscription.end()

    async def _hear(
        self, subject: str, callback: Callable[[Message], None], queue: str = ""
    ) -> None:
        self._subscriptions.append(await self._bus.subscribe(subject, callback, queue))
