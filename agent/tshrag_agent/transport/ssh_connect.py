"""Gets into a DUT by SSH, or says what keeps us out and what to do about it.

The host key is pinned, nothing of the user's own SSH set-up is read, nothing is forwarded.
"""

import asyncio
import errno
import os
import socket
from pathlib import Path

import asyncssh

from tshrag_agent.transport.base import TransportCode, TransportFailed
from tshrag_agent.transport.ways import SshWay
from tshrag_common.errors import Refused, shown
from tshrag_common.ids import DutId

_KEEPALIVES = 2  # unanswered ones; the third interval ends the link

_HOST_KEY_ALGS = (
    *("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    *("rsa-sha2-512", "rsa-sha2-256"),
)

Pinned = tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey], list[asyncssh.SSHKey]]
"""Keys of the host, of authorities, and revoked ones."""


async def connected(dut: DutId, way: SshWay) -> list[asyncssh.SSHClientConnection]:
    """Connect through the jump hosts; the last connection is that to the DUT.

    Raises:
        TransportFailed: with the code of what went wrong.
        Refused: a key or a file in the settings cannot be used.

    """
    made = await connected(dut, way.jump) if way.jump else []
    client = _Client()
    is_open = False
    try:
        made.append(await _open(way, client, made[-1] if made else None))
        is_open = True
    except (asyncssh.Error, OSError) as error:
        code, what, fix = _diagnosis(error, way, client)
        raise TransportFailed(code, f"{dut} ({way.where})", what, fix) from error
    finally:
        if not is_open:
            for connection in made:
                connection.abort()
    return made


def reason(error: BaseException) -> str:
    """Return what an error of a library says, escaped: part of it comes from the far side."""
    return ascii(str(error) or type(error).__name__)[1:-1][:200]


class _Client(asyncssh.SSHClient):
    """Notes how far a connection came, for the error that a person reads."""

    def __init__(self) -> None:
        self._connection: asyncssh.SSHClientConnection | None = None
        self.offered = ""

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._connection = conn

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        """Say no: it is asked only about a key that is not the pinned one."""
        self.offered = f"{key.get_algorithm()} {key.get_fingerprint()}"
        return False

    @property
    def answered(self) -> bool:
        return self._connection is not None

    @property
    def spoke_ssh(self) -> bool:
        found = self._connection and self._connection.get_extra_info("server_version")
        return bool(found)


async def _open(
    way: SshWay, client: _Client, tunnel: asyncssh.SSHClientConnection | None
) -> asyncssh.SSHClientConnection:
    pinned = await asyncio.to_thread(_pinned, way)
    keys = await asyncio.to_thread(_client_keys, way)
    password = await asyncio.to_thread(_password, way)
    agent_path = os.environ.get("SSH_AUTH_SOCK") if way.use_agent else None
    async with asyncio.timeout(way.connect_timeout_s):
        connection, _ = await asyncssh.create_connection(
            lambda: client,
            way.host,
            way.port,
            tunnel=tunnel or (),
            config=None,  # not the user's
            known_hosts=pinned,
            server_host_key_algs=_wished(pinned),
            username=way.user,
            client_keys=keys or None,
            password=password,
            agent_path=agent_path,
            public_key_auth=bool(keys or agent_path),
            password_auth=password is not None,
            kbdint_auth=password is not None,
            gss_host=None,
            gss_auth=False,
            gss_kex=False,
            agent_forwarding=False,
            x11_forwarding=False,
            keepalive_interval=way.keepalive_s,
            keepalive_count_max=_KEEPALIVES,
        )
    return connection


def _pinned(way: SshWay) -> Pinned:
    """Return what to trust; never nothing at all."""
    pinned: Pinned = ([], [], [])
    try:
        is_text = " " in way.host_key.strip()
        text = way.host_key if is_text else Path(way.host_key).read_text()
        for words in [line.split() for line in text.splitlines() if line.strip()]:
            begin = next(i for i, word in enumerate(words) if word.startswith(("ssh-", "ecdsa-")))
            key = asyncssh.import_public_key(" ".join(words[begin : begin + 2]))
            pinned[words[0] == "@cert-authority"].append(key)
    except (OSError, ValueError, StopIteration, asyncssh.KeyImportError) as error:
        what = f"host_key {shown(way.host_key)} is no public key: {reason(error)}"
        fix = f"pin what `ssh-keyscan -p {way.port} {way.host}` says, if you trust the way to it"
        raise Refused(way.where, what, fix, code="config") from error
    if not any(pinned):
        raise Refused(way.where, "host_key holds no key", "pin the DUT's key", code="config")
    return pinned


def _wished(pinned: Pinned) -> tuple[str, ...] | tuple[()]:
    """Return host key algorithms: those of the pinned keys first, then all the others.

    With the pinned ones alone a server that has none of them hangs up, and nobody learns why.
    """
    if pinned[1]:
        return ()
    ours = {key.get_algorithm().removeprefix("ssh-rsa") or "rsa-sha2-512" for key in pinned[0]}
    return tuple(sorted(_HOST_KEY_ALGS, key=lambda algorithm: algorithm not in ours))


def _client_keys(way: SshWay) -> list[asyncssh.SSHKey]:
    if not way.key_file:
        return []
    try:
        return [asyncssh.read_private_key(way.key_file)]
    except (OSError, asyncssh.KeyImportError) as error:
        what = f"key_file {way.key_file} cannot be used: {reason(error)}"
        fix = "name a private key without passphrase that the agent may read"
        raise Refused(way.where, what, fix, code="config") from error


def _password(way: SshWay) -> str | None:
    if not way.password_file:
        return None
    try:
        return Path(way.password_file).read_text().rstrip("\n")
    except (OSError, ValueError) as error:
        what = f"password_file {way.password_file} cannot be read: {reason(error)}"
        raise Refused(way.where, what, "see its path and mode", code="config") from error


_ENROL = "'tshrag-agent host-key DUT --pin' on its lab host"


def _diagnosis(error: Exception, way: SshWay, client: _Client) -> tuple[TransportCode, str, str]:
    if isinstance(error, asyncssh.HostKeyNotVerifiable) or "matching host key" in str(error):
        seen = client.offered or "no key of the pinned type"
        fix = f"if it was flashed on purpose: {_ENROL}; else find out who answers there"
        return "host_key_changed", f"its host key is not the pinned one: it shows {seen}", fix
    if isinstance(error, asyncssh.PermissionDenied):
        fix = "put the public key into authorized_keys there; see key_file and user"
        return "ssh_auth", f"user {way.user} was not let in: {reason(error)}", fix
    if isinstance(error, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(error):
        return "ssh_refused", f"port {way.port} is closed", "start sshd on the DUT, see the port"
    if client.answered and not client.spoke_ssh:
        fix = "see host and port: another service answers there"
        return "ssh_banner", f"what answers does not speak SSH ({reason(error)})", fix
    return "dut_unreachable", *_absence(error, way)


def _absence(error: Exception, way: SshWay) -> tuple[str, str]:
    if isinstance(error, socket.gaierror):
        return f"the name {way.host} is not known", "see the spelling, or write its address"
    if isinstance(error, TimeoutError):
        return f"no answer within {way.connect_timeout_s:g} s", "see its power and its network"
    return reason(error), "see its power, its network and its sshd"
