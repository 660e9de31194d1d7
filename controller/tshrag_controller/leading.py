"""One term of a controller: it stands by, then it leads; everything that runs in it, wired here.

A standby has all of it, on a Lab that follows the LOG: it answers who only reads, keeps samples
and output of its own, and hears the agents. The loops live in one task group. When the LOG refuses
a frame, another controller leads: the group ends with `Fenced`, the Lab is dropped, and nothing of
the refused turn has left the house.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from tshrag_common import subjects
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.bus.messages import Message
from tshrag_common.bus.objects import Objects
from tshrag_common.clock import Clock
from tshrag_common.ids import DEFAULT_ORG, AgentId
from tshrag_common.states import RunState
from tshrag_common.streams import ARTIFACTS, LOADS
from tshrag_controller import witness
from tshrag_controller.answers.blobs import AgentBlobs, BlobAnswers
from tshrag_controller.answers.channels import ChannelAnswers
from tshrag_controller.answers.consoles import ConsoleAnswers
from tshrag_controller.answers.data import DataAnswers
from tshrag_controller.answers.drills import DrillAnswers
from tshrag_controller.answers.judge import JudgeAnswers
from tshrag_controller.answers.lab import About, LabAnswers
from tshrag_controller.answers.resolve import ResolveAnswers
from tshrag_controller.answers.runs import RunAnswers
from tshrag_controller.answers.samples import SampleAnswers
from tshrag_controller.answers.tending import StoreAnswers
from tshrag_controller.blobs import ObjectBlobs
from tshrag_controller.broker import JOINED, KEYS, Broker
from tshrag_controller.broker_watch import BrokerWatch
from tshrag_controller.condition import Condition
from tshrag_controller.core.decision import Decision, Effect, JudgeRun, SendSync
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.sched_events import PolicySet
from tshrag_controller.dispatch import Dispatch
from tshrag_controller.engine import Engine, LabClock
from tshrag_controller.feed import Feed
from tshrag_controller.hearing import Hearing
from tshrag_controller.ingest import Ingest
from tshrag_controller.intake.beat_messages import BeatMessages, StoredMarks, serve_beats
from tshrag_controller.intake.beats import Beats
from tshrag_controller.intake.rates import Rates
from tshrag_controller.intake.reports import ReportIntake
from tshrag_controller.intake.requests import AT_ONCE, Verb, Verbs
from tshrag_controller.intake.served import Served
from tshrag_controller.intake.spools import Spools
from tshrag_controller.judging import Judging
from tshrag_controller.leaving import Leaving
from tshrag_controller.live_keys import LiveKeys
from tshrag_controller.living import Living
from tshrag_controller.log.append import Pen
from tshrag_controller.log.checkpoint import Checkpoints
from tshrag_controller.log.frames import Frame
from tshrag_controller.outbox import Outbox
from tshrag_controller.people_side import PeopleSide
from tshrag_controller.projecting import Projecting
from tshrag_controller.prometheus.wing import Prometheus
from tshrag_controller.pulling import Loops, Pulling
from tshrag_controller.pulses import Pulses
from tshrag_controller.resolving import Resolving
from tshrag_controller.settings import ControllerSettings, StoreTable
from tshrag_controller.standby import Standby
from tshrag_controller.store.keep import Keeper, Rules
from tshrag_controller.store.querying import Queries
from tshrag_controller.store.store import Store
from tshrag_controller.verbs import (
    blob_verbs,
    channel_verbs,
    console_verbs,
    data_verbs,
    drill_verbs,
    judge_verbs,
    lab_verbs,
    resolve_verbs,
    run_verbs,
    store_verbs,
)

logger = logging.getLogger(__name__)


class Leading:
    """One term of this controller: of following and, when it is elected, of leading."""

    def __init__(
        self,
        settings: ControllerSettings,
        broker: Broker,
        store: Store,
        checkpoints: Checkpoints,
        lab: Lab,
        clock: Clock,
        version: str,
        boot: str,
    ) -> None:
        self._settings, self._broker, self._store = settings, broker, store
        self._clock, self._version = clock, version
        self._bus, self._log = broker.bus, JetStream(broker.bus)
        self._watch = BrokerWatch(settings, broker, lambda: self.projecting.want_checkpoint())
        self._outbox = Outbox(broker.bus, store, clock)
        issues, path = not (settings.state / JOINED).exists(), settings.state / KEYS
        self._keys = LiveKeys(broker.keys, path, broker.bus, issues=issues)
        self._lab_clock = LabClock(clock, lab.at)
        self.feed = Feed(clock, self._outbox.publish)
        now = self._lab_clock.now
        self.dispatch = Dispatch(self._send_command, lambda run: self.judging.put(run), now)
        self._node = node = settings.controller.node
        self._pen = Pen(self._log, node, lab.sequence)
        self.engine = Engine(lab, self._pen, self._lab_clock, self._on_commit, self._carry_out)
        self.engine.follows = True
        bus, lab_clock = self._bus, self._lab_clock
        self.pulses = Pulses(
            bus, self.engine, clock, lab_clock, node, boot, version, lambda: store.applied
        )
        self.standby = Standby(bus, lab, self.engine, self.pulses, clock, lab_clock, node)
        self.judging = Judging(self.engine, store, lambda run: self._pulling.filling.complete(run))
        self._people = PeopleSide(self.engine, store, self._lab_clock, settings.health)
        self.keeper = Keeper(
            store, settings.cold_url, settings.store.cold_options, rules_of(settings.store)
        )
        self.queries = Queries(store)
        self._take_in(checkpoints)
        self._serve_messages()
        self._hearing = Hearing(bus)
        self.leaving = Leaving(self.engine, self.pulses, self.projecting, clock)
        self._pulling = Pulling(self._log, self.engine, settings, store, lab)

    def _take_in(self, checkpoints: Checkpoints) -> None:
        """Wire what takes in frames, reports, samples, output and beats."""
        store, clock, settings = self._store, self._clock, self._settings
        spools = Spools(clock)
        self.living = Living(self.engine, store, lambda: self._pulling.filling.all())
        aside, look = self._outbox.set_aside, self.living.put
        self.ingest = Ingest(store, self.engine, aside, spools, self.standby.newest, look)
        self.pulses.lacks = lambda: self.ingest.lacks
        every = settings.controller.checkpoint_frames
        self.projecting = Projecting(store, self.engine, checkpoints, every)
        marks = StoredMarks(self.ingest.marks, self.projecting.reports)
        self.beats = Beats(
            self.engine, clock, marks, lambda agent: self.dispatch.sent.get(agent, 0), spools
        )
        self.reports = ReportIntake(
            self.engine,
            self._keys.mac_keys,
            self._outbox.set_aside,
            spools,
            self.beats.is_foreign,
            self.beats.leave,
        )

    def _serve_messages(self) -> None:
        """Wire who is answered, and how this controller is."""
        self._loads = ObjectBlobs(Objects(self._log, LOADS))
        aside = self._outbox.set_aside
        agent_blobs = AgentBlobs(self._loads, ObjectBlobs(Objects(self._log, ARTIFACTS)), aside)
        verbs, plain = self._verbs(), self._bus.plain
        self._requests = Verbs(verbs, plain, self._broker.durable, aside, self._node)
        self._beat_messages = BeatMessages(self.beats, aside)
        self._beats_served = serve_beats(self._bus, self._beat_messages)
        self._blobs_served = Served(self._bus, "blob", agent_blobs.answer, 16)
        self._requests_served = Served(self._bus, "request", self._answer_request, AT_ONCE)
        self._lead_served = Served(self._bus, "lead", self.standby.answer_lead, 1)
        self.served = (
            self._beats_served,
            self._blobs_served,
            self._requests_served,
            self._lead_served,
        )
        self.condition = Condition(
            self._broker,
            self._watch,
            self._pen,
            self._store,
            self.engine,
            self.projecting,
            self.keeper,
            self.ingest,
            self.beats,
            self.reports,
            self._outbox,
            self.served,
        )
        self.condition.beside = self.prometheus
        self.pulses.copied_at = self.prometheus.copied_at
        self.pulses.on_copied = self.prometheus.follow
        self.pulses.troubles = self.condition.own

    def _verbs(self) -> Mapping[str, Verb]:
        settings = self._settings
        resolving = Resolving(
            self._loads,
            settings.state / "work",
            settings.source_limits,
            settings.policy,
            settings.loads.rewrite,
        )
        about = About(
            self._version,
            settings.controller.node,
            self._broker.url,
            self._broker.durable,
            lambda: (*self.condition.reasons(), *self.pulses.reasons()),
            lambda: self.condition.counters(),
            self.pulses.views,
        )
        engine, store = self.engine, self._store
        limits = settings.limits
        self.rates = Rates(self._clock, limits.submits_per_s, limits.submit_burst)
        self._runs = runs = RunAnswers(
            engine, store, self.feed, resolving, self._lab_clock, self.rates, self._people.outlook
        )
        lab = LabAnswers(engine, store, self.beats, self._clock, about)
        self.prometheus = Prometheus(settings.prometheus, store, self.keeper, engine, lab)
        return {
            **run_verbs(runs),
            **lab_verbs(lab),
            **data_verbs(DataAnswers(engine, store)),
            **channel_verbs(ChannelAnswers(engine, store)),
            **store_verbs(
                SampleAnswers(engine, store, self.queries), StoreAnswers(engine, store, self.keeper)
            ),
            **console_verbs(ConsoleAnswers(engine, store)),
            **judge_verbs(JudgeAnswers(engine, store)),
            **blob_verbs(BlobAnswers(self._loads)),
            **self._people.verbs(),
            **resolve_verbs(ResolveAnswers(engine, settings.outlet)),
            **drill_verbs(
                DrillAnswers(engine, settings.controller.node, settings.controller.drills)
            ),
        }

    async def serve(self, on_ready: Callable[[], None]) -> None:
        """Stand by until elected, then lead until cancelled, or until another controller leads.

        Raises:
            Fenced: in a group: another controller has written to the LOG.
            LogGap: in a group: this standby has to begin anew.

        """
        try:
            await self.projecting.recall()
            await self.ingest.recall()
            async with asyncio.TaskGroup() as group:
                await self._hearing.as_standby(
                    self.pulses.hear, self._hear_beat, self._requests_served
                )
                _begin(group, await self._at_all_times())
                await self.standby.stand_by()
                _begin(group, self._while_leading())
                await self.engine.ask(self._begin)
                await self._hearing.as_leader(
                    self._lead_served, self._blobs_served, self._requests_served
                )
                await self.engine.ask(self._announce)
                on_ready()
        finally:
            await self._hearing.end()

    async def _at_all_times(self) -> Loops:
        """Return the loops of a standby, which go on when it leads."""
        await self._people.recall()
        loops = await self._pulling.data(self.ingest)
        loops |= {served.name: served.serve() for served in self.served}
        return loops | {
            "project": self.projecting.project(),
            "outbox": self._outbox.empty(),
            "keys": self._keys.follow(),
            "keep": self.keeper.keep(),
            "queries": self.queries.idle(),
            **self.prometheus.always(),
            "pulses": self.pulses.beat(),
            "broker": self._watch.watch(),
        }

    def _while_leading(self) -> Loops:
        self._pen.last = self.engine.sequence
        self.beats.listen_anew()
        return {
            "engine": self.engine.lead(),
            "deposed": self.pulses.deposed(),
            "others": self.pulses.watch_others(lambda: self.engine.tell(self.feed.announce)),
            "streams": self._pulling.fit_streams(),
            "send": self.dispatch.send(),
            "judge": self.judging.judge(),
            "health": self._people.checking.check(self._runs.admitted),
            "live": self.living.live(self.ingest.paused),
            **self.prometheus.leading(),
            "silence": self.beats.watch(),
            "checkpoints": self.projecting.keep_checkpoints(),
            "reports": self._pulling.reports(self.reports.take),
        }

    def _hear_beat(self, message: Message) -> None:
        if self.engine.follows:
            self._beat_messages.note(message)
        else:
            self._beats_served.hear(message)

    def _begin(self, decision: Decision) -> None:
        """Bring everybody into step; take up what was left to judge."""
        self.ingest.tell_all()
        if decision.lab.policy != self._settings.scheduling:
            decision.happen(PolicySet(policy=self._settings.scheduling))
        for agent in decision.lab.agents:
            decision.then(SendSync(agent))
        for run in decision.lab.runs.values():
            if run.state is RunState.EVALUATING:
                decision.then(JudgeRun(run.id))

    def _announce(self, decision: Decision) -> None:
        """Tell people that another controller leads: who waits for an answer asks again."""
        self.feed.announce(decision)
        data = str(decision.lab.epoch).encode()
        for org in {DEFAULT_ORG, *self._broker.keys.orgs}:
            self._outbox.publish(subjects.ui(org, "leader"), data)

    def _on_commit(self, lab: Lab, frame: Frame, sequence: int) -> None:
        witness.note_frame(frame, sequence)
        self.projecting.put(sequence, frame)
        self.feed.on_commit(lab, frame, sequence)
        self._people.on_commit(lab, frame)

    def _carry_out(self, lab: Lab, effects: Sequence[Effect]) -> None:
        if effects:
            self.dispatch.carry_out(lab, effects)

    async def _send_command(self, agent: AgentId, payload: bytes) -> None:
        sealed = self._keys.seal(agent, payload)
        await self._bus.publish(subjects.command(agent), sealed)

    async def _answer_request(self, message: Message) -> bytes:
        await self.standby.newest()
        await self._pulling.caught_up(message.subject.rpartition(".")[2])
        return await self._requests.answer(message)


def rules_of(table: StoreTable) -> Rules:
    """Return for how long samples stay where."""
    return Rules(hot_days=table.hot_days, cold_days=table.cold_days, cache_bytes=table.cache_bytes)


def _begin(group: asyncio.TaskGroup, loops: Loops) -> None:
    for name, loop in loops.items():
        group.create_task(loop, name=name)
