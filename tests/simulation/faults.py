"""What befalls a simulated lab: weather over the messages, and a nemesis that strikes."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.simulation.broker import Broker
from tests.simulation.history import History
from tests.simulation.lab import AgentProcess, ControllerProcess, Process, lab_keys
from tests.simulation.machines import WALL_0
from tests.simulation.network import Network, Weather
from tshrag_common import subjects
from tshrag_common.ids import AgentId, Fence
from tshrag_common.inventory import AgentFacts
from tshrag_common.reports import Ended, Hello, ReportBatch
from tshrag_common.seals import seal_report
from tshrag_common.wire import REPORTS

_DAY_S = 86_400.0
_WRITE_S = 5.0
"""For so long a crash waits for a write."""
VANISHING = ("vanish",)
"""For labs of boards that are shared; the others have shorter faults, of all kinds."""
FORGERS = 0.15
"""So many of the labs have an agent that lies."""


@dataclass
class World:
    """Everything that a fault may touch."""

    network: Network
    broker: Broker
    agents: list[AgentProcess]
    controllers: list[ControllerProcess]
    history: History
    chance: random.Random
    seed: int = 0
    ends: list[Callable[[], None]] = field(default_factory=list)

    @property
    def processes(self) -> list[Process]:
        return [*self.agents, *self.controllers]


def weather(chance: random.Random) -> Weather:
    """Return how a seed treats messages; a third of the seeds has a clear sky."""
    if chance.random() < 0.33:
        return Weather()
    return Weather(
        drop=chance.choice((0.0, 0.01, 0.05, 0.3)),
        double=chance.choice((0.0, 0.02, 0.1)),
        delay=chance.choice((0.0, 0.02, 0.1)),
        delay_s=chance.choice((0.5, 5.0, 60.0)),
        reorder=chance.choice((0.0, 0.1)),
    )


class Nemesis:
    """Strikes at random times until it is told to stop; then `heal` undoes everything."""

    def __init__(self, world: World, only: tuple[str, ...] | None = None) -> None:
        self._world, self._chance = world, world.chance
        faults = list(only or [name for name in _FAULTS if name not in VANISHING])
        self._faults = self._chance.sample(faults, self._chance.randint(1, len(faults)))
        self._every_s = self._chance.choice((1.5, 4.0, 10.0))

    async def strike(self, until_s: float) -> None:
        world = self._world
        world.network.weather = weather(self._chance)
        world.history.note(0.0, "weather", world.network.weather, tuple(self._faults))
        loop = world.network.loop
        async with asyncio.TaskGroup() as group:
            group.create_task(forge(world, until_s))
            while True:
                await asyncio.sleep(self._chance.expovariate(1 / self._every_s))
                if loop.time() >= until_s:
                    break
                name = self._chance.choice(self._faults)
                group.create_task(self._one(name, until_s))

    async def _one(self, name: str, until_s: float) -> None:
        self._world.history.note(self._world.network.loop.time(), "fault", name)
        await _FAULTS[name](self._world, until_s)

    def heal(self) -> None:
        """Make everything well again."""
        world = self._world
        loop = world.network.loop
        world.history.note(loop.time(), "heal")
        world.network.weather = Weather()
        world.broker.slow_s = 0.0
        if not world.broker.is_up:
            world.broker.start()
        for stream in world.broker.streams.values():
            stream.is_full = False
        for agent in world.agents:
            for board in agent.machine.boards.values():
                board.plug()
        for process in world.processes:
            if process.own_disk is not None:
                process.own_disk.is_full, process.own_disk.slow_s = False, 0.0
            process.thaw()
            process.wanted = True
            process.start()
            world.network.heal(process.host)
        world.network.heal("people")


async def _rest(world: World, until_s: float, mean_s: float, most_s: float) -> None:
    """Let a fault last for a while, but not longer than there are faults."""
    loop = world.network.loop
    seconds = min(most_s, world.chance.expovariate(1 / mean_s))
    await asyncio.sleep(max(0.0, min(seconds, until_s - loop.time())))


async def _partition(world: World, until_s: float) -> None:
    host = world.chance.choice([*(each.host for each in world.processes), "people"])
    up, down = world.chance.choice(((True, True), (True, True), (True, False), (False, True)))
    world.history.note(world.network.loop.time(), "cut", host, up, down)
    world.network.cut(host, up=up, down=down)
    await _rest(world, until_s, 12.0, 60.0)
    world.network.heal(host)


async def _reset(world: World, until_s: float) -> None:
    world.network.reset(world.chance.choice(world.processes).host)


async def _freeze(world: World, until_s: float) -> None:
    process = world.chance.choice(world.processes)
    process.freeze()
    life = process.context
    await _rest(world, until_s, 15.0, 120.0)
    if process.context is life:
        process.thaw()


async def _in_a_write(world: World, process: Process) -> None:
    """Wait, half of the times, until the disk of a process is in the middle of a write."""
    disk = process.own_disk
    if disk is not None and process.is_up and world.chance.random() < 0.5:
        await disk.writing(_WRITE_S)


async def _crash(world: World, process: Process, until_s: float, mean_s: float) -> None:
    await _in_a_write(world, process)
    process.wanted = False
    process.kill()
    await _rest(world, until_s, mean_s, 60.0)
    process.wanted = True
    process.start()


async def _crash_agent(world: World, until_s: float) -> None:
    mean_s = world.chance.choice((0.3, 5.0))
    await _crash(world, world.chance.choice(world.agents), until_s, mean_s)


async def _power(world: World, until_s: float) -> None:
    agent = world.chance.choice(world.agents)
    await _in_a_write(world, agent)
    agent.wanted = False
    agent.kill()
    agent.machine.lose_power()
    await _rest(world, until_s, 8.0, 60.0)
    agent.wanted = True
    agent.start()


async def _crash_controller(world: World, until_s: float) -> None:
    controller = world.chance.choice(world.controllers)
    loses = world.chance.random() < 0.2
    await _in_a_write(world, controller)
    controller.wanted = False
    controller.kill()
    if loses:
        controller.disk.lose_projection()
    await _rest(world, until_s, 3.0, 30.0)
    controller.wanted = True
    controller.start()


async def _kill_broker(world: World, until_s: float) -> None:
    if not world.broker.is_up:
        return
    world.broker.kill()
    await _rest(world, until_s, 3.0, 30.0)
    if not world.broker.is_up:
        world.broker.start()


async def _slow_broker(world: World, until_s: float) -> None:
    world.broker.slow_s = world.chance.choice((0.05, 1.0, 5.5))
    await _rest(world, until_s, 5.0, 30.0)
    world.broker.slow_s = 0.0


async def _clock(world: World, until_s: float) -> None:
    process = world.chance.choice([*world.processes, *world.controllers, *world.controllers])
    clock = process.own_clock
    if clock is not None:
        clock.offset_s = world.chance.choice((-_DAY_S, -3600.0, 0.0, 3600.0, _DAY_S))
        world.history.note(world.network.loop.time(), "clock", process.name, clock.offset_s)


async def _full_disk(world: World, until_s: float) -> None:
    process = world.chance.choice(world.processes)
    disk = process.own_disk
    if disk is not None:
        disk.is_full = True
        await _rest(world, until_s, 8.0, 40.0)
        disk.is_full = False


async def _slow_disk(world: World, until_s: float) -> None:
    process = world.chance.choice(world.processes)
    disk = process.own_disk
    if disk is not None:
        disk.slow_s = world.chance.choice((0.1, 1.0, 5.0))
        await _rest(world, until_s, 8.0, 40.0)
        disk.slow_s = 0.0


async def _full_stream(world: World, until_s: float) -> None:
    names = [name for name in ("LOG", "EV", "MET", "LOGS") if name in world.broker.streams]
    if names:
        stream = world.broker.streams[world.chance.choice(names)]
        stream.is_full = True
        await _rest(world, until_s, 6.0, 30.0)
        stream.is_full = False


async def _board(world: World, until_s: float) -> None:
    boards = [board for agent in world.agents for board in agent.machine.boards.values()]
    if not boards:
        return
    board = world.chance.choice(boards)
    if world.chance.random() < 0.4:
        board.reboot()
        return
    board.unplug()
    await _rest(world, until_s, 8.0, 60.0)
    board.plug()


async def _garbage(world: World, until_s: float) -> None:
    """Send what nobody sent, on every subject that somebody reads."""
    agent = AgentId(world.chance.choice(world.agents).name)
    data = world.chance.choice((b"", b"\x00", b"{", b"\x01\xc1", b"TSR1" + bytes(40), b"[]" * 99))
    said = [subjects.said(agent, kind) for kind in ("ev", "met", "logs", "hb", "blob")]
    subject = world.chance.choice([*said, subjects.command(agent)])
    if world.broker.is_up:
        world.broker.publish(subject, data, {}, "")


async def _replay(world: World, until_s: float) -> None:
    """Say commands again that were said before."""
    broker = world.broker
    for _ in range(min(5, len(broker.commands))):
        subject, data = world.chance.choice(broker.commands)
        if broker.is_up:
            broker.publish(subject, data, {}, "")


async def _vanish(world: World, until_s: float) -> None:
    """Let an agent that has a board be silent for about as long as its lease, cut off or frozen."""
    chance, loop = world.chance, world.network.loop
    busy = [each for each in world.agents if any(b.sessions for b in each.machine.boards.values())]
    agent = chance.choice(busy or world.agents)
    is_cut = chance.random() < 0.6
    world.history.note(loop.time(), "vanishes", agent.name, is_cut)
    if is_cut:
        world.network.cut(agent.host)
    else:
        agent.freeze()
    await asyncio.sleep(max(0.0, min(chance.uniform(14.0, 50.0), until_s - loop.time())))
    world.network.heal(agent.host)
    agent.thaw()


_FAULTS: dict[str, Callable[[World, float], Awaitable[None]]] = {
    "partition": _partition,
    "reset": _reset,
    "freeze": _freeze,
    "crash agent": _crash_agent,
    "power": _power,
    "crash controller": _crash_controller,
    "kill broker": _kill_broker,
    "slow broker": _slow_broker,
    "clock": _clock,
    "full disk": _full_disk,
    "slow disk": _slow_disk,
    "full stream": _full_stream,
    "board": _board,
    "garbage": _garbage,
    "replay": _replay,
    "vanish": _vanish,
}


async def forge(world: World, until_s: float) -> None:
    """In a few labs an agent that holds nothing tells now and then the end of what another holds.

    By chances of its own: the other labs stay as they were.
    """
    chance, loop, name = random.Random(world.seed), world.network.loop, AgentId("mallory")
    if chance.random() > FORGERS:
        return
    while loop.time() < until_s:
        await asyncio.sleep(chance.expovariate(1 / 3.0))
        held = [facts[1] for _, facts in world.history.of("host_began")]
        if not held or not world.broker.is_up or loop.time() >= until_s:
            continue
        at = WALL_0 + round(loop.time() * 1e6)
        hello = Hello(at=at, facts=AgentFacts(agent=name, boot="m", version="sim", slots=0))
        ended = Ended(at=at, fence=Fence(int(str(held[-1]))), outcome="failed")
        spool = f"m{chance.getrandbits(40)}"
        batch = ReportBatch(agent=name, spool=spool, first_seq=1, reports=(hello, ended))
        world.history.note(loop.time(), "forged", held[-1])
        sealed = seal_report(lab_keys().mac_key(name), name, REPORTS.encode(batch))
        world.broker.publish(subjects.said(name, "ev"), sealed, {}, "")
