"""Processes on a lab host: from start to removal, over the death of client and agent."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from tests.support.lab_with_agent import LabWithAgent, an_agent_of, lab_with_agent
from tests.support.served_lab import served, until
from tshrag_agent.remote import follow, keeper
from tshrag_agent.remote.server import remote_of
from tshrag_common.audit_requests import ListAudit
from tshrag_common.channel.wants import ExecWant
from tshrag_common.channel_requests import OpenChannel
from tshrag_common.errors import LabError, PolicyDenied, Refused
from tshrag_common.exec_client import HostProcesses, processes_of
from tshrag_common.ids import DEFAULT_ORG
from tshrag_controller.answers.asker import Asker
from tshrag_controller.answers.channels import ChannelAnswers
from tshrag_controller.engine import Engine
from tshrag_controller.store.store import Store


@pytest.fixture
async def both(tmp_path: Path, nats_url: str) -> AsyncIterator[LabWithAgent]:
    async with lab_with_agent(tmp_path, nats_url) as both:
        yield both


async def said(host: HostProcesses, name: str, offset: int = 0, follow: bool = True) -> bytes:
    parts: list[bytes] = []
    async with host.output(name, offset=offset, follow=follow) as channel:
        while (piece := await channel.read()) is not None:
            parts.append(piece.data)
    return b"".join(parts)


async def test_a_process_is_started_followed_and_forgotten(both: LabWithAgent) -> None:
    async with processes_of(both.lab.client, "a1") as host:
        script = 'echo "$WHO"; pwd; echo oops >&2; exit 7'
        view = await host.start(("sh", "-c", script), cwd="/tmp", env={"WHO": "me"})
        assert await said(host, view.id) == b"me\n/tmp\n"
        ended = await host.wait(view.id)
        assert (ended.state, ended.code, ended.stdout_bytes, ended.stderr_bytes) == (
            "ended", 7, 8, 5)  # fmt: skip
        assert await said(host, view.id, offset=3, follow=False) == b"/tmp\n"
        async with host.output(view.id, "stderr") as channel:
            piece = await channel.read()
            assert piece is not None
            assert piece.data == b"oops\n"
        assert [each.id for each in await host.list()] == [view.id]
        await host.remove(view.id)
        assert await host.list() == ()
        with pytest.raises(Refused, match="not known"):
            await host.status(view.id)

    async def on_record() -> bool:
        return bool((await both.lab.client.audit(ListAudit(what="exec"))).entries)

    await until(on_record, 30.0)
    entry = (await both.lab.client.audit(ListAudit(what="exec"))).entries[-1]
    assert entry.reason == f"sh -c {script}"


async def test_stdin_goes_in_and_ends_and_a_signal_ends_a_group(both: LabWithAgent) -> None:
    data = b"line\n" * 40_000
    async with processes_of(both.lab.client, "a1") as host:
        view = await host.start(("sh", "-c", "wc -c"), stdin=True)
        async with host.input(view.id) as channel:
            await channel.write(data)
            await channel.finish()
            await channel.flushed()
            assert await channel.read() is None
        assert int(await said(host, view.id)) == len(data)
        view = await host.start(("sh", "-c", "echo up; sleep 600"))
        with pytest.raises(Refused, match="at work"):
            await host.remove(view.id)
        await host.signal(view.id, signal.SIGKILL)
        assert (await host.wait(view.id)).code == -signal.SIGKILL


async def test_a_process_outlives_its_client_and_the_agent(tmp_path: Path, nats_url: str) -> None:
    gate = tmp_path / "gate"
    script = f"echo before; while [ ! -e {gate} ]; do sleep 0.05; done; echo after; exit 3"
    async with served(tmp_path, nats_url) as lab:
        async with an_agent_of(lab, tmp_path), processes_of(lab.client, "a1") as host:
            view = await host.start(("sh", "-c", script))
        async with an_agent_of(lab, tmp_path), processes_of(lab.client, "a1") as host:
            assert (await host.status(view.id)).state == "running"
            gate.touch()
            ended = await host.wait(view.id)
            assert (ended.state, ended.code) == ("ended", 3)
            assert await said(host, view.id) == b"before\nafter\n"


async def test_who_follows_is_woken_and_does_not_look(
    both: LabWithAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "LOOK_S", 3600.0)
    async with processes_of(both.lab.client, "a1") as host:
        view = await host.start(("sh", "-c", "while read x; do echo got $x; done"), stdin=True)
        async with host.output(view.id, follow=True) as out, host.input(view.id) as typed:
            for word in (b"one", b"two"):
                await typed.write(word + b"\n")
                async with asyncio.timeout(30):
                    piece = await out.read()
                assert piece is not None
                assert piece.data == b"got " + word + b"\n"
            await typed.finish()
            async with asyncio.timeout(30):
                assert await out.read() is None
                assert (await host.wait(view.id)).code == 0


async def test_only_so_much_output_is_stored(both: LabWithAgent) -> None:
    more = 1_234_567
    async with processes_of(both.lab.client, "a1") as host:
        view = await host.start(("head", "-c", str(keeper.OUTPUT_BYTES + more), "/dev/zero"))
        ended = await host.wait(view.id)
        assert (ended.code, ended.stdout_bytes, ended.cut_bytes) == (0, keeper.OUTPUT_BYTES, more)
        await host.remove(view.id)


def asked(folder: Path, name: str) -> list[str]:
    """Return what the agent keeps of a command; its values of environment are nowhere."""
    (path,) = (each for each in folder.rglob("ask.json") if each.parent.name == name)
    kept = json.loads(path.read_text())
    assert "env" not in kept
    return list(kept["argv"])


async def test_secret_words_are_on_no_record(both: LabWithAgent, tmp_path: Path) -> None:
    secret = "s3cr3t-word"
    async with processes_of(both.lab.client, "a1") as host:
        words = ("echo", secret)
        view = await host.start(words, env={"TOKEN": secret}, secret_args=True)
        assert await said(host, view.id) == f"{secret}\n".encode()
        assert (await host.wait(view.id)).argv == ("echo", "(1 secret)")
        assert await asyncio.to_thread(asked, tmp_path, view.id) == ["echo", "(1 secret)"]

    async def on_record() -> bool:
        entries = (await both.lab.client.audit(ListAudit(what="exec"))).entries
        return "echo (1 secret)" in {entry.reason for entry in entries}

    await until(on_record, 30.0)


async def test_what_cannot_be_started_says_why(both: LabWithAgent) -> None:
    async with processes_of(both.lab.client, "a1") as host:
        view = await host.start(("/nowhere/at/all",))
        assert view.state == "failed"
        assert "/nowhere/at/all" in view.error
        with pytest.raises(Refused, match="not known"):
            await host.status("../../etc")


async def test_a_host_may_forbid_it(both: LabWithAgent, tmp_path: Path) -> None:
    remote_of(tmp_path / "exec", allowed=False).open_to(both.agent.channels)
    async with processes_of(both.lab.client, "a1") as host:
        with pytest.raises(LabError, match="exec = true") as caught:
            await host.start(("true",))
        assert caught.value.code == "exec_off"


async def test_only_operators_may() -> None:
    answers = ChannelAnswers(cast(Engine, None), cast(Store, None))
    asked = OpenChannel(session="5" * 32, want=ExecWant(argv=("true",)), agent="a1")
    with pytest.raises(PolicyDenied, match="no operator"):
        await answers.open(Asker(DEFAULT_ORG, "jo"), asked)
