"""OpenSSH, scp, rsync and plain TCP through the lab: real servers, real clients, real processes."""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import secrets
import socket
import socketserver
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.command_line import TSHRAG, environment_of
from tests.support.debian import need_program
from tests.support.ssh_server import SshServer, free_port
from tests.support.tunnel_lab import Lab, tunnel_lab
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.xdist_group("people")]

BIG = secrets.token_bytes(3 << 20)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    state = tmp_path_factory.mktemp("tunnels")
    servers = [SshServer("openssh", state / "openssh"), SshServer("dropbear", state / "dropbear")]
    with tunnel_lab(state, servers, {"stranger": servers}) as made:
        yield made


def test_openssh_scp_and_rsync_work_as_they_always_do(lab: Lab, tmp_path: Path) -> None:
    need_program("rsync", "rsync")
    config = lab.ssh_config()
    done = lab.command("ssh", "-F", config, "openssh", "cat; exit 7", stdin=b"through the lab")
    assert (done.stdout, done.returncode) == (b"through the lab", 7), done.stderr
    (tmp_path / "big").write_bytes(BIG)
    there = tmp_path / "there"
    there.mkdir()
    done = lab.command("scp", "-q", "-F", config, str(tmp_path / "big"), f"openssh:{there}/scp")
    assert done.returncode == 0, done.stderr
    assert (there / "scp").read_bytes() == BIG
    done = lab.command(
        "rsync", "-a", "-e", f"ssh -F {config}", f"openssh:{there}/", f"{tmp_path}/back/"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back/scp").read_bytes() == BIG


def test_sftp_and_a_shared_connection_work_too(lab: Lab, tmp_path: Path) -> None:
    need_program("sftp", "openssh-client")
    config = lab.ssh_config()
    (tmp_path / "big").write_bytes(BIG)
    batch = f"put {tmp_path}/big {tmp_path}/there\nget {tmp_path}/there {tmp_path}/back\n"
    done = lab.command("sftp", "-q", "-b", "-", "-F", config, "openssh", stdin=batch.encode())
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back").read_bytes() == BIG
    with tempfile.TemporaryDirectory(prefix="tsh-") as folder:  # a socket's address is short
        shared = ("ssh", "-F", config, "-o", f"ControlPath={folder}/s", "-o", "ControlMaster=auto",
                  "-o", "ControlPersist=yes", "openssh")  # fmt: skip
        subprocess.run(
            (*shared, "true"), check=True, timeout=60, env=lab.whole_environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            for number in range(3):
                done = lab.command(*shared, f"echo {number}")
                assert done.stdout == f"{number}\n".encode(), done.stderr
        finally:
            lab.command(*shared[:-1], "-O", "exit", "openssh")


def test_twenty_tunnels_at_once_end_in_order_and_are_on_record(lab: Lab) -> None:
    with concurrent.futures.ThreadPoolExecutor(20) as pool, echo_server() as port:
        tunnel = subprocess.Popen(
            (*TSHRAG, "forward", "openssh", str(port)),
            stderr=subprocess.PIPE, env=lab.whole_environment,
        )  # fmt: skip
        try:
            assert tunnel.stderr is not None
            said = tunnel.stderr.readline().decode()
            local = int(said.partition(" ")[0].rpartition(":")[2])
            data = [BIG[number * 1000 :][:200_000] for number in range(20)]
            assert list(pool.map(lambda each: echoed(local, each), data)) == data
            wait_for(lambda: closed(lab, port) == 20, 60)
        finally:
            tunnel.terminate()
            rest = tunnel.communicate(timeout=20)[1]
    assert b"channel_" not in rest


def closed(lab: Lab, port: int) -> int:
    done = lab.tshrag("audit", "openssh", "--what", "forward", "--json")
    return sum(
        (each["reason"], each.get("up_bytes")) == (f"port {port}", 200_000)
        for each in json.loads(done.stdout)["entries"]
    )


@contextlib.contextmanager
def echo_server() -> Iterator[int]:
    """Send back all that comes, each connection in a thread; yield the port."""

    class Echo(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while data := self.request.recv(65536):
                self.request.sendall(data)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 64

    with Server(("127.0.0.1", 0), Echo) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            serving.join(20)


def echoed(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        sending = threading.Thread(target=sent, args=(connection, data))
        sending.start()
        got = b""
        while piece := connection.recv(65536):
            got += piece
        sending.join(20)
    return got


def sent(connection: socket.socket, data: bytes) -> None:
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def test_tshrag_ssh_executes_and_hands_its_exit_code_on(lab: Lab) -> None:
    with_key = ("--", "-i", str(lab.key))
    done = lab.command(*TSHRAG, "ssh", "openssh", *with_key, stdin=b"echo $((40 + 2)); exit 3\n")
    assert (done.stdout.split(), done.returncode) == ([b"42"], 3), done.stderr
    quoted = "printf '%s|' 'two words' \"it's\"; test -t 1 && echo tty; exit 9"
    done = lab.command(*TSHRAG, "ssh", "openssh", *with_key, "-tt", quoted)
    assert (done.stdout.strip(), done.returncode) == (b"two words|it's|tty", 9), done.stderr


def test_dropbear_is_reached_too(lab: Lab) -> None:
    config = lab.ssh_config()
    key = str(lab.state / "dropbear_key")
    done = lab.command("ssh", "-F", config, "-i", key, "dropbear", "echo hello")
    assert done.stdout == b"hello\n", done.stderr


def test_a_host_key_that_is_not_the_pinned_one_stops_everything(lab: Lab) -> None:
    done = lab.command("ssh", "-F", lab.ssh_config(), "stranger", "true")
    assert done.returncode == 255
    assert b"HOST IDENTIFICATION HAS CHANGED" in done.stderr


def test_each_direction_of_a_forward_ends_by_itself(lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                heard = b""
                while data := connection.recv(65536):  # up to the half-close
                    heard += data
                connection.sendall(hashlib.sha256(heard).hexdigest().encode())

        serving = threading.Thread(target=serve)
        serving.start()
        done = lab.command(*TSHRAG, "forward", "openssh", str(port), "--stdio", stdin=BIG)
        serving.join(20)
    assert done.stdout.decode() == hashlib.sha256(BIG).hexdigest(), done.stderr


def test_a_half_close_goes_through_to_a_real_program(lab: Lab) -> None:
    socat = need_program("socat", "socat")
    port = free_port()
    listens = f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr"
    with (
        lab.piped(socat, "-t60", listens, "EXEC:sha256sum"),
        lab.listening("openssh", port) as local,
    ):
        done = lab.command(socat, "-t60", "-", f"TCP:127.0.0.1:{local},retry=50", stdin=BIG)
    assert done.stdout.split()[:1] == [hashlib.sha256(BIG).hexdigest().encode()], done.stderr


def test_gdb_debugs_a_program_of_the_board(lab: Lab) -> None:
    gdb, server = need_program("gdb", "gdb"), need_program("gdbserver", "gdbserver")
    port = free_port()
    with (
        lab.piped(server, "--once", f"127.0.0.1:{port}", "/bin/sh", "-c", "exit 5") as stub,
        lab.listening("openssh", port) as local,
    ):
        assert stub.stderr is not None
        said = b""
        while b"Listening" not in said:
            line = stub.stderr.readline()
            assert line, said
            said += line
        words = ("set sysroot", f"target remote 127.0.0.1:{local}", "x/i $pc", "continue")
        done = lab.command(
            gdb, "-batch", "-nx", *(part for word in words for part in ("-ex", word))
        )
    assert b"exited with code 05" in done.stdout, (done, said)


def test_who_does_not_read_holds_the_sender_back_and_nobody_keeps_it(lab: Lab) -> None:
    counted = 0

    def serve(server: socket.socket) -> None:
        nonlocal counted
        connection, _ = server.accept()
        with contextlib.suppress(OSError), connection:
            while True:
                counted += connection.send(BIG)

    with socket.create_server(("127.0.0.1", 0)) as server:
        serving = threading.Thread(target=serve, args=(server,))
        serving.start()
        before = memory_of(lab)
        port = str(server.getsockname()[1])
        with lab.piped(*TSHRAG, "forward", "openssh", port, "--stdio") as client:
            assert client.stdout is not None
            for _ in range(32):
                assert len(client.stdout.read(1 << 20)) == 1 << 20
            until_still(lambda: counted)
            kept = counted - (32 << 20)
            grown = memory_of(lab) - before
            own = psutil.Process(client.pid).memory_info().rss
        serving.join(60)
    assert not serving.is_alive()
    assert kept < 48 << 20, kept  # windows, and the buffers of four sockets
    assert grown < 64 << 20, grown
    assert own < 128 << 20, own


def memory_of(lab: Lab) -> int:
    """Return what all processes of the lab have in memory: broker, controller, agent."""
    total = 0
    for process in psutil.process_iter(["cmdline", "memory_info"]):
        if any(str(lab.state) in word for word in process.info["cmdline"] or ()):
            total += process.info["memory_info"].rss
    return total


def until_still(value: Callable[[], int]) -> None:
    """Return when it has not changed for three looks."""
    seen: list[int] = []
    while len(seen) < 3 or len(set(seen[-3:])) > 1:
        assert len(seen) < 100, seen
        time.sleep(0.5)
        seen.append(value())


def test_a_local_port_serves_many_and_a_closed_one_is_said(lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    done = lab.command(*TSHRAG, "forward", "openssh", str(port), "--stdio")
    assert done.returncode == 3
    assert done.stderr.startswith(b"port_closed: openssh 127.0.0.1:")
    process = subprocess.Popen(
        (*TSHRAG, "forward", "openssh", "22"),
        stderr=subprocess.PIPE,
        env=environment_of(lab.state, lab.environment),
    )
    try:
        assert process.stderr is not None
        said = process.stderr.readline().decode()
        local = int(said.partition(" ")[0].rpartition(":")[2])
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", local), 20) as connection:
                assert connection.recv(4) == b"SSH-"
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.parametrize("dut", ["openssh", "dropbear"])
def test_files_and_folders_are_put_and_got(lab: Lab, tmp_path: Path, dut: str) -> None:
    folder = tmp_path / "tree"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner/big").write_bytes(BIG)
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    target = f"{tmp_path}/on-{dut}"
    done = lab.tshrag("put", dut, str(folder), target)
    assert done.returncode == 0, done.stderr
    assert os.access(f"{target}/run.sh", os.X_OK)
    done = lab.tshrag("get", dut, target, str(tmp_path / "back"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back/inner/big").read_bytes() == BIG
    done = lab.tshrag("get", dut, target, str(tmp_path / "back"))
    assert (done.returncode, done.stderr.partition(":")[0]) == (2, "file")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("get openssh /nowhere/at/all HERE/none", "there is no such file or folder"),
        ("get dropbear /dev/zero HERE/none", "it is neither a file nor a folder"),
        ("get openssh /etc/passwd HERE/no/folder", "no folder to write in"),
        ("put openssh HERE/file /dev/full", "see space and rights on the DUT"),
        ("put dropbear HERE/file /etc/passwd/file", "/etc/passwd is not a directory"),
        ("put openssh HERE/none", "is not known"),
        ("put openssh HERE/linked", "it is neither a file nor a folder"),
    ],
)
def test_a_copy_that_cannot_be_says_why(lab: Lab, tmp_path: Path, words: str, why: str) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/link").symlink_to("nowhere")
    done = lab.tshrag(*words.replace("HERE", str(tmp_path)).split())
    assert done.returncode in (2, 3)
    assert why in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "none").exists()


def test_the_end_of_the_lease_ends_a_tunnel(lab: Lab) -> None:
    with subprocess.Popen(
        (*TSHRAG, "forward", "dropbear", "22", "--stdio"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment_of(lab.state, lab.environment),
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(4) == b"SSH-"
        done = lab.tshrag("lease", "release", "dropbear")
        assert done.returncode == 0, done.stderr
        wait_for(lambda: process.poll() is not None, 40)
        assert b"the lease ended" in process.stderr.read()
    refused = lab.command(*TSHRAG, "forward", "dropbear", "22", "--stdio")
    assert refused.returncode == 2
    assert b"tshrag lease take dropbear" in refused.stderr
    assert lab.tshrag("lease", "dropbear").returncode == 0
