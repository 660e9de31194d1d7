"""The helpers of the shepherd may hang or die; what they have started does not."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from tests.support.shepherds import KINDS, a_shepherd, a_start, is_alive
from tests.support.waiting import wait_until
from tshrag_agent.attempts.host import Shepherd, StartRefused


def hands_of(shepherd: Shepherd) -> list[int]:
    """Return the pids of the shepherd's helpers."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it ended meanwhile
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            name = (entry / "comm").read_text().strip()
            if entry.name.isdigit() and int(fields[1]) == shepherd.pid and name == "tshrag-hand":
                found.append(int(entry.name))
    return [pid for pid in found if is_alive(pid)]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_killed_hand_takes_no_exit_code_along(tmp_path: Path, kind: str) -> None:
    async with a_shepherd(tmp_path, groups=kind) as shepherd:
        code = "while [ ! -e go ]; do sleep 0.02; done; exit 8"
        await shepherd.start(a_start(tmp_path, "a", "sh", "-c", code))
        hands = hands_of(shepherd)
        assert len(hands) == 1
        os.kill(hands[0], signal.SIGKILL)
        await wait_until(lambda: not is_alive(hands[0]))
        await shepherd.start(a_start(tmp_path, "b", "true"))
        assert (await shepherd.exited("b")).exit_code == 0
        assert [one.key for one in (await shepherd.list()).alive] == ["a"]
        (tmp_path / "go").touch()
        said = await shepherd.exited("a")
        assert (said.exit_code, said.cause) == (8, "exited")


async def test_a_hand_that_hangs_is_replaced_and_holds_nobody_up(tmp_path: Path) -> None:
    async with a_shepherd(tmp_path, start_s=0.5) as shepherd:
        await shepherd.start(a_start(tmp_path, "a", "sh", "-c", "sleep 0.2; exit 8"))
        (hand,) = hands_of(shepherd)
        os.kill(hand, signal.SIGSTOP)
        with pytest.raises(StartRefused, match=r"did not start within 0\.5 s") as refused:
            await shepherd.start(a_start(tmp_path, "b", "true"))
        assert refused.value.code == "start_hung"
        await shepherd.start(a_start(tmp_path, "c", "true"))
        assert (await shepherd.exited("c")).exit_code == 0
        assert (await shepherd.exited("a")).cause in ("exited", "lost")
        assert not is_alive(hand)
        assert (await shepherd.list()).alive == ()


async def test_an_end_that_overtakes_its_start_is_not_lost(tmp_path: Path) -> None:
    async with a_shepherd(tmp_path) as shepherd, asyncio.TaskGroup() as group:
        group.create_task(shepherd.start(a_start(tmp_path, "a", "sleep", "100")))
        ending = group.create_task(shepherd.end("a", "cancel"))
        said = await ending
        assert (said.cause, said.signal) == ("cancel", 15)


async def test_hands_are_few(tmp_path: Path) -> None:
    async with a_shepherd(tmp_path) as shepherd:
        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(shepherd.start(a_start(tmp_path, f"j{number}", "true")))
        assert len(hands_of(shepherd)) <= 4
