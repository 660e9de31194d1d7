"""What the settings ask for: a listener, a pusher, both or none."""

import asyncio
import logging
import os

from tshrag_controller.answers.lab import LabAnswers
from tshrag_controller.engine import Engine
from tshrag_controller.prometheus.http import CannotListen, Listener
from tshrag_controller.prometheus.lab import LabMetrics, Latest
from tshrag_controller.prometheus.push import Pusher, Target
from tshrag_controller.pulling import Loops
from tshrag_controller.settings import PrometheusTable
from tshrag_controller.store.keep import EVERYWHERE, Keeper
from tshrag_controller.store.store import Store

logger = logging.getLogger(__name__)

TOKEN = "TSHRAG_REMOTE_WRITE_TOKEN"
AGAIN_S = 5.0


class Prometheus:
    """Their loops, what is amiss with them, what they count."""

    def __init__(
        self, table: PrometheusTable, store: Store, keeper: Keeper, engine: Engine, lab: LabAnswers
    ) -> None:
        self._listener: Listener | None = None
        self.pusher: Pusher | None = None
        self._trouble = ""
        if table.listen:
            latest = Latest()
            store.tap(latest.hear)
            self._listener = Listener(table.listen, LabMetrics(engine, lab, latest).text)
        if table.remote_write:
            token = os.environ.get(TOKEN, "")
            target = Target(url=table.remote_write, token=token, max_age_s=table.max_age_s)
            self.pusher = pusher = Pusher(store, target)
            keeper.copied = lambda: pusher.place if pusher.active else EVERYWHERE

    @property
    def port(self) -> int:
        return self._listener.port if self._listener else 0

    def always(self) -> Loops:
        """Return what runs in every controller: a standby is scraped too."""
        loops: Loops = {}
        if self._listener is not None:
            loops["metrics-http"] = self._listen(self._listener)
        if self.pusher is not None:
            loops["remote-write-trail"] = self.pusher.watch()
        return loops

    def leading(self) -> Loops:
        """Return what the leader alone does: samples are pushed once."""
        return {} if self.pusher is None else {"remote-write": self.pusher.push()}

    def copied_at(self) -> int:
        """Tell the others before which instant all samples are at the remote side."""
        return self.pusher.copied_at if self.pusher else 0

    def follow(self, copied_at: int) -> None:
        """Hear how far the leader has copied."""
        if self.pusher is not None:
            self.pusher.follow(copied_at)

    async def _listen(self, listener: Listener) -> None:
        """Serve; a port that is taken is tried again, and told: the lab goes on without it."""
        while True:
            try:
                await listener.serve()
            except CannotListen as error:
                self._trouble = error.line
                logger.warning("metrics are not served", extra={"why": error.line})
                await asyncio.sleep(AGAIN_S)

    def troubles(self) -> list[str]:
        return [self._trouble, self.pusher.trouble if self.pusher else ""]

    def counters(self) -> dict[str, int]:
        if self.pusher is None:
            return {}
        return {
            "remote_write.sent": self.pusher.sent,
            "remote_write.refused": self.pusher.refused,
        }
