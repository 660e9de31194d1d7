"""The simulated disks are SQLite on the loop, in virtual time: that is the point of them."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    """Let the loop block: no real time passes in it."""
    yield
