"""A lab of processes with boards that answer SSH, and what a person types there."""

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.command_line import TSHRAG, environment_of, run_cli
from tests.support.ssh_server import SshServer
from tshrag_controller.cli.processes import LabProcesses

AGENT = "rack"


class Lab:
    """Its processes, and the programs of a person who has the lease of every board."""

    def __init__(self, state: Path, key: Path, processes: LabProcesses) -> None:
        self.state, self.key, self.processes = state, key, processes

    def tshrag(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return run_cli(*words, state=self.state, environment=self.environment)

    @property
    def environment(self) -> Mapping[str, str]:
        return {"XDG_STATE_HOME": str(self.state / "xdg")}

    @property
    def whole_environment(self) -> dict[str, str]:
        return environment_of(self.state, self.environment)

    def command(self, *argv: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        """Do a program of this machine, as a person of this lab."""
        return subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            timeout=120,
            check=False,
            env=self.whole_environment,
        )

    @contextlib.contextmanager
    def listening(self, dut: str, port: int) -> Iterator[int]:
        """Forward a port of a board to one of this machine; yield that."""
        with self.piped(*TSHRAG, "forward", dut, str(port)) as process:
            assert process.stderr is not None
            yield int(process.stderr.readline().decode().partition(" ")[0].rpartition(":")[2])

    @contextlib.contextmanager
    def piped(self, *argv: str) -> "Iterator[subprocess.Popen[bytes]]":
        """Start a program with pipes to all of its streams; it is dead behind the block."""
        with subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.whole_environment,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def ssh_config(self) -> str:
        done = self.tshrag("ssh-config")
        assert done.returncode == 0, done.stderr
        path = self.state / "ssh_config"
        path.write_text(f"{done.stdout}\nHost *\n    IdentityFile {self.key}\n")
        return str(path)


@contextlib.contextmanager
def tunnel_lab(
    state: Path,
    servers: Sequence[SshServer],
    strangers: Mapping[str, Sequence[SshServer]] | None = None,
    *,
    key_in_file: bool = False,
) -> Iterator[Lab]:
    """Start a lab with a board for each server, and lease them all.

    A stranger is a board at the first of two servers with the host key of the second. Keys may
    stand in files ``KIND.pub`` below `state`, from where they can be enrolled anew.
    """
    processes = LabProcesses(state, {"TSHRAG_STATE": str(state)})
    try:
        for server in servers:
            server.start()
        keys = {server.kind: server.host_key for server in servers}
        for server in servers if key_in_file else ():
            path = state / f"{server.kind}.pub"
            path.write_text(server.host_key)
            keys[server.kind] = str(path)
        duts = "".join(dut_of(server.kind, server, keys[server.kind]) for server in servers)
        for name, (at, keyed) in (strangers or {}).items():
            duts += dut_of(name, at, keyed.host_key)
        processes.start_controller()
        asyncio.run(processes.wait_ready())
        processes.start_agent(AGENT, duts, slots=2)
        asyncio.run(processes.wait_agents(1))
        made = Lab(state, servers[0].folder / "client_key", processes)
        both = b"".join((each.folder / "client_key").read_bytes() for each in servers[1:])
        (state / "dropbear_key").write_bytes(both)
        (state / "dropbear_key").chmod(0o600)
        for name in (*(server.kind for server in servers), *(strangers or {})):
            taken = made.tshrag("lease", name, "--for", "1h")
            assert taken.returncode == 0, taken.stderr
        yield made
    finally:
        processes.stop()
        for server in servers:
            server.stop()


def dut_of(name: str, server: SshServer, host_key: str) -> str:
    """Return the TOML of a board; `host_key` is a key, or the name of a file with keys."""
    return f"""\
[[dut]]
id = "{name}"
kind = "{server.kind}"

[dut.ssh]
host = "127.0.0.1"
port = {server.port}
host_key = "{host_key.strip()}"
key_file = "{server.folder}/client_key"

"""
