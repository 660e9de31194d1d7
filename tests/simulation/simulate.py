"""One seed, one lab, one history: ``python -m tests.simulation.simulate 17`` runs seed 17."""

import asyncio
import logging
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulation.broker import Broker
from tests.simulation.checker import Checker
from tests.simulation.faults import VANISHING, Nemesis, World
from tests.simulation.history import History, recorded
from tests.simulation.lab import AgentProcess, ControllerProcess
from tests.simulation.log_watch import LogWatch
from tests.simulation.machines import Board, Machine
from tests.simulation.mutations import MUTATIONS, Mutation, Rules, applied
from tests.simulation.network import Connection, Network
from tests.simulation.vloop import LIFE, VirtualLoop, run_virtual
from tests.simulation.workload import Order, People, plan_orders
from tshrag_agent.journal.records import SPOOLS
from tshrag_common import subjects

HEAL_S = 120.0
"""How long a lab has, when everything is well again, until every run has ended."""
_LOOK_S = 0.5
_AT_ONCE = 20


@dataclass(frozen=True)
class Outcome:
    """What came of a seed."""

    seed: int
    mutation: Mutation | None
    broken: tuple[str, ...]
    digest: str
    virtual_s: float
    steps: int
    jobs: int
    history: History
    torn: int = 0

    @property
    def played(self) -> Counter[str]:
        """Return how often each fault came."""
        played = Counter(str(facts[0]) for _, facts in self.history.of("fault"))
        return played + Counter({"torn write": self.torn})

    def __str__(self) -> str:
        said = "; ".join(self.broken[:5]) or "ok"
        mutation = f" mutation={self.mutation}" if self.mutation else ""
        return f"seed={self.seed} commit={commit()}{mutation} digest={self.digest}: {said}"


def simulate(
    seed: int, mutation: Mutation | None = None, verbose: bool = False, *, shared: bool = False
) -> Outcome:
    """Run a seed to its end; the same seed gives the same history.

    With `shared` agents vanish again and again from boards that others reach, too.
    """
    random.seed(seed)  # the product's own jitter
    Connection.count = 0
    folder = Path(tempfile.mkdtemp(prefix="sim-", dir=_memory()))
    level = logging.root.manager.disable
    logging.disable(logging.NOTSET if verbose else logging.CRITICAL)
    try:
        with applied(mutation):
            return run_virtual(lambda loop: Lab(loop, seed, mutation, folder, shared).play(verbose))
    finally:
        logging.disable(level)
        shutil.rmtree(folder, ignore_errors=True)


class Lab:
    """All of one simulated lab."""

    def __init__(
        self,
        loop: VirtualLoop,
        seed: int,
        mutation: Mutation | None,
        folder: Path,
        shared: bool = False,
    ) -> None:
        self._is_shared = shared
        self._loop, self._seed, self._mutation = loop, seed, mutation
        self._rules = Rules(mutation)
        chance = self._chance("lab")
        self._history = History()
        self._broker = Broker(loop, self._chance("broker"))
        self._network = Network(loop, self._broker, self._chance("network"))
        self._log = LogWatch(self._history)
        self._broker.on_append.append(self._log.on_append)
        self._faults_s = chance.uniform(15.0, 60.0) + (45.0 if shared else 0.0)
        boards = 0
        self._agents: list[AgentProcess] = []
        for number in range(chance.randint(2, 5)):
            machine = self._machine(f"a{number}", folder, chance.randint(1, 4))
            for _ in range(chance.choice((0, 1, 2)) if boards < 4 else 0):
                boards += 1
                self._add_board(machine, f"b{boards}", chance.choice(("ssh", "ssh", "serial")))
            self._agents.append(AgentProcess(machine, self._network, self._history, self._rules))
        self._share(self._chance("shared"))
        frames = chance.choice((30, 100, 20_000))
        self._controllers = [
            self._controller(f"ctl-{number}", folder, frames)
            for number in range(chance.choice((1, 1, 2, 2, 3)))
        ]
        orders = plan_orders(self._chance("orders"), self._faults_s, boards)
        self._people = People(orders, self._network, self._history)
        self._orders: list[Order] = orders

    def _controller(self, name: str, folder: Path, checkpoint_frames: int) -> ControllerProcess:
        chance = self._chance(name)
        rules, history = self._rules, self._history
        return ControllerProcess(
            name, self._network, history, rules, chance, folder / name, checkpoint_frames
        )

    def _chance(self, what: str) -> random.Random:
        return random.Random(f"{self._seed} {what}")

    def _machine(self, name: str, folder: Path, slots: int) -> Machine:
        chance = self._chance(name)
        machine = Machine(
            name,
            self._loop,
            chance,
            self._history,
            folder / name,
            slots,
            honest_clock=self._rules.has_monotonic_clocks,
        )
        machine.disk.syncs = self._rules.syncs
        return machine

    def _add_board(self, machine: Machine, name: str, way: str) -> None:
        board = Board(name, way, machine, checks_fences=self._rules.duts_check_fences)
        machine.boards[name] = board

    def _share(self, chance: random.Random) -> None:
        """Let a board be reached by another agent, too; a console has one owner."""
        often = 1.0 if self._is_shared else 0.3
        for agent in self._agents:
            others = [each.machine for each in self._agents if each is not agent]
            for board in list(agent.machine.boards.values()):
                if (
                    board.way == "ssh"
                    and board.machine is agent.machine
                    and chance.random() < often
                ):
                    board.is_shared = True
                    chance.choice(others).boards[board.name] = board

    async def play(self, verbose: bool) -> Outcome:
        loop, history = self._loop, self._history
        if verbose:
            logging.root.handlers[:] = [_Said(history, loop)]
            logging.root.setLevel(logging.INFO)
        world = World(
            network=self._network,
            broker=self._broker,
            agents=self._agents,
            controllers=self._controllers,
            history=history,
            chance=self._chance("faults"),
            seed=self._seed,
        )
        loop.set_exception_handler(self._on_exception)
        with recorded(history, loop):
            await self._live(world)
        stores = [controller.disk.folder / "store" for controller in self._controllers]
        Checker(history, self._log, self._agents, stores, loop.time()).check()
        return Outcome(
            seed=self._seed,
            mutation=self._mutation,
            broken=tuple(history.broken),
            digest=history.digest,
            virtual_s=loop.time(),
            steps=loop.steps,
            jobs=len(self._log.jobs),
            history=history,
            torn=sum(each.own_disk.torn for each in world.processes if each.own_disk),
        )

    async def _live(self, world: World) -> None:
        """Let everything happen, heal it, and wait until all is quiet."""
        nemesis = Nemesis(world, VANISHING if self._is_shared else None)
        for process in (*world.processes, self._people):
            process.start()
        await nemesis.strike(self._faults_s)
        nemesis.heal()
        for _ in range(round(HEAL_S / _LOOK_S)):
            if not self._unrest():
                return
            await asyncio.sleep(_LOOK_S)
        self._history.violate(self._loop.time(), "I1", f"not quiet in time: {self._unrest()}")

    def _unrest(self) -> str:
        """Return what is still on its way; empty when all is quiet."""
        if self._people.waiting:
            return f"{self._people.waiting} requests are not answered"
        if not self._log.is_final:
            return f"{self._log.open_jobs} jobs are open"
        for agent in self._agents:
            if agent.roster is None:
                return f"{agent.name} is down"
            if agent.roster.live:
                return f"{agent.name} has attempts {sorted(agent.roster.live)}"
            for spool in SPOOLS:
                state = agent.journal.state(spool)
                if state.confirmed < state.last:
                    return f"{agent.name}: {spool} {state.confirmed} of {state.last} confirmed"
        return self._unrest_of_controllers()

    def _unrest_of_controllers(self) -> str:
        """Return which controller has not followed yet, or that not exactly one of them leads."""
        leaders = self._broker.heard_by(subjects.ctl_lead())
        if leaders != 1:
            return f"{leaders} controllers lead"
        for controller in self._controllers:
            applied, newest = controller.disk.applied, self._broker.streams["LOG"].last_seq
            if applied < newest:
                return f"{controller.name} is at {applied}, the LOG at {newest}"
            for agent in self._agents:
                for spool in ("samples", "output"):
                    state = agent.journal.state(spool)
                    upto = controller.disk.upto(agent.name, spool, state.spool)
                    if upto < state.last:
                        return f"{controller.name}: {agent.name}: {spool} {upto} of {state.last}"
        return ""

    def _on_exception(self, _loop: object, context: dict[str, object]) -> None:
        what = f"{context.get('message')}: {context.get('exception')!r}"
        self._history.violate(self._loop.time(), "I19", what)


def _memory() -> str | None:
    """Return a folder in memory, where there is one: what is synced there costs nothing."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() else None


def commit() -> str:
    asked = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


class _Said(logging.Handler):
    """Puts what the product logs into the history, where somebody wants to read it."""

    def __init__(self, history: History, loop: VirtualLoop) -> None:
        super().__init__()
        self._history, self._loop = history, loop

    def emit(self, record: logging.LogRecord) -> None:
        known = logging.LogRecord("", 0, "", 0, "", (), None).__dict__
        extra = {key: value for key, value in record.__dict__.items() if key not in known}
        why = f" {record.exc_info[1]!r}" if record.exc_info else ""
        what = f"log {record.levelname} life {LIFE.get()} {record.getMessage()}{why}"
        self._history.note(self._loop.time(), what, extra)


def main(arguments: list[str]) -> int:
    """Run the seeds ``FIRST [LAST]``; of a single one tell all that happened."""
    words = [each for each in arguments if not each.isdigit()]
    numbers = [int(each) for each in arguments if each.isdigit()]
    if not numbers or any(word not in (*MUTATIONS, "--log") for word in words):
        sys.stdout.write(f"simulate FIRST [LAST] [--log] [{'|'.join(MUTATIONS)}]\n")
        return 2
    mutation = next((each for each in MUTATIONS if each in words), None)
    if len(numbers) == 1:
        outcome = simulate(numbers[0], mutation, "--log" in words)
        sys.stdout.write("\n".join([*outcome.history.lines(), str(outcome)]) + "\n")
        return 1 if outcome.broken else 0
    return _many(numbers[0], numbers[1], mutation)


def _many(first: int, last: int, mutation: Mutation | None) -> int:
    """Run seeds on all processors; tell of those that fail."""
    began, total = time.monotonic(), Some()
    begins = range(first, last + 1, _AT_ONCE)
    with ProcessPoolExecutor() as pool:
        asked = [
            pool.submit(_some, begin, min(last, begin + _AT_ONCE - 1), mutation) for begin in begins
        ]
        for each in as_completed(asked):
            some = each.result()
            total.add(some)
            sys.stdout.writelines(some.failed)
            sys.stdout.flush()
    took_s, count = time.monotonic() - began, last + 1 - first
    played = ", ".join(f"{name} {times}" for name, times in sorted(total.played.items()))
    sys.stdout.write(
        f"played: {played}\n"
        f"{count} seeds, {len(total.failed)} failed, {total.jobs} jobs, "
        f"{total.virtual_s / 3600:.1f} virtual hours "
        f"in {took_s:.0f} s, {count / took_s:.2f} seeds/s\n"
    )
    return 1 if total.failed else 0


@dataclass
class Some:
    """What came of some seeds; a line for each that fails."""

    failed: list[str] = field(default_factory=list)
    virtual_s: float = 0.0
    jobs: int = 0
    played: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Some") -> None:
        self.failed += other.failed
        self.virtual_s += other.virtual_s
        self.jobs += other.jobs
        self.played += other.played


def _some(first: int, last: int, mutation: Mutation | None) -> Some:
    found = Some()
    for seed in range(first, last + 1):
        outcome = simulate(seed, mutation)
        failed = [f"{outcome}\n"] if outcome.broken else []
        found.add(Some(failed, outcome.virtual_s, outcome.jobs, outcome.played))
    return found


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
