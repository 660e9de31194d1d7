"""Samples arrive, move, are crashed on at any step, in any order: each of them is there once."""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.support.kept import Crash, KeptStore
from tshrag_controller.store.hot import HotLimits
from tshrag_controller.store.keep import Rules

T = TypeVar("T")
STEPS = ("written", "sealed", "compacted", "replaced", "uploaded", "verified", "moved", "removed")


class Keeping(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="keeping-"))
        self.crash_at, self.crashed = "", False

    def wait(self, work: Coroutine[object, object, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        self.kept = KeptStore(self.folder, Rules(hot_days=1))
        self.kept.limits = HotLimits(partition_samples=100)
        self.wait(self.kept.begin())
        self.reopen()

    def reopen(self) -> None:
        self.wait(self.kept.store.close())
        self.wait(self.kept.open(self.at))

    def at(self, step: str) -> None:
        if step == self.crash_at:
            self.crash_at = ""
            raise Crash(step)

    @rule(count=st.integers(1, 40))
    def arrive(self, count: int) -> None:
        self.wait(self.kept.arrive(count))

    @rule(days=st.sampled_from([0.01, 1.0, 3.0]))
    def pass_days(self, days: float) -> None:
        self.kept.pass_days(days)

    @rule(step=st.sampled_from(["", *STEPS]), everything=st.booleans())
    def go_round(self, step: str, everything: bool) -> None:
        self.crash_at = step
        try:
            self.wait(self.kept.keeper.round(everything=everything))
        except Crash:
            self.reopen()
        self.crash_at = ""

    @invariant()
    def every_sample_is_there_once(self) -> None:
        if hasattr(self, "kept"):
            assert self.wait(self.kept.read()) == self.kept.told

    def teardown(self) -> None:
        if hasattr(self, "kept"):
            self.wait(self.kept.store.close())
        self.runner.close()
        shutil.rmtree(self.folder, ignore_errors=True)


TestKeeping = Keeping.TestCase
TestKeeping.settings = settings(
    max_examples=10,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
