"""What people ask of a simulated lab: runs of several shapes, cancels, the same submit again."""

import asyncio
import random
from dataclasses import dataclass
from typing import Any

from tests.simulation.client import URL
from tests.simulation.history import History
from tests.simulation.lab import Process, a_document
from tests.simulation.machines import WALL_0, Script
from tests.simulation.mutations import Rules
from tests.simulation.network import Network
from tshrag_common import ids, requests as r
from tshrag_common.bus.connection import connect
from tshrag_common.client import Client
from tshrag_common.errors import LabError, Refused, Unavailable

ASK_S = 8.0
PLANNED_S = 45.0
"""All work of a lab takes at most so long where one slot does it: it must fit in the healing."""

GANGS = 0.4
"""So many of the labs have a gang."""


@dataclass
class Order:
    """A run that somebody wants."""

    name: str
    key: str
    document: dict[str, Any]
    at_s: float
    again_at_s: float  # 0: never
    cancel_at_s: float  # 0: never
    cancels_job: int  # 0: the whole run
    priority: int
    lines: int  # that all its jobs say, where all of them pass


def plan_orders(chance: random.Random, seconds: float, boards: int) -> list[Order]:
    """Return the runs of a seed."""
    jobs = chance.randint(10, 60)
    orders: list[Order] = []
    budget_s = PLANNED_S
    while jobs > 0 and budget_s > 0 and len(orders) < 12:
        count = min(jobs, chance.randint(1, 12))
        jobs -= count
        at_s = chance.uniform(0.0, seconds * 0.8)
        name = ids.new_run((WALL_0 // 1000) + round(at_s * 1000), chance.getrandbits(80))
        document, scripts = _document(chance, len(orders), count, boards)
        budget_s -= sum(min(script.lasts_s, 8.0) for script in scripts)
        all_pass = all(script.ends == "pass" for script in scripts)
        lines = sum(script.lines for script in scripts)
        if all_pass and lines and chance.random() < 0.6:
            document["criteria"] = {"all": {"metric": "sim::line::count", "equals": lines}}
        orders.append(
            Order(
                name=name,
                key=f"key-{len(orders)}" if chance.random() < 0.5 else "",
                document=document,
                at_s=at_s,
                again_at_s=at_s + chance.uniform(0, 20) if chance.random() < 0.3 else 0.0,
                cancel_at_s=at_s + chance.uniform(0, 15) if chance.random() < 0.25 else 0.0,
                cancels_job=chance.randint(1, count) if chance.random() < 0.5 else 0,
                priority=chance.choice((0, 50, 50, 100)),
                lines=lines if "criteria" in document else 0,
            )
        )
    extra = random.Random(chance.getrandbits(64))
    if extra.random() < GANGS:
        orders.append(_gang(extra, seconds, boards, len(orders)))
    return orders


def _gang(chance: random.Random, seconds: float, boards: int, number: int) -> Order:
    """Return a run of jobs that start together, on hosts and at most two boards."""
    at_s = chance.uniform(0.0, seconds * 0.8)
    places = ["host", *chance.choices(("host", "board"), k=chance.randint(1, 2))]
    left = min(2, boards)
    targets: dict[str, Any] = {}
    members: dict[str, Any] = {}
    for index, place in enumerate(places):
        on_board = place == "board" and left > 0
        left -= on_board
        if not on_board and sum(each["runtime"] == "host" for each in targets.values()) == 2:
            continue  # two hosts with a slot are all that every lab has
        role, hold = f"m{index}", chance.choice(("run", "job"))
        kind = {"runtime": "dut", "kind": "pi", "hold": hold} if on_board else {"runtime": "host"}
        targets[role] = kind
        members[role] = {**_leaf(chance, _script(chance), ""), "target": role}
        members[role].pop("on_fail", None)
    return Order(
        name=ids.new_run((WALL_0 // 1000) + round(at_s * 1000), chance.getrandbits(80)),
        key="",
        document={"name": f"sim-{number}", "targets": targets, "schedule": {"gang": members}},
        at_s=at_s,
        again_at_s=0.0,
        cancel_at_s=at_s + chance.uniform(0, 15) if chance.random() < 0.2 else 0.0,
        cancels_job=0,
        priority=50,
        lines=0,
    )


def _document(
    chance: random.Random, number: int, count: int, boards: int
) -> tuple[dict[str, Any], list[Script]]:
    place = chance.choice(("host", "board", "mixed")) if boards else "host"
    hold = chance.choice(("run", "job"))
    scripts = [_script(chance) for _ in range(count)]
    leaves = [_leaf(chance, script, place) for script in scripts]
    schedule = _tree(chance, leaves)
    document: dict[str, Any] = {"name": f"sim-{number}", "schedule": schedule}
    if place != "host":
        document["targets"] = {"board": {"runtime": "dut", "kind": "pi", "hold": hold}}
    return document, scripts


def _script(chance: random.Random) -> Script:
    ends = chance.choices(("pass", "fail", "hang", "deaf", "poison"), weights=(85, 7, 3, 2, 1.5))[0]
    seconds = round(chance.choice((0.05, chance.uniform(0.1, 2.0), chance.uniform(1.0, 6.0))), 3)
    return Script(seconds=seconds, ends=ends, lines=chance.choice((0, 1, 3, 8)))


def _leaf(chance: random.Random, script: Script, place: str) -> dict[str, Any]:
    argv = ["sim", f"seconds={script.seconds}", f"ends={script.ends}", f"lines={script.lines}"]
    leaf: dict[str, Any] = {"command": argv, "timeout": f"{chance.choice((7, 10))}s"}
    leaf["attempts"] = chance.choice((2, 3))
    if chance.random() < 0.3:
        leaf["on_fail"] = "continue"
    if place == "board" or (place == "mixed" and chance.random() < 0.5):
        leaf["target"] = "board"
    return leaf


def _tree(chance: random.Random, leaves: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a tree of at most two levels over the leaves."""
    if len(leaves) > 3 and chance.random() < 0.6:
        cut = chance.randint(1, len(leaves) - 1)
        kinds = chance.choice((("parallel", "parallel"), ("parallel", "sequence")))
        halves = [{kinds[0]: leaves[:cut]}, {kinds[1]: leaves[cut : cut + 4]}]
        halves += [{"parallel": leaves[cut + 4 :]}] if leaves[cut + 4 :] else []
        return {chance.choice(("sequence", "parallel")): halves}
    kind = "parallel" if len(leaves) > 4 else chance.choice(("sequence", "parallel"))
    return {kind: leaves}


class People(Process):
    """Those who submit and cancel; they ask until they are answered."""

    def __init__(self, orders: list[Order], network: Network, history: History) -> None:
        super().__init__("people", "people", network, history, Rules())
        self.orders = orders
        self.waiting = 0
        self._chance = random.Random(len(orders))

    async def serve(self) -> None:
        bus = await connect(URL, name=self.name, client=self.client)
        client = Client(bus)
        async with asyncio.TaskGroup() as group:
            group.create_task(bus.watch())
            for order in self.orders:
                group.create_task(self._submit(client, order, order.at_s, order.name))
                self.waiting += 1
                if order.again_at_s:
                    name = order.name
                    if order.key:  # another id, the same key: it is the same run
                        name = ids.new_run(WALL_0 // 1000, self._chance.getrandbits(80))
                    group.create_task(self._submit(client, order, order.again_at_s, name))
                    self.waiting += 1
                if order.cancel_at_s:
                    group.create_task(self._cancel(client, order))
                    self.waiting += 1

    async def _submit(self, client: Client, order: Order, at_s: float, name: str) -> None:
        await asyncio.sleep(max(0.0, at_s - self.loop.time()))
        asked = r.Submit(
            run=name,
            profile=a_document(order.document),
            key=order.key,
            priority=order.priority,
            park=True,
        )
        while True:
            try:
                answer = await client.ask("submit", asked, r.SubmitAnswer, ASK_S)
                self.history.note(self.loop.time(), "accepted", order.key, name, answer.run)
                break
            except Unavailable:
                await asyncio.sleep(1.0)
            except LabError as error:
                self.history.violate(self.loop.time(), "I1", f"submit refused: {error.line}")
                break
        self.waiting -= 1

    async def _cancel(self, client: Client, order: Order) -> None:
        await asyncio.sleep(order.cancel_at_s)
        name = order.name
        if order.cancels_job:
            name = ids.job_of(ids.RunId(order.name), order.cancels_job)
        self.history.note(self.loop.time(), "wants_cancel", name)
        for _ in range(40):
            try:
                asked = r.Cancel(id=name, wait_s=1.0)
                await client.ask("cancel", asked, r.CancelAnswer, ASK_S)
                self.history.note(self.loop.time(), "cancelled", name)
                break
            except Refused as error:
                self.history.note(self.loop.time(), "not_cancelled", name, error.code)
                if not error.code.startswith("unknown"):
                    break
            except Unavailable:
                pass
            await asyncio.sleep(1.0)
        self.waiting -= 1
