"""Answers about the store of samples as a whole."""

from tshrag_common import store_requests as r
from tshrag_controller.answers.asker import Asker
from tshrag_controller.core.store_events import StoreTended
from tshrag_controller.engine import Engine
from tshrag_controller.store import queries, tend, tended_rows
from tshrag_controller.store.keep import Keeper
from tshrag_controller.store.store import Store


class StoreAnswers:
    """What people ask of the store; what changes it is an operator's, and stays on record."""

    def __init__(self, engine: Engine, store: Store, keeper: Keeper) -> None:
        self._engine, self._store, self._keeper = engine, store, keeper

    async def status(self, _: Asker, __: r.StoreAbout) -> r.StoreStatus:
        places = await self._store.query(tend.places)
        counters = await self._store.query(queries.counters)
        deeds = await self._store.query(tended_rows.deeds)
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
            deeds=deeds,
        )

    async def do(self, asker: Asker, asked: r.StoreDo) -> r.StoreDone:
        """Do it for an operator of the lab, and put it on record."""
        asker.must_operate(f"store {asked.what}")
        done = await self._do(asked)
        counts = (f"{count} {name}" for name, count in done.counts.items() if count)
        problems = f"; {len(done.problems)} problems" if done.problems else ""
        told = (", ".join(counts) or "nothing to do") + problems
        event = StoreTended(by=asker.person, what=asked.what, told=told)
        await self._engine.ask(lambda decision: decision.happen(event))
        return done

    async def _do(self, asked: r.StoreDo) -> r.StoreDone:
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
