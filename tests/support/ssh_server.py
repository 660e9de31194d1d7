"""Real SSH servers on loopback: OpenSSH, dropbear, and the simulated board.

The first two run in a mount namespace of their own, in which ``/etc/passwd`` has a few more users
and root another ``authorized_keys``: nothing of this machine is changed.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Set
from pathlib import Path
from typing import Literal

import asyncssh
import msgspec
import pytest

from tests.support.debian import need_program
from tests.support.waiting import wait_for
from tshrag_agent.simulator.ssh_board import Ready
from tshrag_agent.transport.ways import Guard, SshWay

Kind = Literal["openssh", "dropbear", "board"]
TESTER = "tshrag-tester"  # not root
LOCKED = "tshrag-locked"  # its shell is nologin
_MOUNTS = """
mount --bind {passwd} /etc/passwd || exit 1
mkdir -p /root/.ssh /run/sshd && mount --bind {root_ssh} /root/.ssh || exit 1
exec "$@"
"""
_SSHD = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
MaxSessions 20
MaxStartups 100
Subsystem sftp internal-sftp
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class SshServer:
    """One server; ``way`` leads to it."""

    def __init__(self, kind: Kind, folder: Path, options: tuple[str, ...] = ()) -> None:
        self.kind, self.folder, self._options = kind, folder, options
        self.port = free_port()
        self.host_key = ""
        self._argv: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.kind == "board":
            self._start_board()
        else:
            self._start_real()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start_again(self) -> None:
        """Start it as it was: on its port, with the keys that lie in its folder."""
        if self.kind == "board":
            self._start_board()
        else:
            self._run_real()

    def way(self, *, user: str = "root", port: int = 0, guard: Guard | None = None) -> SshWay:
        return SshWay(
            host="127.0.0.1",
            port=port or self.port,
            user=user,
            host_key=self.host_key,
            key_file=str(self.folder / "client_key"),
            connect_timeout_s=5,
            guard=guard or Guard(),
        )

    def table(self, name: str, kind: str) -> str:
        """Return it as a DUT of agent.toml."""
        return (
            f'[[dut]]\nid = "{name}"\nkind = "{kind}"\n[dut.ssh]\nhost = "127.0.0.1"\n'
            f'port = {self.port}\nuser = "root"\nhost_key = "{self.host_key}"\n'
            f'key_file = "{self.folder / "client_key"}"\n'
        )

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(10)
            if self._process.stdout:
                self._process.stdout.close()
            self._process = None

    def kill(self) -> None:
        """End it as a power cut would, sessions and all that still has its environment."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def _start_board(self) -> None:
        command = ("-m", "tshrag_agent.simulator.ssh_board", "--dir", str(self.folder))
        self._process = subprocess.Popen(
            [sys.executable, *command, "--port", str(self.port), "--with-parent", *self._options],
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        ready = msgspec.json.decode(self._process.stdout.readline(), type=Ready)
        self.port, self.host_key = ready.port, ready.host_key

    def _start_real(self) -> None:
        if os.geteuid() != 0:
            pytest.skip("needs root: sshd in a mount namespace of its own")
        self._make_keys()
        self._argv = self._command()
        self._run_real()

    def _run_real(self) -> None:
        script = self.folder / "mounts.sh"
        script.write_text(
            _MOUNTS.format(passwd=self.folder / "passwd", root_ssh=self.folder / "root_ssh")
        )
        unshare = need_program("unshare", "util-linux")
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [unshare, "-m", "/bin/sh", str(script), *self._argv],
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        wait_for(self._answers, 10)

    def _make_keys(self) -> None:
        self.folder.chmod(0o755)
        client = asyncssh.generate_private_key("ssh-ed25519")
        client.write_private_key(str(self.folder / "client_key"))
        (self.folder / "client_key").chmod(0o600)
        public = client.export_public_key()
        for place in (self.folder / "authorized_keys", self.folder / "root_ssh/authorized_keys"):
            place.parent.mkdir(mode=0o700, exist_ok=True)
            place.write_bytes(public)
        (self.folder / "root_ssh").chmod(0o700)
        (self.folder / "root_ssh/authorized_keys").chmod(0o600)
        users = Path("/etc/passwd").read_text()
        users += f"{TESTER}:x:54321:54321::/tmp:/bin/sh\n{LOCKED}:x:54322:54322::/tmp:"
        users += (shutil.which("nologin", path="/usr/sbin:/sbin") or "/usr/sbin/nologin") + "\n"
        (self.folder / "passwd").write_text(users)
        (self.folder / "passwd").chmod(0o644)

    def _command(self) -> list[str]:
        key = self.folder / "host_key"
        if self.kind == "openssh":
            program = need_program("sshd", "openssh-server")
            host = asyncssh.generate_private_key("ssh-ed25519")
            host.write_private_key(str(key))
            key.chmod(0o600)
            self.host_key = host.export_public_key().decode()
            config = self.folder / "sshd_config"
            config.write_text(_SSHD.format(port=self.port, folder=self.folder))
            return [program, "-D", "-e", "-f", str(config)]
        program = need_program("dropbear", "dropbear-bin")
        maker = need_program("dropbearkey", "dropbear-bin")
        made = subprocess.run(
            [maker, "-t", "ed25519", "-f", str(key)], capture_output=True, text=True, check=True
        )
        self.host_key = next(line for line in made.stdout.splitlines() if line.startswith("ssh-"))
        return [program, "-F", "-E", "-s", "-r", str(key), "-p", f"127.0.0.1:{self.port}"]

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError((self.folder / "log").read_text())
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as found:
                return found.recv(4) == b"SSH-"
        except OSError:
            time.sleep(0.02)
            return False


def a_folder_of_busybox(folder: Path, without: Set[str]) -> str:
    """Make a PATH that holds busybox and nothing else."""
    busybox = need_program("busybox", "busybox")
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    folder.mkdir()
    for applet in {*listed.stdout.split(), "busybox"} - without:
        (folder / applet).symlink_to(busybox)
    return str(folder)
