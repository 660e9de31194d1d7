"""A controller that leads: everything that runs while this epoch lasts, wired here.

The loops live in one task group. When the LOG refuses a frame, another controller leads: the
group ends with `Fenced`, the Lab is dropped, and nothing of the refused turn has left the house.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from tshrag_common import subjects, wire
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.bus.messages import Message
from tshrag_common.bus.objects import Objects
from tshrag_common.bus.puller import Puller
from tshrag_common.clock import Clock
from tshrag_common.errors import LabError, Refused
from tshrag_common.ids import AgentId, Epoch
from tshrag_common.reports import Heartbeat, SpoolState
from tshrag_common.seals import CommandSigner
from tshrag_common.states import RunState
from tshrag_common.streams import (
    ARTIFACTS,
    EV,
    EV_LEADER,
    LOADS,
    LOGS,
    LOGS_ARCHIVE,
    MET,
    ConsumerConfig,
    met_ingest,
)
from tshrag_controller import witness
from tshrag_controller.answers.blobs import AgentBlobs, BlobAnswers
from tshrag_controller.answers.channels import ChannelAnswers
from tshrag_controller.answers.consoles import ConsoleAnswers
from tshrag_controller.answers.data import DataAnswers
from tshrag_controller.answers.intents import IntentAnswers
from tshrag_controller.answers.lab import About, LabAnswers
from tshrag_controller.answers.leases import LeaseAnswers
from tshrag_controller.answers.resolve import ResolveAnswers
from tshrag_controller.answers.runs import RunAnswers
from tshrag_controller.answers.samples import SampleAnswers
from tshrag_controller.answers.suspend import SuspendAnswers
from tshrag_controller.answers.tending import StoreAnswers
from tshrag_controller.blobs import ObjectBlobs
from tshrag_controller.broker import Broker
from tshrag_controller.core.decision import Decision, Effect, JudgeRun, SendSync
from tshrag_controller.core.events import LeaderChosen
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.sched_events import PolicySet
from tshrag_controller.dispatch import Dispatch
from tshrag_controller.engine import Engine, LabClock
from tshrag_controller.feed import Feed
from tshrag_controller.ingest import Incoming, Ingest
from tshrag_controller.intake.beats import Beats, Confirmed
from tshrag_controller.intake.reports import ReportIntake
from tshrag_controller.intake.requests import AT_ONCE, Verb, Verbs
from tshrag_controller.intake.served import Served
from tshrag_controller.intake.spools import Spools
from tshrag_controller.judging import Judging
from tshrag_controller.log.append import Pen
from tshrag_controller.log.checkpoint import Checkpoints
from tshrag_controller.log.frames import Frame
from tshrag_controller.outbox import Outbox
from tshrag_controller.projecting import Projecting
from tshrag_controller.resolving import Resolving
from tshrag_controller.settings import ControllerSettings, StoreTable
from tshrag_controller.store.keep import Keeper, Rules
from tshrag_controller.store.querying import Queries
from tshrag_controller.store.store import Store
from tshrag_controller.verbs import (
    blob_verbs,
    channel_verbs,
    console_verbs,
    data_verbs,
    intent_verbs,
    lab_verbs,
    lease_verbs,
    resolve_verbs,
    run_verbs,
    store_verbs,
    suspend_verbs,
)

logger = logging.getLogger(__name__)

Take = Callable[[Sequence[Incoming]], Awaitable[None]]


class Leading:
    """One epoch of this controller."""

    def __init__(
        self,
        settings: ControllerSettings,
        broker: Broker,
        store: Store,
        checkpoints: Checkpoints,
        lab: Lab,
        clock: Clock,
        version: str,
    ) -> None:
        self._settings, self._broker, self._store = settings, broker, store
        self._clock, self._version = clock, version
        self._bus, self._log = broker.bus, JetStream(broker.bus)
        self._outbox = Outbox(broker.bus, store, clock)
        self._signer = CommandSigner(broker.keys.controller)
        self._lab_clock = LabClock(clock, lab.at)
        self.feed = Feed(clock, self._outbox.publish)
        now = self._lab_clock.now
        self.dispatch = Dispatch(self._send_command, lambda run: self.judging.put(run), now)
        pen = Pen(self._log, settings.controller.node, lab.sequence)
        self.engine = Engine(lab, pen, self._lab_clock, self._on_commit, self._carry_out)
        self.judging = Judging(self.engine, store)
        self._leases = LeaseAnswers(self.engine, store, self._lab_clock)
        spools = Spools(clock)
        self.keeper = Keeper(
            store, settings.cold_url, settings.store.cold_options, rules_of(settings.store)
        )
        self.queries = Queries(store)
        self.ingest = Ingest(store, self.engine, self._outbox.set_aside, spools)
        every = settings.controller.checkpoint_frames
        self.projecting = Projecting(store, self.engine, checkpoints, every)
        self.beats = Beats(
            self.engine, clock, self, lambda agent: self.dispatch.sent.get(agent, 0), spools
        )
        mac_key = broker.keys.mac_key
        self.reports = ReportIntake(
            self.engine,
            mac_key,
            self._outbox.set_aside,
            spools,
            self.beats.is_foreign,
            self.beats.leave,
        )
        self._loads = ObjectBlobs(Objects(self._log, LOADS))
        aside = self._outbox.set_aside
        agent_blobs = AgentBlobs(self._loads, ObjectBlobs(Objects(self._log, ARTIFACTS)), aside)
        verbs = Verbs(self._verbs(), self._bus.plain, broker.durable, aside)
        self.served = {
            subjects.any_said("hb"): Served(self._bus, "beat", self._answer_beat, 64),
            subjects.any_said("blob"): Served(self._bus, "blob", agent_blobs.answer, 16),
            subjects.any_req(): Served(self._bus, "request", verbs.answer, AT_ONCE),
        }

    def _verbs(self) -> Mapping[str, Verb]:
        settings = self._settings
        resolving = Resolving(
            self._loads,
            settings.state / "work",
            settings.limits,
            settings.policy,
            settings.loads.rewrite,
        )
        about = About(
            self._version,
            settings.controller.node,
            self._broker.url,
            self._broker.durable,
            self._troubles,
            self._counters,
        )
        engine, store = self.engine, self._store
        return {
            **run_verbs(RunAnswers(engine, store, self.feed, resolving, self._lab_clock)),
            **lab_verbs(LabAnswers(engine, store, self.beats, self._clock, about)),
            **data_verbs(DataAnswers(engine, store)),
            **channel_verbs(ChannelAnswers(engine)),
            **store_verbs(
                SampleAnswers(engine, store, self.queries), StoreAnswers(store, self.keeper)
            ),
            **console_verbs(ConsoleAnswers(engine, store)),
            **blob_verbs(BlobAnswers(self._loads)),
            **lease_verbs(self._leases),
            **resolve_verbs(ResolveAnswers(engine)),
            **intent_verbs(IntentAnswers(engine, self._lab_clock)),
            **suspend_verbs(SuspendAnswers(engine)),
        }

    async def lead(self, on_ready: Callable[[], None]) -> None:
        """Announce the epoch, then serve until cancelled, or until another controller leads.

        Raises:
            Fenced: in a group: another controller has written to the LOG.

        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self.engine.lead(), name="engine")
            group.create_task(self.projecting.project(), name="project")
            await self.engine.ask(self._begin)
            await self.projecting.recall()
            await self.ingest.recall()
            loops = {
                "send": self.dispatch.send(),
                "judge": self.judging.judge(),
                "keep": self.keeper.keep(),
                "queries": self.queries.idle(),
                "silence": self.beats.watch(),
                "checkpoints": self.projecting.keep_checkpoints(),
                "outbox": self._outbox.empty(),
                "reports": self._pull(EV, EV_LEADER, self.reports.take),
                "output": self._pull(
                    LOGS, LOGS_ARCHIVE, self.ingest.take_output, self._settings.sizes.logs // 2
                ),
            }
            for partition in range(subjects.MET_PARTITIONS):
                pull = self._pull(MET, met_ingest(partition), self.ingest.take_samples, 0)
                loops[f"samples-{partition}"] = pull
            for served in self.served.values():
                loops[served.name] = served.serve()
            for name, loop in loops.items():
                group.create_task(loop, name=name)
            for subject, served in self.served.items():
                await self._bus.subscribe(subject, served.hear)
            await self._bus.settled()
            await self.engine.ask(lambda decision: self.feed.announce(decision.lab, decision.now))
            on_ready()

    async def checkpoint(self) -> None:
        """Store a checkpoint before a stop in order; without it a start only takes longer."""
        try:
            async with asyncio.timeout(10.0):
                await self.projecting.checkpoint()
        except (LabError, OSError) as error:
            logger.warning("no checkpoint at the end", extra={"why": str(error)})

    def _begin(self, decision: Decision) -> None:
        """Open the epoch; bring everybody into step; take up what was left to judge."""
        epoch = next_epoch(decision.lab)
        decision.happen(LeaderChosen(epoch=epoch, node=self._settings.controller.node))
        if decision.lab.policy != self._settings.scheduling:
            decision.happen(PolicySet(policy=self._settings.scheduling))
        for agent in decision.lab.agents:
            decision.then(SendSync(agent))
        for run in decision.lab.runs.values():
            if run.state is RunState.EVALUATING:
                decision.then(JudgeRun(run.id))

    async def _pull(
        self, stream: str, consumer: ConsumerConfig, take: Take, most_bytes: int | None = None
    ) -> None:
        """Read a stream for ever; acknowledge what was taken.

        Where the stream holds more than `most_bytes`, what was taken is removed: a full stream
        would take nothing new, and what it would not take could never be judged.
        """
        puller = Puller(self._log, stream, consumer)  # makes the consumer where there is none
        async for batch in puller.batches():
            await take([(each.subject, each.sequence, each.data) for each in batch])
            await puller.ack(batch[-1].sequence)
            if most_bytes is not None:
                subject = consumer.filter_subject
                await self._make_room(stream, batch[-1].sequence, subject, most_bytes)

    async def _make_room(
        self, stream: str, sequence: int, subject: str | None, most_bytes: int
    ) -> None:
        try:
            if most_bytes and (await self._log.stream_info(stream)).bytes <= most_bytes:
                return
            await self._log.purge(stream, sequence, subject)
        except LabError as error:  # it is purged behind the next batch
            logger.debug("a purge failed", extra={"why": error.line})

    def _on_commit(self, lab: Lab, frame: Frame, sequence: int) -> None:
        witness.note_frame(frame, sequence)
        self.projecting.put(sequence, frame)
        self.feed.on_commit(lab, frame, sequence)
        self._leases.on_commit(frame)

    def _carry_out(self, lab: Lab, effects: Sequence[Effect]) -> None:
        if effects:
            self.dispatch.carry_out(lab, effects)

    async def _send_command(self, agent: AgentId, payload: bytes) -> None:
        sealed = self._signer.seal(agent, payload)
        await self._bus.publish(subjects.command(agent), sealed)

    async def _answer_beat(self, message: Message) -> bytes:
        try:
            agent, _ = subjects.agent_of(message.subject)
            beat = wire.HEARTBEAT.decode(message.data)
            if beat.agent != agent:
                raise Refused(message.subject, f"a beat of {beat.agent}", code="not_holder")
        except LabError as error:
            self._outbox.set_aside(message.subject, error.line, message.data)
            raise
        return wire.HEARTBEAT_ANSWER.encode(await self.beats.on_heartbeat(beat))

    def confirmed(self, beat: Heartbeat) -> Confirmed:
        """Tell how far the spools of an agent rest in our stores."""
        mark = self.ingest.marks.get(beat.agent)
        spool, upto = self.projecting.reports.get(beat.agent, ("", 0))
        return Confirmed(
            reports=_upto(beat.reports, spool, upto),
            samples=_upto(beat.samples, mark.samples_spool, mark.samples) if mark else 0,
            output=_upto(beat.output, mark.output_spool, mark.output) if mark else 0,
        )

    def _troubles(self) -> tuple[str, ...]:
        own = [self._store.degraded, self.projecting.trouble, self.keeper.trouble]
        if self._bus.plain:
            own.append(
                "the bus has no accounts: anybody who reaches it may submit and cancel; "
                "see docs/how-to/secure-the-bus.md"
            )
        if not self._broker.durable:
            own.append("nats_unsafe_sync: a power cut may take what was accepted")
        for agent, skew_s in sorted(self.beats.skews.items()):
            own.append(f"clock_skew: {agent}: {skew_s:+.0f}s; set the clock of the host")
        return tuple(reason for reason in own if reason)

    def _counters(self) -> dict[str, int]:
        dropped = {f"dropped.{each.name}": each.dropped for each in self.served.values()}
        return {
            **dropped,
            **self.ingest.refused,
            "spool_gaps": self.ingest.gaps + self.reports.gaps,
            "set_aside": self._outbox.set_aside_count,
            "turns": self.engine.turns,
        }


def rules_of(table: StoreTable) -> Rules:
    """Return for how long samples stay where."""
    return Rules(hot_days=table.hot_days, cold_days=table.cold_days, cache_bytes=table.cache_bytes)


def next_epoch(lab: Lab) -> Epoch:
    """Return the epoch of the next leader: one more, and at first the place of its own frame.

    Agents heed no command of an epoch before the newest that they have heard, across labs: like
    fences, the epochs of a lab that is made anew begin behind all that were before.
    """
    return Epoch((lab.epoch or lab.sequence) + 1)


def _upto(told: SpoolState, spool: str, upto: int) -> int:
    """Return what may be confirmed of the spool that the agent has now: another one counts 0."""
    return upto if told.spool == spool else 0
