"""One shepherd a test: in every kind of groups, or in the best one alone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.shepherds import KINDS, a_shepherd, needs
from tshrag_agent.attempts.host import Shepherd


@pytest.fixture(params=["auto", *KINDS])
async def shepherd(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shepherd]:
    needs(request.param if request.param != "auto" else "proc")
    async with a_shepherd(tmp_path, groups=request.param) as opened:
        yield opened


@pytest.fixture
async def lone(tmp_path: Path) -> AsyncIterator[Shepherd]:
    async with a_shepherd(tmp_path) as opened:
        yield opened
