"""PURE: what events of channels do to the Lab: they are counted. Part of `apply`."""

from collections.abc import Callable
from typing import Any

from tshrag_controller.core.channel_events import ChannelNoted
from tshrag_controller.core.lab import Lab


def _noted(lab: Lab, event: ChannelNoted, at: int) -> None:
    lab.count(f"channels.{event.phase}")


APPLY: dict[type, Callable[[Lab, Any, int], None]] = {ChannelNoted: _noted}
