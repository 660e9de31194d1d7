"""SSH DUTs: real servers, and each way in which a link can fail."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncssh
import msgspec
import pytest

from tests.support.outputs import Output
from tests.support.process_trees import deaf_tree, living, peak_rss_bytes
from tests.support.ssh_server import LOCKED, TESTER, Kind, SshServer, free_port
from tests.support.tcp_proxy import Proxy
from tests.support.transport_contract import TransportContract, new_tag, shell
from tests.support.waiting import wait_until
from tshrag_agent.transport.base import Completed, TransportFailed
from tshrag_agent.transport.open import open_transport
from tshrag_agent.transport.ssh import SshTransport
from tshrag_agent.transport.ways import Guard, SshWay
from tshrag_common.errors import Refused, StaleFence
from tshrag_common.ids import DutId, Fence

KINDS: tuple[Kind, ...] = ("openssh", "dropbear", "board")
DUT = DutId("rpi4")
AGENT = """
import asyncio, sys
import msgspec
from tshrag_agent.transport.base import ShellCommand
from tshrag_agent.transport.open import open_transport
from tshrag_agent.transport.ways import SshWay

async def agent(way, text):
    dut = open_transport("rpi4", msgspec.json.decode(way, type=SshWay))
    await dut.execute(ShellCommand(text), env={}, cwd="", timeout_s=60, fence=1, on_output=print)

asyncio.run(agent(*sys.argv[1:]))
"""

Servers = Callable[[Kind], SshServer]


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """Give a server of a kind, the same one to all tests here."""
    started: dict[Kind, SshServer] = {}
    base = Path(tempfile.mkdtemp(prefix="tshrag-servers-"))
    base.chmod(0o755)  # users go through it; pytest's own directories are for root only

    def server(kind: Kind) -> SshServer:
        if kind not in started:
            started[kind] = SshServer(kind, base / kind)
            started[kind].start()
        return started[kind]

    yield server
    for one in started.values():
        one.stop()
    shutil.rmtree(base)


@pytest.fixture
def guard(run_dir: str) -> Guard:
    return Guard(run_dir=run_dir, grace_s=1, lease_s=3, beat_s=0.5)


class Ssh(TransportContract):
    kind: Kind
    user = "root"

    @pytest.fixture
    async def dut(self, servers: Servers, guard: Guard) -> AsyncIterator[SshTransport]:
        made = SshTransport(DUT, servers(self.kind).way(user=self.user, guard=guard))
        yield made
        await made.close()


class TestOpenSsh(Ssh):
    kind: Kind = "openssh"


class TestDropbear(Ssh):
    kind: Kind = "dropbear"


class TestBoard(Ssh):
    kind: Kind = "board"


class TestUserThatIsNotRoot(Ssh):
    kind: Kind = "openssh"
    user = TESTER


@pytest.mark.parametrize("kind", KINDS)
class TestLostLink:
    """A tree deaf to SIGTERM, with a daemon and a child without environment, must be gone."""

    async def test_a_connection_that_is_cut(
        self, kind: Kind, servers: Servers, guard: Guard, run_dir: str
    ) -> None:
        await self._lose(servers(kind), guard, run_dir, Proxy.reset)

    async def test_a_network_that_is_silent(
        self, kind: Kind, servers: Servers, guard: Guard, run_dir: str
    ) -> None:
        def swallow(proxy: Proxy) -> None:
            proxy.swallowing = True

        await self._lose(servers(kind), guard, run_dir, swallow)

    async def test_an_agent_that_is_killed(
        self, kind: Kind, servers: Servers, guard: Guard, run_dir: str
    ) -> None:
        tag = new_tag()
        way = msgspec.json.encode(servers(kind).way(guard=guard)).decode()
        agent = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", AGENT, way, deaf_tree(tag)),
            stdout=asyncio.subprocess.DEVNULL,
        )
        await wait_until(lambda: len(living(f".{tag}")) >= 6, 20)
        agent.kill()
        await agent.wait()
        await wait_until(lambda: not living(f".{tag}") and not living(run_dir), 10)

    async def test_an_agent_that_is_frozen(
        self, kind: Kind, servers: Servers, guard: Guard, run_dir: str
    ) -> None:
        tag = new_tag()
        way = msgspec.json.encode(servers(kind).way(guard=guard)).decode()
        agent = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", AGENT, way, deaf_tree(tag)),
            stdout=asyncio.subprocess.DEVNULL,
        )
        await wait_until(lambda: len(living(f".{tag}")) >= 6, 20)
        agent.send_signal(signal.SIGSTOP)
        signs = (f".{tag}", run_dir)  # the agent has them in its arguments too
        await wait_until(lambda: not {p for s in signs for p in living(s)} - {agent.pid}, 15)
        agent.kill()
        await agent.wait()

    async def _lose(
        self, server: SshServer, guard: Guard, run_dir: str, fault: Callable[[Proxy], None]
    ) -> None:
        tag, sink, proxy = new_tag(), Output(), Proxy(server.port)
        await proxy.start()
        way = msgspec.structs.replace(
            server.way(port=proxy.port, guard=guard), keepalive_s=0.5, patience_s=0
        )
        dut = SshTransport(DUT, way)
        with pytest.raises(TransportFailed, match="the link was lost") as failure:
            async with asyncio.timeout(30):
                await asyncio.shield(self._running(dut, tag, sink, proxy, fault))
        assert failure.value.code == "dut_unreachable"
        await wait_until(lambda: not living(f".{tag}") and not living(run_dir), 15)
        await dut.close()
        await proxy.stop()

    async def _running(
        self,
        dut: SshTransport,
        tag: int,
        sink: Output,
        proxy: Proxy,
        fault: Callable[[Proxy], None],
    ) -> Completed:
        async def break_it() -> None:
            await wait_until(lambda: sink.stdout == b"ready\n" and len(living(f".{tag}")) >= 6)
            fault(proxy)

        breaking = asyncio.ensure_future(break_it())
        try:
            return await shell(dut, deaf_tree(tag), 1, sink)
        finally:
            await breaking


async def test_a_short_silence_harms_nothing(servers: Servers, guard: Guard) -> None:
    server, sink = servers("openssh"), Output()
    proxy = Proxy(server.port)
    await proxy.start()
    dut = SshTransport(DUT, server.way(port=proxy.port, guard=guard))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(shell(dut, "echo on; sleep 1.5; echo off", 1, sink))
        await wait_until(lambda: sink.stdout == b"on\n")
        proxy.hold()
        await asyncio.sleep(0.9)
        proxy.release()
    assert task.result().succeeded
    assert sink.stdout == b"on\noff\n"
    await dut.close()
    await proxy.stop()


async def test_after_a_lost_link_the_next_command_connects_again(
    servers: Servers, guard: Guard
) -> None:
    server = servers("openssh")
    proxy = Proxy(server.port)
    await proxy.start()
    dut = SshTransport(DUT, server.way(port=proxy.port, guard=guard))
    assert (await shell(dut, "true", 1, Output())).succeeded
    proxy.reset()
    await wait_until(lambda: not proxy.is_carrying)
    assert (await shell(dut, "true", 1, Output())).succeeded
    await dut.close()
    await proxy.stop()


async def test_a_dut_that_was_there_gets_patience_when_its_port_is_closed(
    tmp_path: Path, place: Path
) -> None:
    server = SshServer("board", tmp_path / "server")
    server.start()
    guard = Guard(run_dir=str(place / "run"))
    dut = SshTransport(DUT, server.way(guard=guard))
    assert (await shell(dut, "true", 1, Output())).succeeded
    server.stop()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(shell(dut, "true", 1, Output()))
        await asyncio.sleep(0.4)
        await asyncio.to_thread(server.start)
    assert task.result().succeeded
    await dut.close()
    await asyncio.to_thread(server.stop)


async def test_a_wrapper_that_was_cleaned_away_is_put_back(
    servers: Servers, guard: Guard, run_dir: str
) -> None:
    dut = SshTransport(DUT, servers("openssh").way(guard=guard))
    await shell(dut, "true", 1, Output())
    for file in await asyncio.to_thread(lambda: list(Path(run_dir).glob("wrap-*"))):
        file.unlink()
    assert (await shell(dut, "true", 1, Output())).succeeded
    await dut.close()


async def test_fifty_megabytes_pass_in_bounded_memory(servers: Servers, guard: Guard) -> None:
    dut = SshTransport(DUT, servers("openssh").way(guard=guard))
    await shell(dut, "true", 1, Output())
    before, heard = peak_rss_bytes(), 0

    def count(_: str, data: bytes) -> None:
        nonlocal heard
        heard += len(data)

    done = await dut.execute(
        ["dd", "if=/dev/zero", "bs=1M", "count=50"],
        env={},
        cwd="",
        timeout_s=50,
        fence=Fence(1),
        on_output=count,
    )
    assert done.succeeded
    assert heard > 50 << 20
    assert peak_rss_bytes() - before < 24 << 20
    await dut.close()


async def _refusal(way: SshWay) -> TransportFailed:
    dut = SshTransport(DUT, way)
    with pytest.raises(TransportFailed) as failure:
        await shell(dut, "true", 1, Output())
    await dut.close()
    return failure.value


class TestWhatKeepsUsOut:
    """Row 45 of the bad inputs: six codes, each with the host and the next step."""

    async def test_a_changed_host_key(self, servers: Servers) -> None:
        server = servers("openssh")
        other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
        failure = await _refusal(msgspec.structs.replace(server.way(), host_key=other))
        shows = asyncssh.import_public_key(server.host_key).get_fingerprint()
        assert failure.line == (
            f"host_key_changed: rpi4 (root@127.0.0.1:{server.port}): its host key is not the "
            f"pinned one: it shows ssh-ed25519 {shows}; if it was flashed on purpose: "
            "'tshrag-agent host-key DUT --pin' on its lab host; else find out who answers there"
        )
        assert failure.quarantines

    async def test_a_host_key_of_another_type(self, servers: Servers) -> None:
        other = asyncssh.generate_private_key("ecdsa-sha2-nistp256").export_public_key().decode()
        way = msgspec.structs.replace(servers("openssh").way(), host_key=other)
        assert (await _refusal(way)).code == "host_key_changed"

    @pytest.mark.parametrize("kind", KINDS)
    async def test_a_key_that_is_not_let_in(
        self, kind: Kind, servers: Servers, tmp_path: Path
    ) -> None:
        server, key = servers(kind), tmp_path / "other_key"
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(key))
        failure = await _refusal(msgspec.structs.replace(server.way(), key_file=str(key)))
        assert failure.line.startswith(
            f"ssh_auth: rpi4 (root@127.0.0.1:{server.port}): user root was not let in: "
        )
        assert failure.line.endswith(
            "; put the public key into authorized_keys there; see key_file and user"
        )
        assert not failure.quarantines

    async def test_no_key_at_all(self, servers: Servers) -> None:
        way = msgspec.structs.replace(servers("openssh").way(), key_file="")
        assert (await _refusal(way)).code == "ssh_auth"

    async def test_a_closed_port(self, servers: Servers) -> None:
        port = free_port()
        failure = await _refusal(servers("openssh").way(port=port))
        assert failure.line == (
            f"ssh_refused: rpi4 (root@127.0.0.1:{port}): port {port} is closed; start sshd on the "
            "DUT, see the port"
        )

    async def test_a_name_that_is_not_known(self, servers: Servers) -> None:
        way = msgspec.structs.replace(servers("openssh").way(), host="no-such-host.invalid")
        failure = await _refusal(way)
        assert failure.code == "dut_unreachable"
        assert "the name no-such-host.invalid is not known" in failure.line

    @pytest.mark.parametrize("said", [b"\x00\xff\x1b]0;x\x07garbage\r\n" * 20, b"220 ftp\r\n", b""])
    async def test_a_banner_that_is_not_ssh(self, said: bytes, servers: Servers) -> None:
        gone = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(said)
            with contextlib.suppress(OSError):
                if not said:
                    await reader.read()
                writer.close()
                await writer.wait_closed()
            gone.set()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            way = msgspec.structs.replace(servers("openssh").way(port=port), connect_timeout_s=0.5)
            failure = await _refusal(way)
            await gone.wait()
        assert failure.code == "ssh_banner"
        assert f"rpi4 (root@127.0.0.1:{port}): what answers does not speak SSH" in failure.line
        assert failure.line.isprintable()

    async def test_a_user_without_a_shell(self, servers: Servers) -> None:
        failure = await _refusal(servers("openssh").way(user=LOCKED))
        assert failure.line.startswith("no_shell: rpi4 (")
        assert "not available" in failure.line
        assert failure.line.endswith("give the user a login shell and the DUT /bin/sh")

    @pytest.mark.parametrize("key", ["", "/nowhere/key.pub", "ssh-ed25519 AAAA", "no key here"])
    async def test_a_pinned_key_that_is_none_is_refused(self, key: str, servers: Servers) -> None:
        way = msgspec.structs.replace(servers("openssh").way(), host_key=key)
        with pytest.raises(Refused, match=r"host_key .* is no public key.*ssh-keyscan") as failure:
            await shell(SshTransport(DUT, way), "true", 1, Output())
        assert failure.value.code == "config"

    async def test_a_private_key_that_is_not_there_is_refused(self, servers: Servers) -> None:
        way = msgspec.structs.replace(servers("openssh").way(), key_file="/nowhere/key")
        with pytest.raises(Refused, match="key_file /nowhere/key cannot be used"):
            await shell(SshTransport(DUT, way), "true", 1, Output())

    def test_a_host_that_looks_like_an_option_is_refused(self) -> None:
        settings = {"host": "-oProxyCommand=id", "host_key": "x"}
        with pytest.raises(msgspec.ValidationError, match=r"\$\.host"):
            msgspec.convert(settings, SshWay)


async def test_a_password_lets_in(tmp_path: Path, place: Path) -> None:
    class Door(asyncssh.SSHServer):
        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == ("root", "pässword 1")

    async def answer(process: asyncssh.SSHServerProcess[str]) -> None:
        process.exit(0)

    key = asyncssh.generate_private_key("ssh-ed25519")
    (tmp_path / "password").write_text("pässword 1\n")
    acceptor = await asyncssh.listen(
        "127.0.0.1", 0, server_host_keys=[key], server_factory=Door, process_factory=answer
    )
    async with acceptor:
        way = SshWay(
            host="127.0.0.1",
            port=acceptor.get_port(),
            host_key=key.export_public_key().decode(),
            password_file=str(tmp_path / "password"),
        )
        assert (await _refusal(way)).code == "no_shell"  # it was let in, and there is nothing


async def test_a_dut_behind_a_jump_host_is_reached(servers: Servers, guard: Guard) -> None:
    jump, server = servers("openssh"), servers("dropbear")
    way = msgspec.structs.replace(server.way(guard=guard), jump=jump.way())
    dut = SshTransport(DUT, way)
    sink = Output()
    assert (await shell(dut, "echo through", 1, sink)).succeeded
    assert sink.stdout == b"through\n"
    await dut.close()


async def test_an_unguarded_dut_is_refused_or_says_so(tmp_path: Path, place: Path) -> None:
    """A run directory that belongs to somebody else cannot hold a fence."""
    server = SshServer("board", tmp_path / "server")
    server.start()
    theirs = place / "run"
    theirs.mkdir()
    os.chown(theirs, 54321, 54321)
    guard = Guard(run_dir=str(theirs), grace_s=1)
    failure = await _refusal(server.way(guard=guard))
    assert failure.code == "no_shell"
    assert "guard.unguarded = true" in failure.line
    tag, sink = new_tag(), Output()
    allowed = msgspec.structs.replace(guard, unguarded=True)
    dut = SshTransport(DUT, server.way(guard=allowed))
    done = await shell(dut, "echo out; echo err >&2; exit 5", 1, sink)
    assert (done.exit_code, done.guarded, bool(done.note)) == (5, False, True)
    assert (sink.stdout, sink.stderr) == (b"out\n", b"err\n")
    done = await dut.execute(
        ["sleep", f"300.{tag}"],
        env={},
        cwd="",
        timeout_s=0.5,
        fence=Fence(1),
        on_output=Output(),
    )
    assert (done.cause, done.guarded) == ("deadline", False)
    await wait_until(lambda: not living(f".{tag}"))
    await dut.close()
    await asyncio.to_thread(server.stop)


async def test_two_agents_cannot_hold_one_dut(servers: Servers, guard: Guard) -> None:
    first = SshTransport(DUT, servers("openssh").way(guard=guard))
    second = SshTransport(DUT, servers("dropbear").way(guard=guard))
    tag, sink = new_tag(), Output()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(shell(first, deaf_tree(tag), 7, sink))
        await wait_until(lambda: sink.stdout == b"ready\n")
        with pytest.raises(StaleFence):
            await shell(second, "true", 7, Output())
        with pytest.raises(StaleFence):
            await shell(second, "true", 6, Output())
        assert living(f".{tag}")
        assert (await shell(second, "true", 8, Output())).succeeded
        assert living(f".{tag}") == []
    assert task.result().cause == "superseded"
    await first.close()
    await second.close()


def test_an_ssh_dut_is_opened_by_its_way(servers: Servers) -> None:
    assert isinstance(open_transport(DUT, servers("board").way()), SshTransport)
