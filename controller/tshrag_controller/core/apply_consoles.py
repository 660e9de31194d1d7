"""PURE: what events of consoles do to the Lab: they are counted. Part of `apply`."""

from collections.abc import Callable
from typing import Any

from tshrag_controller.core import console_events as e
from tshrag_controller.core.lab import Lab


def _signed(lab: Lab, event: e.DutSigned, at: int) -> None:
    lab.count(f"signs.{event.sign}")


APPLY: dict[type, Callable[[Lab, Any, int], None]] = {e.DutSigned: _signed}
