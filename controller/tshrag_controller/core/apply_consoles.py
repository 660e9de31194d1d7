"""PURE: what events of consoles do to the Lab: they are counted, and crashes feed the health of
the DUT. Part of `apply`.
"""

from collections.abc import Callable
from typing import Any

from tshrag_common.signs import CRASHES
from tshrag_controller.core import console_events as e
from tshrag_controller.core.apply_health import note_crash
from tshrag_controller.core.lab import Lab


def _signed(lab: Lab, event: e.DutSigned, at: int) -> None:
    lab.count(f"signs.{event.sign}")
    job = lab.jobs.get(event.job) if event.job is not None else None
    if job is not None and event.sign in CRASHES:
        note_crash(lab, event.dut, job.run, event.fence)


APPLY: dict[type, Callable[[Lab, Any, int], None]] = {e.DutSigned: _signed}
