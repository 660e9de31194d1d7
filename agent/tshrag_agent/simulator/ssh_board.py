"""A simulated board that answers SSH: real shells in a directory of its own.

    python -m tshrag_agent.simulator.ssh_board --dir DIR

It makes a host key and a key that it lets in, prints one line of JSON with all that a client
needs, and serves on loopback. As with OpenSSH and root, a lost connection ends no program: that
is left to the wrapper. A board shares kernel and files of this machine; its home is DIR/home.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from pathlib import Path

import asyncssh
import msgspec

from tshrag_common.history import HISTORY, TEST_MODE

_CHUNK_BYTES = 65536


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """What the board says when it can be reached: the words of an SSH way in ``agent.toml``."""

    host: str
    port: int
    user: str
    host_key: str
    key_file: str
    home: str
    pid: int


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What kind of board it is. Without SFTP it is like one with dropbear."""

    directory: Path
    port: int = 0
    user: str = "root"
    hostname: str = "board"
    shell: str = "/bin/sh"
    path: str = ""  # of programs; empty: that of this process
    sftp: bool = True
    with_parent: bool = False


class Board:
    """One board; ``serve`` is its life."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._home = options.directory / "home"
        self._host_key = _key(options.directory / "host_key")
        self._client_key = _key(options.directory / "client_key")

    async def serve(self, stop: asyncio.Event) -> None:
        """Answer until `stop`; say on stdout when it begins."""
        self._home.mkdir(parents=True, exist_ok=True)
        os.chdir(self._home)  # what SFTP takes a relative path from
        acceptor = await asyncssh.listen(
            "127.0.0.1",
            self._options.port,
            config=None,
            server_host_keys=[self._host_key],
            server_factory=lambda: _Door(self._options.user, self._client_key),
            process_factory=self._execute,
            sftp_factory=asyncssh.SFTPServer if self._options.sftp else None,
            encoding=None,
            gss_host=None,
            agent_forwarding=False,
        )
        async with acceptor:
            self._say(acceptor.get_port())
            await stop.wait()

    def _say(self, port: int) -> None:
        ready = Ready(
            host="127.0.0.1",
            port=port,
            user=self._options.user,
            host_key=self._host_key.export_public_key("openssh").decode().strip(),
            key_file=str(self._options.directory / "client_key"),
            home=str(self._home),
            pid=os.getpid(),
        )
        sys.stdout.buffer.write(msgspec.json.encode(ready) + b"\n")
        sys.stdout.buffer.flush()

    async def _execute(self, remote: asyncssh.SSHServerProcess[bytes]) -> None:
        """Execute what the client asks for; without a command a shell reads stdin."""
        words = ["-c", remote.command] if remote.command else []
        try:
            process = await asyncio.create_subprocess_exec(
                self._options.shell,
                *words,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                start_new_session=True,
                cwd=self._home,
                env=self._environment(),
            )
        except OSError as error:
            remote.stderr.write(f"{self._options.shell}: {error.strerror}\n".encode())
            remote.exit(127)
            return
        await self._attend(remote, process)

    async def _attend(self, remote: asyncssh.SSHServerProcess[bytes], process: Process) -> None:
        async with asyncio.TaskGroup() as group:
            stdin = group.create_task(_feed(remote, process), name="stdin")
            if process.stdout and process.stderr:
                group.create_task(_pump(process.stdout, remote.stdout), name="stdout")
                group.create_task(_pump(process.stderr, remote.stderr), name="stderr")
            code = await process.wait()
            stdin.cancel()
        with contextlib.suppress(OSError, asyncssh.Error):
            if code < 0:
                remote.exit_with_signal(signal.Signals(-code).name[3:])
            else:
                remote.exit(code)

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": self._options.path or os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(self._home),
            "USER": self._options.user,
            "LOGNAME": self._options.user,
            "SHELL": self._options.shell,
            "HOSTNAME": self._options.hostname,
            **{name: os.environ[name] for name in (TEST_MODE, HISTORY) if name in os.environ},
        }


class _Door(asyncssh.SSHServer):
    """Lets one user in, by the one key."""

    def __init__(self, user: str, key: asyncssh.SSHKey) -> None:
        self._user, self._key = user, key.public_data

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return username == self._user and key.public_data == self._key


async def _feed(remote: asyncssh.SSHServerProcess[bytes], process: Process) -> None:
    """Carry stdin; a connection that is lost is the end of it, as with any SSH server."""
    assert process.stdin is not None
    with contextlib.suppress(OSError, asyncssh.Error):
        while data := await remote.stdin.read(_CHUNK_BYTES):
            process.stdin.write(data)
            await process.stdin.drain()
    process.stdin.close()


async def _pump(source: asyncio.StreamReader, target: asyncssh.SSHWriter[bytes]) -> None:
    """Carry output; nobody listens any more: read on, as a pipe that is full stops a program."""
    listening = True
    while data := await source.read(_CHUNK_BYTES):
        if not listening:
            continue
        try:
            target.write(data)
            await target.drain()
        except (OSError, asyncssh.Error):
            listening = False


def _key(path: Path) -> asyncssh.SSHKey:
    """Return the key in `path`, made when there is none yet."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key())
    return asyncssh.read_private_key(path)


def _options(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="ssh_board", description=__doc__)
    parser.add_argument("--dir", required=True, type=Path, dest="directory")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--user", default="root")
    parser.add_argument("--hostname", default="board")
    parser.add_argument("--shell", default="/bin/sh")
    parser.add_argument("--path", default="")
    parser.add_argument("--no-sftp", action="store_false", dest="sftp")
    parser.add_argument("--with-parent", action="store_true")
    return msgspec.convert(vars(parser.parse_args(arguments)), Options)


async def _life(options: Options) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.with_parent:
        parent = os.pidfd_open(os.getppid())  # readable when it has ended
        loop.add_reader(parent, stop.set)
    await Board(options).serve(stop)


def main(arguments: Sequence[str] | None = None) -> None:
    asyncio.run(_life(_options(sys.argv[1:] if arguments is None else arguments)))


if __name__ == "__main__":
    main()
