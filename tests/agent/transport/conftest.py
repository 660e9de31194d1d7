"""What the tests of transports share: a place on this machine that every user may use."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a directory that a user of a DUT may write to; pytest's own is for its user only."""
    made = Path(tempfile.mkdtemp(prefix="tshrag-place-"))
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def run_dir(place: Path) -> str:
    """Give the directory for the fences of a DUT."""
    return str(place / "run")
