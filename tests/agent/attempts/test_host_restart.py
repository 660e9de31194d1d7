"""What of an attempt lives on when its agent is killed, frozen or away."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec

from tests.support.shepherds import a_shepherd, a_start, is_alive, python
from tests.support.waiting import wait_until
from tshrag_agent.attempts.follow import Tails
from tshrag_agent.attempts.host import HostStart

AGENT = """
import asyncio, pathlib, sys, msgspec
from tshrag_agent.attempts.host import HostStart, Shepherd
async def main():
    shepherd = await Shepherd.open(pathlib.Path(sys.argv[1]))
    await shepherd.start(msgspec.json.decode(sys.argv[2], type=HostStart))
    print("started", flush=True)
    await asyncio.sleep(100)
asyncio.run(main())
"""

# 3,000 lines in about a second, and an exit code that nobody returns by chance.
TALKER = """
import sys, time
for number in range(3000):
    print(f"line {number}", flush=True)
    if number % 100 == 0:
        time.sleep(0.02)
sys.exit(7)
"""


@asynccontextmanager
async def an_agent(folder: Path, what: HostStart) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a process of its own that opens the shepherd and starts `what`; killed in the end."""
    said = msgspec.json.encode(what).decode()
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", AGENT, str(folder), said, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert agent.stdout is not None
        async with asyncio.timeout(20):
            assert await agent.stdout.readline() == b"started\n"
        yield agent
    finally:
        if agent.returncode is None:
            agent.kill()
        await agent.wait()


async def test_a_killed_agent_costs_neither_output_nor_exit_code(tmp_path: Path) -> None:
    talker = a_start(tmp_path, "a", *python(TALKER))
    async with an_agent(tmp_path, talker) as agent:
        await wait_until(lambda: (tmp_path / "a.out").stat().st_size > 5000)
        agent.kill()
        await agent.wait()
    async with a_shepherd(tmp_path) as shepherd:
        (left,) = (await shepherd.list()).alive
        assert left.key == "a"
        assert left.age_us > 0
        ended = shepherd.exited("a")
        follow = Tails().follow(tmp_path / "a.out", offset=1234, ended=ended)
        async with aclosing(follow) as chunks:
            text = b"".join([chunk.data async for chunk in chunks])
        said = await ended
    whole = "".join(f"line {number}\n" for number in range(3000)).encode()
    assert text == whole[1234:]
    assert (said.exit_code, said.cause) == (7, "exited")
    assert said.written_bytes["stdout"] == len(whole)


async def test_a_job_that_ends_without_an_agent_keeps_its_result(tmp_path: Path) -> None:
    code = "while [ ! -e go ]; do sleep 0.02; done; exit 9"
    async with an_agent(tmp_path, a_start(tmp_path, "a", "sh", "-c", code)) as agent:
        agent.kill()
        await agent.wait()
    (tmp_path / "go").touch()
    await wait_until(lambda: "exit" in (tmp_path / "shepherd/attempts.jsonl").read_text())
    async with a_shepherd(tmp_path) as shepherd:
        assert [one.exit_code for one in (await shepherd.list()).exits] == [9]
        assert (await shepherd.exited("a")).exit_code == 9
        await shepherd.forget("a")
        assert (await shepherd.list()).exits == ()


async def test_a_frozen_agent_keeps_nobody_alive_beyond_the_lease(tmp_path: Path) -> None:
    sleeper = a_start(tmp_path, "a", "sh", "-c", "echo $$; exec sleep 100", lease_s=0.5)
    async with an_agent(tmp_path, sleeper) as agent:
        await wait_until(lambda: (tmp_path / "a.out").read_text())
        agent.send_signal(signal.SIGSTOP)
        main = int((tmp_path / "a.out").read_text())
        await wait_until(lambda: not is_alive(main))
        async with a_shepherd(tmp_path) as shepherd:
            assert (await shepherd.exited("a")).cause == "lease"
