"""Leases against a world of their own: who is really alive on a board, and when it is given again.

The world knows what no controller can: which attempt has living processes. Agents are cut off,
frozen, killed; answers to heartbeats are lost, commands come late. By the times of leases alone,
without the fence on the board, no board may have two, and none is given on while one is alive.
"""

from dataclasses import dataclass, field

from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.builders import ORG, TestLab, a_dut, a_plan, a_spec, board, facts
from tshrag_common.contact import MARGIN_S, SHARED_S
from tshrag_common.ids import AgentId, DutId, Fence
from tshrag_common.inventory import Dut
from tshrag_common.reports import Ended, Hello, Started
from tshrag_common.states import AgentCause
from tshrag_controller.core.decision import Decision, SendCancel, SendStart, SendSync
from tshrag_controller.core.lab import Attempt
from tshrag_controller.core.on_agent import on_beat, on_silence
from tshrag_controller.core.on_lease import on_leases_over, on_resolve
from tshrag_controller.core.ways import AWAY

LIMIT_S = 90.0
WRAPPER_S = 11.0  # 10 s without a sign of the agent, a second to look and to kill
SPECS = (
    a_spec(need=board("shared", role="any", hold="job"), timeout_s=LIMIT_S),
    a_spec(need=board("shared", role="long", hold="job"), timeout_s=LIMIT_S, disconnect_s=45.0),
    a_spec(need=board("owned", role="own", hold="job"), timeout_s=LIMIT_S),
    a_spec(timeout_s=LIMIT_S, disconnect_s=30.0),
)


def boards(agent: str) -> list[Dut]:
    own = a_dut(f"own-{agent}", "owned")
    return [a_dut("s1", "shared", shared=True), a_dut("s2", "shared", shared=True), own]


@dataclass
class Living:
    """An attempt that has processes somewhere."""

    attempt: Attempt
    began_at: float


@dataclass
class Host:
    """An agent as it really is; its clock is the world's, its knowledge is its own."""

    name: str
    sent_at: float  # when the last heartbeat left whose answer came
    heard_at: float  # when the controller processed one
    linked: bool = True
    frozen_at: float | None = None
    living: dict[Fence, Living] = field(default_factory=dict[Fence, Living])
    inbox: list[Fence] = field(default_factory=list[Fence])  # starts that are on their way
    ended: list[Fence] = field(default_factory=list[Fence])  # what it has still to tell
    fences: dict[DutId, int] = field(default_factory=dict[DutId, int])  # the newest of each board

    def dies_at(self, one: Living) -> float:
        """Return when nothing of an attempt is alive any more, if nobody hears of it."""
        limit = one.began_at + LIMIT_S
        if not one.attempt.lease_s:
            return limit
        own = min(limit, self.sent_at + one.attempt.lease_s - MARGIN_S)
        if self.frozen_at is None or one.attempt.dut is None:  # the shepherd is never frozen
            return own
        # frozen: from then on only the wrapper on the board ends it
        return min(own, self.frozen_at) if own <= self.frozen_at else self.frozen_at + WRAPPER_S


class LeaseMachine(RuleBasedStateMachine):
    """Two hosts, two boards that both reach, one of each its own."""

    def __init__(self) -> None:
        super().__init__()
        self.lab, self.t, self.submitted = TestLab(), 0.0, 0
        self.hosts = {name: Host(name, 0.0, 0.0) for name in ("a1", "a2")}
        self.granted = 0
        for name in self.hosts:
            self._carry_out(self.lab.hello(name, slots=1, duts=boards(name)))

    # the world

    def _carry_out(self, decision: Decision) -> None:
        for effect in decision.effects:
            if isinstance(effect, SendStart):
                self._check_grant(self.lab.lab.attempts[effect.fence])
                self.hosts[effect.agent].inbox.append(effect.fence)
            elif isinstance(effect, SendSync):
                self._sync(self.hosts[effect.agent])
            elif isinstance(effect, SendCancel):
                host = self.hosts[effect.agent]
                if host.linked and host.frozen_at is None:
                    self._end(host, effect.fence)

    def _sync(self, host: Host) -> None:
        """Let what the host should have and has not heard of be on its way again."""
        known = {*host.living, *host.inbox, *host.ended}
        host.inbox += [fence for fence in self._held(host.name) if fence not in known]

    def _check_grant(self, attempt: Attempt) -> None:
        """What is granted may have nobody alive on it: not here, and not elsewhere."""
        self.granted += 1
        if attempt.dut is None:
            return
        for host in self.hosts.values():
            if host.name == attempt.agent:
                continue  # it ends the older one itself, before the newer begins
            for one in host.living.values():
                assert one.attempt.dut != attempt.dut, (
                    f"{attempt.dut} is given to {attempt.agent} while {host.name} is alive on it"
                )

    def _end(self, host: Host, fence: Fence) -> None:
        if host.living.pop(fence, None) is not None:
            host.ended.append(fence)

    def _step(self) -> None:
        """Let what is due in the world happen, then look as the controller does."""
        for host in self.hosts.values():
            for fence, one in list(host.living.items()):
                if self.t >= host.dies_at(one):
                    self._end(host, fence)
            if host.linked and host.frozen_at is None:
                self._hear_starts(host)
                self._tell(host)
        self._watch()

    def _hear_starts(self, host: Host) -> None:
        fences, host.inbox = host.inbox, []
        for fence in fences:
            if fence in host.living:
                continue  # a start that comes twice begins nothing, and ends nothing
            attempt = self.lab.lab.attempts.get(fence)
            one = Living(attempt, self.t) if attempt is not None else None
            if one is None or self.t >= host.dies_at(one) or self._is_stale(host, one):
                host.ended.append(fence)  # given up already, or too late: nothing begins
            else:
                self._take_over(host, one)
                host.living[fence] = one
                self._report(host, Started(at=self.lab.now, fence=fence))

    def _is_stale(self, host: Host, one: Living) -> bool:
        """Tell whether the host knows a newer fence of the board (attempts/fences.py)."""
        dut = one.attempt.dut
        return dut is not None and one.attempt.fence <= host.fences.get(dut, 0)

    def _take_over(self, host: Host, one: Living) -> None:
        """End what is older on the board before the newer one begins (decision 0053)."""
        dut = one.attempt.dut
        if dut is None:
            return
        host.fences[dut] = one.attempt.fence
        for fence, older in list(host.living.items()):
            if older.attempt.dut == dut:
                self._end(host, fence)

    def _tell(self, host: Host) -> None:
        fences, host.ended = host.ended, []
        for fence in fences:
            self._report(host, Ended(at=self.lab.now, fence=fence, outcome="passed", started_at=1))

    def _report(self, host: Host, *reports: Started | Ended | Hello) -> None:
        self._carry_out(self.lab.report(host.name, *reports))

    def _watch(self) -> None:
        """Look who is silent, as `Beats` does, by the controller's own clock."""
        for host in self.hosts.values():
            name, silent = AgentId(host.name), self.t - host.heard_at
            for cause, after_s in ((AgentCause.DOUBT, 15.0), (AgentCause.LOSE, 30.0)):
                if silent >= after_s:
                    on_silence(self.lab.begin(), name, cause)
                    self._carry_out(self.lab.end())
            if silent >= 30.0:
                on_leases_over(self.lab.begin(), name, silent)
                self._carry_out(self.lab.end())

    # what may befall it

    @rule(spec=st.sampled_from(SPECS))
    def submit(self, spec: object) -> None:
        self.submitted += 1
        plan = a_plan((), spec=spec)  # type: ignore[arg-type]  # a spec
        self.lab.submit(plan, self.submitted, park=True)
        self._carry_out(self.lab.decision)
        self._step()

    @rule(name=st.sampled_from(("a1", "a2")), answered=st.booleans())
    def beat(self, name: str, answered: bool) -> None:
        """A heartbeat is processed; its answer may be lost on the way back."""
        host = self.hosts[name]
        if not host.linked or host.frozen_at is not None:
            return
        sent_at, host.heard_at = self.t, self.t
        on_beat(self.lab.begin(), AgentId(name), draining=False)
        self._carry_out(self.lab.end())
        if answered:
            host.sent_at = sent_at
        self._step()

    @rule(seconds=st.sampled_from((0.5, 1.0, 4.0, 5.0, 10.0, 15.0, 31.0)))
    def pass_time(self, seconds: float) -> None:
        """Let time pass a second at a time, as the controller looks."""
        while seconds > 0:
            step_s = min(1.0, seconds)
            seconds -= step_s
            self.t += step_s
            self._carry_out(self.lab.pass_time(step_s))
            self._step()

    @rule(name=st.sampled_from(("a1", "a2")), linked=st.booleans())
    def cut(self, name: str, linked: bool) -> None:
        self.hosts[name].linked = linked

    @rule(name=st.sampled_from(("a1", "a2")))
    def freeze(self, name: str) -> None:
        host = self.hosts[name]
        host.frozen_at = self.t if host.frozen_at is None else host.frozen_at

    @rule(name=st.sampled_from(("a1", "a2")))
    def thaw(self, name: str) -> None:
        """Let it go on: what its wrapper has ended meanwhile is over."""
        host = self.hosts[name]
        host.frozen_at = None
        self._step()

    @rule(name=st.sampled_from(("a1", "a2")))
    def kill(self, name: str) -> None:
        """Kill the agent: boards end by their wrapper, and it comes back with a hello."""
        host = self.hosts[name]
        if host.frozen_at is not None or not host.linked:
            return
        for fence in list(host.living):
            self._end(host, fence)
        host.inbox.clear()
        hello = Hello(
            at=self.lab.now,
            facts=facts(name, 1, boards(name), "again"),
            holds=tuple(self._held(name)),
        )
        self._report(host, hello)
        self._step()

    def _held(self, name: str) -> list[Fence]:
        return sorted(self.lab.lab.agents[AgentId(name)].fences)

    @rule(name=st.sampled_from(("a1", "a2")), number=st.integers(0, 9))
    def resolve(self, name: str, number: int) -> None:
        """A person gives up what he has seen to be dead."""
        host = self.hosts[name]
        away = self.lab.lab.agents[AgentId(name)].state in AWAY
        may_begin = {*host.living, *host.inbox}  # only a host that is off begins nothing
        dead = [fence for fence in self._held(name) if fence not in may_begin]
        if not away or not dead:
            return
        fence = dead[number % len(dead)]
        on_resolve(self.lab.begin(), ORG, str(fence), "jo", "seen to be off")
        self._carry_out(self.lab.end())
        self._step()

    @precondition(lambda self: self.submitted < 12)
    @rule()
    def submit_many(self) -> None:
        for spec in SPECS:
            self.submit(spec)

    # what must hold

    @invariant()
    def no_board_has_two(self) -> None:
        alive = [
            one.attempt.dut
            for host in self.hosts.values()
            for one in host.living.values()
            if one.attempt.dut is not None
        ]
        assert len(alive) == len(set(alive)), f"two live attempts on a board: {alive}"

    @invariant()
    def an_owned_board_stays_with_its_host(self) -> None:
        for name in self.hosts:
            row = self.lab.lab.duts[DutId(f"own-{name}")]
            assert row.agent == name
            assert row.holder == 0 or self.lab.lab.attempts[row.holder].agent == name

    def teardown(self) -> None:
        """Everybody comes back: every board is free again."""
        for host in self.hosts.values():
            host.linked, host.frozen_at = True, None
        for _ in range(100):
            for name, host in self.hosts.items():
                self.beat(name, answered=True)
                for fence in list(host.living):
                    self._end(host, fence)
            self.pass_time(3.0)
            if not any(agent.fences for agent in self.lab.lab.agents.values()):
                break
        held = [row.dut.id for row in self.lab.lab.duts.values() if row.holder]
        assert not held, f"held for ever: {held}"


TestLeaseMachine = LeaseMachine.TestCase
TestLeaseMachine.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)


def test_a_shared_board_is_given_again_within_thirty_five_seconds_of_the_last_sign() -> None:
    world = LeaseMachine()
    world.submit(SPECS[0])
    world.submit(SPECS[0])
    world.submit(SPECS[0])  # two boards: the third waits
    for _ in range(4):
        world.pass_time(5.0)
        world.beat("a1", answered=True)
        world.beat("a2", answered=True)
    holders = {row.holder for row in world.lab.lab.duts.values() if row.holder}
    hosts = {world.lab.lab.attempts[fence].agent for fence in holders}
    gone = sorted(hosts)[0]
    world.cut(gone, linked=False)
    cut_at, before = world.t, world.granted
    other = next(name for name in world.hosts if name != gone)
    while world.granted == before:
        world.pass_time(0.5)
        if world.t % 5 == 0:
            world.beat(other, answered=True)
        assert world.t - cut_at <= 35.0
    assert world.t - cut_at >= 30.0
    assert SHARED_S == 20.0
