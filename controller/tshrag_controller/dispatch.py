"""Carries out effects: commands to agents, one signed message an agent and turn.

A command may be lost; the digest of the next heartbeat tells, and a Sync mends it. So nothing is
repeated here and nothing waits here.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from tshrag_common.commands import (
    AnyCommand,
    CancelAttempt,
    CommandBatch,
    FreeDut,
    HoldDut,
    Mate,
    StartAttempt,
    Sync,
)
from tshrag_common.errors import LabError
from tshrag_common.failpoints import failpoint
from tshrag_common.ids import AgentId, Fence, RunId
from tshrag_common.jobs import JobSpec
from tshrag_common.wire import COMMANDS
from tshrag_controller.core.decision import (
    Effect,
    JudgeRun,
    SendCancel,
    SendChannel,
    SendDrill,
    SendHold,
    SendRelease,
    SendStart,
    SendSync,
)
from tshrag_controller.core.gangs import mates_of, role_of
from tshrag_controller.core.lab import Job, Lab, Run
from tshrag_controller.core.stopping import to_end, wanted

logger = logging.getLogger(__name__)

STARTS_PER_MESSAGE = 1000
MESSAGE_BYTES = 900 << 10

Send = Callable[[AgentId, bytes], Awaitable[None]]


class Dispatch:
    """Numbers, encodes and sends commands; hands runs that can be judged to `judge`."""

    def __init__(self, send: Send, judge: Callable[[RunId], None], now: Callable[[], int]) -> None:
        self._send, self._judge, self._now = send, judge, now
        self._outbox: asyncio.Queue[tuple[AgentId, bytes]] = asyncio.Queue()
        self._n = 0
        self.sent: dict[AgentId, int] = {}  # the number of the newest message to each agent

    def carry_out(self, lab: Lab, effects: Sequence[Effect]) -> None:
        """Let the effects of a turn go; the Lab is as it was when their frame was stored."""
        syncs = {effect.agent for effect in effects if isinstance(effect, SendSync)}
        starts: dict[AgentId, list[Fence]] = {}
        others: dict[AgentId, list[AnyCommand]] = {}
        for effect in effects:
            if isinstance(effect, SendStart) and effect.agent not in syncs:  # it names them too
                starts.setdefault(effect.agent, []).append(effect.fence)
            elif isinstance(effect, SendCancel | SendChannel | SendDrill):
                others.setdefault(effect.agent, []).append(_command(effect))
            elif isinstance(effect, JudgeRun):
                self._judge(effect.run)
        self._note_leases(lab, effects, syncs, others)
        for agent in sorted(syncs):
            self._put_sync(lab, agent)
        for agent, fences in starts.items():
            self._put_starts(lab, agent, fences)
        for agent, commands in others.items():
            self._put(lab, agent, commands, Specs())

    async def send(self) -> None:
        """Send what lies in the outbox, in order, for ever."""
        while True:
            agent, payload = await self._outbox.get()
            try:
                await self._send(agent, payload)
                failpoint("dispatch.sent")
            except LabError as error:
                facts = {"agent": agent, "why": error.line}
                logger.warning("a command was not sent; a Sync will mend it", extra=facts)

    def _put_starts(self, lab: Lab, agent: AgentId, fences: Sequence[Fence]) -> None:
        for begin in range(0, len(fences), STARTS_PER_MESSAGE):
            failpoint("dispatch.starts")
            self._put_part(lab, agent, fences[begin : begin + STARTS_PER_MESSAGE])

    def _put_part(self, lab: Lab, agent: AgentId, fences: Sequence[Fence]) -> None:
        """Put starts into one message, or into two with the specs that each of them needs."""
        specs = Specs()
        commands = [start_of(lab, fence, specs) for fence in fences if fence in lab.attempts]
        if not self._put(lab, agent, commands, specs, may_split=len(commands) > 1):
            half = len(fences) // 2
            self._put_part(lab, agent, fences[:half])
            self._put_part(lab, agent, fences[half:])

    def _put_sync(self, lab: Lab, agent: AgentId) -> None:
        specs = Specs()
        ending = to_end(lab, agent)
        fences = wanted(lab.agents[agent].fences, ending)
        starts = tuple(start_of(lab, fence, specs) for fence in fences)
        leases = tuple(
            hold_of(lab, fence, self._now()) for fence in sorted(lab.agents[agent].leases)
        )
        sync = Sync(attempts=starts, leases=leases, cancels=ending)
        if not self._put(lab, agent, [sync], specs, may_split=bool(starts)):
            self._put_starts(lab, agent, fences)  # what the agent knows already it passes over
            rest = Sync(attempts=(), keep=fences, leases=leases, cancels=ending)
            self._put(lab, agent, [rest], Specs())

    def _note_leases(
        self,
        lab: Lab,
        effects: Sequence[Effect],
        syncs: set[AgentId],
        commands: dict[AgentId, list[AnyCommand]],
    ) -> None:
        """Add what agents must know of leases; a Sync says it anyway."""
        for effect in effects:
            if isinstance(effect, SendHold | SendRelease) and effect.agent not in syncs:
                commands.setdefault(effect.agent, []).extend(self._of_lease(lab, effect))

    def _of_lease(self, lab: Lab, effect: SendHold | SendRelease) -> list[AnyCommand]:
        """Return what tells an agent of a lease; nothing where the turn has ended it again."""
        if isinstance(effect, SendRelease):
            return [FreeDut(fence=effect.fence)]
        known = effect.fence in lab.people.leases
        return [hold_of(lab, effect.fence, self._now())] if known else []

    def _put(
        self,
        lab: Lab,
        agent: AgentId,
        commands: Sequence[AnyCommand],
        specs: "Specs",
        *,
        may_split: bool = False,
    ) -> bool:
        """Queue one message; false, and nothing is queued, where it is too large and may split."""
        batch = CommandBatch(
            epoch=lab.epoch,
            n=self._n + 1,
            agent=agent,
            commands=tuple(commands),
            specs=tuple(specs.specs),
        )
        payload = COMMANDS.encode(batch)
        if may_split and len(payload) > MESSAGE_BYTES:
            return False
        self._n += 1
        self.sent[agent] = self._n
        self._outbox.put_nowait((agent, payload))
        return True


def _command(effect: SendCancel | SendChannel | SendDrill) -> AnyCommand:
    if isinstance(effect, SendChannel | SendDrill):
        return effect.command
    return CancelAttempt(fence=effect.fence, cause=effect.cause)


class Specs:
    """The specs of one message, each once."""

    def __init__(self) -> None:
        self.specs: list[JobSpec] = []
        self._known: dict[int, int] = {}

    def index(self, spec: JobSpec) -> int:
        known = self._known.get(id(spec))
        if known is None:
            known = self._known[id(spec)] = len(self.specs)
            self.specs.append(spec)
        return known


def hold_of(lab: Lab, fence: Fence, now: int) -> HoldDut:
    """Return the command that says who holds a DUT under this fence."""
    lease = lab.people.leases[fence]
    return HoldDut(
        fence=fence,
        rev=lease.rev,
        dut=lease.dut,
        lease=lease.id,
        org=lease.org,
        by=lease.by,
        until=lease.until,
        left_us=max(0, lease.until - now),
        shared=lease.shared,
        questions=lease.questions,
    )


def start_of(lab: Lab, fence: Fence, specs: Specs) -> StartAttempt:
    """Return the command that starts the attempt with this fence."""
    attempt = lab.attempts[fence]
    job = lab.jobs[attempt.job]
    run = lab.runs[job.run]
    planned = run.plan.jobs[job.serial - 1]
    hosts = sorted({agent for agent, _ in run.bound.values()} | {attempt.agent})
    duts = sorted({str(dut) for _, dut in run.bound.values()} | ({attempt.dut or ""} - {""}))
    return StartAttempt(
        fence=fence,
        org=run.org,
        run=run.id,
        job=job.id,
        attempt=attempt.number,
        name=planned.name,
        spec=specs.index(run.spec(job)),
        env=planned.env,
        dut=attempt.dut,
        run_hosts=tuple(hosts),
        run_duts=tuple(duts),
        seed=run.seed,
        lease_s=attempt.lease_s,
        mates=_mates(lab, run, job),
    )


def _mates(lab: Lab, run: Run, job: Job) -> tuple[Mate, ...]:
    """Return who starts together with a job and where; nobody where it starts alone."""
    return tuple(
        Mate(
            role=role_of(run, mate),
            job=mate.id,
            agent=lab.attempts[mate.fence].agent,
            fence=mate.fence,
            dut=lab.attempts[mate.fence].dut,
        )
        for mate in mates_of(lab, job)
        if mate.fence in lab.attempts
    )
