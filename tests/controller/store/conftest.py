from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tshrag_controller.store.store import Store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "store")
    yield opened
    await opened.close()
