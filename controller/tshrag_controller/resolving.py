"""The loads of a profile -> their digests and manifests, before the run is accepted.

What is remote is fetched here, at most a few at a time; what lay on the submitter's machine was
packed and uploaded there, and is read back from the store, so that nobody's word is taken for a
manifest. All problems of all loads come in one answer.
"""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from tshrag_common.errors import Invalid, LabError, NotFound, Problem, Refused
from tshrag_common.jobs import LoadRef
from tshrag_common.manifest import (
    IMPLIED,
    Manifest,
    Platform,
    ResolvedLoad,
    implied_text,
    read_manifest,
)
from tshrag_common.profile import LoadSource, Profile
from tshrag_common.requests import LocalLoad
from tshrag_common.sources.address import parse
from tshrag_common.sources.policy import SourceLimits, SourcePolicy
from tshrag_common.sources.resolve import MANIFEST, Resolved, resolve
from tshrag_common.sources.tar import TarReader
from tshrag_common.sources.threads import Check, in_thread
from tshrag_common.sources.tree import parts_of
from tshrag_controller import blobs
from tshrag_controller.blobs import BlobStore

AT_ONCE = 4
MANIFEST_BYTES = 256 << 10
BUILTINS = ("noop", "sleep", "samples")


class Resolving:
    """Resolves loads by the lab's policy; keeps what it fetched in the blob store."""

    def __init__(
        self,
        store: BlobStore,
        workroot: Path,
        limits: SourceLimits,
        policy: SourcePolicy,
        rewrite: Mapping[str, str],
    ) -> None:
        self._store, self._workroot = store, workroot
        self._limits, self._policy, self._rewrite = limits, policy, rewrite
        self._places = asyncio.Semaphore(AT_ONCE)

    async def resolve_all(
        self, profile: Profile, local: Mapping[str, LocalLoad]
    ) -> dict[str, ResolvedLoad]:
        """Return every load of `profile` that is no inline command.

        Raises:
            Invalid: what is wrong with each of them.
            Unavailable: a source could not be reached; nothing else was wrong.

        """
        wanted = {name: source for name, source in profile.loads.items() if source.path}
        found: dict[str, ResolvedLoad] = {}
        faults: dict[str, LabError] = {}

        async def one(name: str, source: LoadSource) -> None:
            try:
                found[name] = await self._one(name, source, local.get(name))
            except LabError as error:
                faults[name] = error

        async with asyncio.TaskGroup() as group:
            for name, source in wanted.items():
                group.create_task(one(name, source), name=f"resolve-{name}")
        _raise(faults)
        return {name: found[name] for name in wanted}

    async def _one(self, name: str, source: LoadSource, local: LocalLoad | None) -> ResolvedLoad:
        async with self._places:
            if local is not None:
                return await self._uploaded(name, local)
            return await self._fetched(name, source)

    async def _fetched(self, name: str, source: LoadSource) -> ResolvedLoad:
        address = parse(source.path or "", source.sha256 or "")
        async with self._workdir() as workdir:
            resolved = await resolve(address, workdir, self._limits, self._policy, self._rewrite)
            if resolved.builtin:
                return _builtin(name, resolved)
            await blobs.put_file(self._store, resolved.digest, Path(resolved.packed_path))
        manifest = read_manifest(resolved.manifest_bytes, f"{name}/{MANIFEST}")
        ref = LoadRef(
            name=name,
            digest=resolved.digest,
            source=resolved.source,
            commit=resolved.commit,
            size_bytes=resolved.size_bytes,
        )
        return ResolvedLoad(ref=ref, manifest=manifest)

    async def _uploaded(self, name: str, local: LocalLoad) -> ResolvedLoad:
        size = await self._store.size(local.digest)
        if size is None:
            fix = "upload it before the submit"
            raise Refused(name, f"load {local.digest[:12]} was not uploaded", fix, code="load")
        async with self._workdir() as workdir:
            packed = workdir / "packed.tar"
            async for piece in self._pieces(local.digest, size):
                await in_thread(partial(_append, packed, piece))
            raw = await in_thread(partial(_manifest_in, packed, name))
        ref = LoadRef(
            name=name,
            digest=local.digest,
            source=local.source,
            commit=local.commit,
            size_bytes=size,
        )
        return ResolvedLoad(ref=ref, manifest=read_manifest(raw, f"{name}/{MANIFEST}"))

    @asynccontextmanager
    async def _workdir(self) -> AsyncIterator[Path]:
        """Give a directory of its own to one load, for as long as it is looked at."""
        workdir = await in_thread(lambda _: _made(self._workroot))
        try:
            yield workdir
        finally:
            await in_thread(lambda _: shutil.rmtree(workdir, ignore_errors=True))

    async def _pieces(self, digest: str, size: int) -> AsyncIterator[bytes]:
        offset = 0
        while offset < size:
            piece = await self._store.read(digest, offset)
            if not piece:
                return
            offset += len(piece)
            yield piece


def _made(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="load-", dir=root))


def _append(path: Path, piece: bytes, check: Check) -> None:
    with path.open("ab") as file:
        file.write(piece)


def _manifest_in(packed: Path, name: str, check: Check) -> bytes:
    """Return the manifest of a packed tree, every member of which may be unpacked.

    It was packed on another machine, so nothing of it is taken on trust.
    """
    found: bytes | None = None
    executables: set[str] = set()
    with packed.open("rb") as file:
        reader = TarReader(file)
        for member in reader.members():
            check()
            parts_of(member.name)  # raises for one that leads out of the tree
            if member.name == MANIFEST:
                found = _bounded(reader.data(), name)
            elif member.name in IMPLIED and member.executable:
                executables.add(member.name)
    found = implied_text(executables) if found is None else found
    if found is None:
        raise Refused("", f"a tree without {MANIFEST} is no load", code="manifest_missing")
    return found


def _bounded(pieces: Iterable[bytes], name: str) -> bytes:
    data = b""
    for piece in pieces:
        data += piece
        if len(data) > MANIFEST_BYTES:
            what = f"more than {MANIFEST_BYTES} bytes"
            raise Refused(f"{name}/{MANIFEST}", what, code="too_large")
    return data


def _builtin(name: str, resolved: Resolved) -> ResolvedLoad:
    """Return a load that agents have in them; it declares no parameters, so it takes any."""
    if resolved.builtin not in BUILTINS:
        raise NotFound("builtin", resolved.builtin, BUILTINS)
    manifest = Manifest(name=name, version="builtin", platforms=(Platform(entry="builtin"),))
    ref = LoadRef(name=name, digest="", source=resolved.source, builtin=resolved.builtin)
    return ResolvedLoad(ref=ref, manifest=manifest)


def _raise(faults: Mapping[str, LabError]) -> None:
    problems: list[Problem] = []
    for name, error in faults.items():
        if isinstance(error, Invalid):
            problems += error.problems
        else:
            what = f"{error.where}: {error.what}" if error.where else error.what
            where = f"loads.{name}"
            problems.append(Problem(code=error.code, where=where, what=what, fix=error.fix))
    if faults and all(error.retryable for error in faults.values()):
        raise next(iter(faults.values()))
    if problems:
        raise Invalid(problems)
