"""Get one tree of one commit out of a repository, by the git program, safely.

A repository is hostile: no option can be slipped in (lists of arguments, ``--``, checked refs),
no configuration of anybody is read, no hook, filter or submodule is followed, objects are checked
on transfer, and what is written is what the commit holds, byte by byte: blobs are read as they
are, so that no attribute in the tree can change them.
"""

import asyncio
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from tshrag_common.errors import DeadlineExceeded, LabError, Unavailable, shown
from tshrag_common.sources.address import Address
from tshrag_common.sources.faults import (
    ArchiveBroken,
    ArchiveKind,
    ArchiveLimit,
    ArchiveLink,
    RefInvalid,
    RefNotFound,
    SourceNotFound,
    SourceRefused,
    SourceUnreachable,
)
from tshrag_common.sources.network import addresses_of
from tshrag_common.sources.policy import SourceLimits, SourcePolicy, literal_address
from tshrag_common.sources.threads import Check, in_thread
from tshrag_common.sources.tree import Budget, TreeWriter, size_text

_KEPT_REF = "refs/tshrag/source"
_MAX_LISTING_BYTES = 16 << 20
_MAX_STDERR_BYTES = 64 << 10
_CHUNK = 1 << 18
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SSH = (
    "ssh -oBatchMode=yes -oConnectTimeout=15 -oForwardAgent=no -oForwardX11=no"
    " -oPermitLocalCommand=no -oClearAllForwardings=yes -oControlMaster=no -oControlPath=none"
)
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "credential.helper=",
    "fetch.fsckObjects=true",
    "fetch.unpackLimit=1",  # one pack, so that one limit of size holds for all of it
    "gc.auto=0",
    "http.followRedirects=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=30",
    "init.defaultBranch=main",
    "maintenance.auto=false",
    "protocol.version=2",
    "submodule.recurse=false",
    "transfer.fsckObjects=true",
)
_LIMITED = 'ulimit -f "$0" && exec "$@"'
"""A shell sets the limit of file size and becomes git; nothing is put into its text."""


_Fault = Callable[[Address, str], LabError]


class _Blob(msgspec.Struct, frozen=True):
    """A file of the tree."""

    name: str
    executable: bool
    oid: str
    size: int


async def fetch_tree(
    address: Address, workdir: Path, limits: SourceLimits, policy: SourcePolicy
) -> str:
    """Write the tree that `address` names into ``workdir/tree``; return the full commit.

    Cancelled or late, every process of git is killed.

    Raises:
        RefNotFound, SourceNotFound, SourceRefused, SourceUnreachable, DeadlineExceeded: of git.
        ArchiveLink, ArchiveKind, ArchiveName, ArchiveLimit: the tree is no load.

    """
    git = _Git(workdir, address, limits, await _pinned(address, policy))
    try:
        async with asyncio.timeout(limits.fetch_s):
            commit = await git.fetch()
            blobs = await git.listing(commit)
            contents = await git.contents(blobs)
    except TimeoutError:
        raise DeadlineExceeded(address.text, f"git took more than {limits.fetch_s:g} s") from None
    await in_thread(lambda check: _write(workdir, blobs, contents, limits, check))
    return commit


async def _pinned(address: Address, policy: SourcePolicy) -> tuple[str, ...]:
    """Return the settings that hold git to the addresses that were checked.

    A name that only ssh knows (a Host of the operator's configuration) is left to it: its host
    key has to be known as well.
    """
    if not address.is_remote:
        return ()
    try:
        found = await addresses_of(address.host, address.port, policy)
    except SourceUnreachable:
        if address.scheme == "ssh":
            return ()
        raise
    if address.scheme == "ssh" or literal_address(address.host) is not None:
        return ()
    spelt = ",".join(f"[{one}]" if ":" in one else one for one in found)
    return (f"http.curloptResolve={address.host}:{address.port}:{spelt}",)


class _Git:
    """The few git programs that it takes, in one bare repository of their own."""

    def __init__(
        self, workdir: Path, address: Address, limits: SourceLimits, settings: Sequence[str]
    ) -> None:
        self._workdir, self._address, self._limits = workdir, address, limits
        self._repository = str(workdir / "repository")
        self._settings = [part for item in (*_SETTINGS, *settings) for part in ("-c", item)]
        self._environment = _environment(address)

    async def fetch(self) -> str:
        """Bring one commit, without its history."""
        await self._git("init", "--quiet", "--bare", "--template=", "--", self._repository)
        ref = f"+{self._address.ref}:{_KEPT_REF}"
        options = ("--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules")
        await self._in("fetch", *options, "--", self._url(), ref)
        peeled = _KEPT_REF + "^{commit}"
        try:
            said = await self._in("rev-parse", "--verify", "--quiet", "--end-of-options", peeled)
        except SourceUnreachable:
            raise RefInvalid("", f"{shown(self._address.ref)} is no commit") from None
        commit = said.decode().strip()
        if not _COMMIT.fullmatch(commit):
            raise RefInvalid("", f"{shown(self._address.ref)} is no commit")
        return commit

    async def listing(self, commit: str) -> list[_Blob]:
        """List the files of the tree, or of the directory that was asked for."""
        tree = f"{commit}:{self._address.subdir}"
        try:
            said = await self._in("ls-tree", "-r", "-l", "-z", "--full-tree", tree)
        except SourceUnreachable:
            where = f"{shown(self._address.subdir)} in {self._address.text}"
            raise SourceNotFound("", f"no directory {where}") from None
        entries = said.decode(errors="surrogateescape").split("\0")[:-1]
        blobs = [_blob(entry) for entry in entries]
        if len(blobs) > self._limits.files:
            raise ArchiveLimit("", f"> {self._limits.files:,} files")
        if sum(blob.size for blob in blobs) > self._limits.unpacked_bytes:
            raise ArchiveLimit("", f"> {size_text(self._limits.unpacked_bytes)} unpacked")
        return blobs

    async def contents(self, blobs: Sequence[_Blob]) -> Path:
        """Put the bytes of all blobs into one file, in their order."""
        wanted, contents = self._workdir / "wanted", self._workdir / "contents"
        text = "".join(f"{blob.oid}\n" for blob in blobs)
        await in_thread(lambda _: wanted.write_text(text))
        await self._in("cat-file", "--batch", stdin=wanted, stdout=contents)
        await in_thread(lambda _: wanted.unlink())
        return contents

    def _url(self) -> str:
        location = self._address.location
        return f"file://{Path(location).absolute()}" if self._address.scheme == "file" else location

    async def _in(
        self, *arguments: str, stdin: Path | None = None, stdout: Path | None = None
    ) -> bytes:
        return await self._git(
            "--git-dir", self._repository, *arguments, stdin=stdin, stdout=stdout
        )

    async def _git(
        self, *arguments: str, stdin: Path | None = None, stdout: Path | None = None
    ) -> bytes:
        largest = self._limits.unpacked_bytes * 2 if stdout else self._limits.packed_bytes
        shell = ("/bin/sh", "-c", _LIMITED, str(largest // 512 + 1))
        argv = (*shell, "git", *self._settings, *arguments)
        status, said, complaint = await _completed(argv, self._environment, stdin, stdout)
        if status and await in_thread(lambda _: self._is_full(largest)):
            raise ArchiveLimit("", f"> {size_text(largest)} in the repository")
        if status:
            raise _fault(self._address, status, complaint)
        if len(said) > _MAX_LISTING_BYTES:
            raise ArchiveLimit("", f"> {size_text(_MAX_LISTING_BYTES)} of names")
        return said

    def _is_full(self, largest: int) -> bool:
        """Tell whether a pack has met the limit: git names that in ways that differ by version."""
        packs = Path(self._repository, "objects", "pack").glob("*")
        return any(pack.stat().st_size >= largest for pack in packs)


def _environment(address: Address) -> dict[str, str]:
    """Return all that git sees of ours: where programs are, and the key agent of ssh."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "SSH_AUTH_SOCK", "SSL_CERT_FILE")
            if name in os.environ}  # fmt: skip
    return kept | {
        "GIT_ALLOW_PROTOCOL": address.scheme,
        "GIT_ASKPASS": "",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_SSH_COMMAND": _SSH,
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
        "SSH_ASKPASS_REQUIRE": "never",
    }


async def _completed(
    argv: Sequence[str], environment: dict[str, str], stdin: Path | None, stdout: Path | None
) -> tuple[int, bytes, str]:
    """Return status, output and complaint of a program; it and its children never outlive us."""
    source = sink = asyncio.subprocess.DEVNULL
    try:
        if stdin is not None and stdout is not None:
            source, sink = os.open(stdin, os.O_RDONLY), os.open(stdout, _NEW_FILE, 0o600)
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=source,
            stdout=asyncio.subprocess.PIPE if stdout is None else sink,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    finally:
        for fd in (source, sink):
            if fd >= 0:
                os.close(fd)
    try:
        async with asyncio.TaskGroup() as group:
            said = group.create_task(_read(process.stdout, _MAX_LISTING_BYTES), name="git stdout")
            wept = group.create_task(_read(process.stderr, _MAX_STDERR_BYTES), name="git stderr")
            status = await process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    return status, said.result(), wept.result().decode(errors="replace")


async def _read(stream: asyncio.StreamReader | None, most: int) -> bytes:
    """Return the first bytes of `stream`, one more than `most` at the most; drop what follows."""
    kept = bytearray()
    while stream is not None and (chunk := await stream.read(_CHUNK)):
        kept += chunk[: most + 1 - len(kept)]
    return bytes(kept)


def _fault(address: Address, status: int, complaint: str) -> LabError:
    """Translate what git complained about; its own words go along, escaped."""
    said = complaint.lower()
    for words, fault in _COMPLAINTS:
        if any(word in said for word in words):
            return fault(address, _last_line(complaint))
    return SourceUnreachable("", f"{address.text}: git: {_last_line(complaint) or status}")


def _last_line(complaint: str) -> str:
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return shown((telling or lines or [""])[0], 200).strip("'\"")


def _no_ref(address: Address, _said: str) -> LabError:
    is_short = re.fullmatch(r"[0-9a-f]{7,32}", address.ref)
    return RefNotFound(address.ref, address.text, "give all 40 digits" if is_short else "")


def _no_program(_address: Address, _said: str) -> LabError:
    return Unavailable("git", "is not installed on this machine", code="git_missing")


def _not_there(address: Address, said: str) -> LabError:
    return SourceNotFound("", f"{address.text}: {said}")


def _not_let_in(address: Address, said: str) -> LabError:
    return SourceRefused("", f"{address.text}: {said}", "see to keys and rights of the controller")


def _not_sound(address: Address, said: str) -> LabError:
    return SourceRefused("", f"{address.text}: {said}", "git fsck finds the damage")


_COMPLAINTS: tuple[tuple[tuple[str, ...], _Fault], ...] = (
    (("git: not found", "git: no such file"), _no_program),
    (("find remote ref", "not our ref", "unadvertised object"), _no_ref),
    (("fsck error", "error in object", "badtree", "missing blob"), _not_sound),
    (
        ("permission denied", "authentication failed", "could not read username",
         "host key verification", "dubious ownership", "error: 403", "error: 401"),
        _not_let_in,
    ),
    (("does not appear to be a git", "not found", "does not exist"), _not_there),
)  # fmt: skip


def _blob(entry: str) -> _Blob:
    """Read ``mode type oid size<TAB>name`` of git ls-tree."""
    facts, _, name = entry.partition("\t")
    mode, kind, oid, size = facts.split()
    if mode == "120000":
        raise ArchiveLink(name, f"a link, blob {oid[:12]}")
    if kind != "blob":
        raise ArchiveKind(name, "a submodule")
    return _Blob(name, mode == "100755", oid, int(size))


def _write(
    workdir: Path, blobs: Sequence[_Blob], contents: Path, limits: SourceLimits, check: Check
) -> None:
    """Make the tree of what git cat-file gave; remove all else."""
    shutil.rmtree(workdir / "repository")
    budget = Budget(limits, check)
    with contents.open("rb") as file, TreeWriter(workdir / "tree", budget) as tree:
        for blob in blobs:
            if file.readline(200) != f"{blob.oid} blob {blob.size}\n".encode():
                raise ArchiveBroken("", f"git has no {shown(blob.name)}")
            tree.file(blob.name, _exactly(file, blob), executable=blob.executable)
            file.read(1)  # the newline behind it
    contents.unlink()


def _exactly(file: BinaryIO, blob: _Blob) -> Iterator[bytes]:
    left = blob.size
    while left:
        chunk = file.read(min(_CHUNK, left))
        if not chunk:
            raise ArchiveBroken("", f"unexpected end at member {shown(blob.name)}")
        left -= len(chunk)
        yield chunk
