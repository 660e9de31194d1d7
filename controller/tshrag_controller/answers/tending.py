"""Answers about the store of samples as a whole."""

from tshrag_common import store_requests as r
from tshrag_controller.answers.asker import Asker
from tshrag_controller.store import queries, tend
from tshrag_controller.store.keep import Keeper
from tshrag_controller.store.store import Store


class StoreAnswers:
    """What operators ask of the store; none of it takes anything away before its time."""

    def __init__(self, store: Store, keeper: Keeper) -> None:
        self._store, self._keeper = store, keeper

    async def status(self, _: Asker, __: r.StoreAbout) -> r.StoreStatus:
        places = await self._store.query(tend.places)
        counters = await self._store.query(queries.counters)
        rules = self._keeper.rules
        return r.StoreStatus(
            places=places,
            cold_url=self._keeper.cold_url,
            hot_days=rules.hot_days,
            cold_days=rules.cold_days,
            trouble=self._keeper.trouble or self._store.degraded,
            counters={
                name: count
                for name, count in counters.items()
                if name in ("samples", "series_overflow")
            },
        )

    async def do(self, _: Asker, asked: r.StoreDo) -> r.StoreDone:
        if asked.what == "verify":
            whole, problems = await tend.verify(self._store, self._keeper)
            return r.StoreDone(counts={"whole": whole}, problems=tuple(problems))
        if asked.what == "import":
            taken, samples, problems = await tend.take_up(self._store, self._keeper)
            return r.StoreDone(
                counts={"imported": taken, "samples": samples}, problems=tuple(problems)
            )
        moved = await self._keeper.round(everything=asked.what == "seal")
        return r.StoreDone(counts={name: getattr(moved, name) for name in moved.__struct_fields__})
