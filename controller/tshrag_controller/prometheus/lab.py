"""What the lab says of itself: queue, agents, leases, ingest, log lag; newest values of hosts.

Labels are states, agents, DUTs, keys of hosts; never a run or a job, whose number grows for ever.
"""

from collections.abc import Iterator

from tshrag_common import requests as r
from tshrag_common.ids import DEFAULT_ORG
from tshrag_common.metrics import SampleBatch
from tshrag_common.setup_stats import SetupStats
from tshrag_controller.answers.asker import Asker
from tshrag_controller.answers.lab import LabAnswers
from tshrag_controller.core.decision import Decision
from tshrag_controller.engine import Engine
from tshrag_controller.prometheus.text import Family, Labels, by, exposition, one

MOST_LATEST = 10_000
_SELF = Asker(DEFAULT_ORG, "prometheus")


class Latest:
    """The newest sample of each series of a host or an idle DUT."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str, str], tuple[int, float]] = {}
        self.overflow = 0

    def hear(self, agent: str, batches: tuple[SampleBatch, ...]) -> None:
        for batch in batches:
            for series in batch.series if not batch.job else ():
                times, values = series.columns()
                newest = max(range(len(times)), key=times.__getitem__)
                self._put((series.key, agent, batch.dut), times[newest], values[newest])

    def _put(self, place: tuple[str, str, str], at: int, value: float) -> None:
        known = self._values.get(place)
        if known is None and len(self._values) >= MOST_LATEST:
            self.overflow += 1
        elif known is None or at >= known[0]:
            self._values[place] = (at, value)

    def family(self) -> Family:
        values = tuple(
            (_place(key, agent, dut), value)
            for (key, agent, dut), (_, value) in sorted(self._values.items())
        )
        about = "Newest sample of a host or an idle DUT, in the base unit of its metric."
        return Family("tshrag_sample", "gauge", about, values)


def _place(key: str, agent: str, dut: str) -> Labels:
    return (("key", key), ("agent", agent), ("dut", dut))


class LabMetrics:
    """Makes the text anew for each scrape, from the same answers that people get."""

    def __init__(self, engine: Engine, lab: LabAnswers, latest: Latest) -> None:
        self._engine, self._lab, self._latest = engine, lab, latest

    async def text(self) -> str:
        stats = await self._lab.stats(_SELF, r.Nothing())
        health = await self._lab.health(_SELF, r.Nothing())
        leases = await self._engine.ask(_leases)
        leads = one(
            "tshrag_leads", "1: this controller leads; 0: it stands by.", not self._engine.follows
        )
        return exposition([leads, *_families(stats, health, leases, self._latest)])


def _leases(decision: Decision) -> dict[str, float]:
    lab = decision.lab
    return {"person": len(lab.people.leases), "attempt": len(lab.attempts)}


def _families(
    stats: r.StatsAnswer, health: r.HealthAnswer, leases: dict[str, float], latest: Latest
) -> Iterator[Family]:
    yield one("tshrag_up", "1: this controller answers.", 1)
    degraded = health.status != "ok"
    yield one("tshrag_degraded", "1: 'tshrag health' tells why.", degraded)
    yield one("tshrag_log_sequence", "Frames in the LOG.", health.sequence, "counter")
    behind = max(0, health.sequence - health.projected)
    yield one("tshrag_log_lag_frames", "Frames that the projection is behind.", behind)
    yield one("tshrag_epoch", "Epoch of the leader.", health.epoch)
    alive = {name: count for name, count in stats.runs.items() if name not in _FINAL}
    yield by("state", "tshrag_runs", "Runs that are not final, by state.", _floats(alive))
    ended = {name: count for name, count in stats.runs.items() if name in _FINAL}
    yield by("state", "tshrag_runs_ended_total", "Runs by outcome.", _floats(ended), "counter")
    yield one("tshrag_jobs_open", "Jobs that are not final: the queue.", stats.jobs.get("open", 0))
    done = {name: count for name, count in stats.jobs.items() if name != "open"}
    yield by("state", "tshrag_jobs_ended_total", "Jobs by outcome.", _floats(done), "counter")
    yield by("state", "tshrag_agents", "Agents by state.", _floats(stats.agents))
    yield by("state", "tshrag_duts", "DUTs by state.", _floats(stats.duts))
    yield one("tshrag_slots", "Slots of all agents.", stats.slots)
    yield one("tshrag_slots_taken", "Slots that are taken.", stats.slots_taken)
    yield by("holder", "tshrag_leases", "Holds of slots and DUTs, by who holds.", leases)
    yield one("tshrag_attempts_total", "Attempts begun.", stats.attempts, "counter")
    yield one("tshrag_samples_total", "Samples stored.", stats.samples, "counter")
    yield from _setups(stats.setups or SetupStats())
    counters = {**health.counters, "latest_overflow": latest.overflow}
    about = "Counters of the controller, as 'tshrag health' shows them."
    yield by("name", "tshrag_controller_total", about, _floats(counters), "counter")
    yield latest.family()


def _setups(setups: SetupStats) -> Iterator[Family]:
    known = {"made": setups.made, "avoided": setups.avoided, "failed": setups.failed}
    about = "Setups of groups: made, avoided because they were in place, failed."
    yield by("what", "tshrag_setups_total", about, _floats(known), "counter")
    spans = {"spent": setups.spent_s, "saved": setups.saved_s}
    about = "Seconds that setups took, and that avoided ones would have taken."
    yield by("what", "tshrag_setup_seconds_total", about, spans, "counter")
    about = "Teardowns of groups that had ended, by outcome."
    ended = _floats(setups.teardowns)
    yield by("state", "tshrag_teardowns_total", about, ended, "counter")


def _floats(counts: dict[str, int]) -> dict[str, float]:
    return {name: float(count) for name, count in counts.items()}


_FINAL = ("passed", "failed", "error", "cancelled", "timeout", "expired", "skipped")
