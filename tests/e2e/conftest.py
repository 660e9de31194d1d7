"""A lab of real processes: broker, controller and what a test starts beside them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tshrag_controller.cli.processes import LabProcesses


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[LabProcesses]:
    made = LabProcesses(tmp_path / "lab", {"TSHRAG_NATS_URL": ""})
    made.state.mkdir()
    try:
        yield made
    finally:
        made.stop()
