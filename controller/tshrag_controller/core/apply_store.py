"""PURE: what operators did to the stored samples changes nothing in the Lab; it is a record."""

from collections.abc import Callable
from typing import Any

from tshrag_controller.core.lab import Lab
from tshrag_controller.core.store_events import StoreTended


def _store_tended(_lab: Lab, _event: StoreTended, _at: int) -> None:
    """Change nothing."""


APPLY: dict[type, Callable[[Lab, Any, int], None]] = {StoreTended: _store_tended}
