"""From the text of a source to a digest: get it, check it, pack it in the canonical way.

What is remote is resolved by the controller, what lies on the submitter's machine by its client,
with this same code: equal trees have equal digests wherever they were packed.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tshrag_common.errors import shown
from tshrag_common.manifest import IMPLIED, implied_text
from tshrag_common.sources import archive, git
from tshrag_common.sources.address import Address, parse, permit, rewritten
from tshrag_common.sources.faults import (
    ArchiveLimit,
    DigestMismatch,
    ManifestMissing,
    SourceNotFound,
)
from tshrag_common.sources.pack import Packed, pack
from tshrag_common.sources.policy import SourceLimits, SourcePolicy
from tshrag_common.sources.threads import Check, in_thread
from tshrag_common.sources.tree import size_text
from tshrag_common.sources.unpack import unpack

MANIFEST = "load.toml"


class Resolved(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A source, nailed down. ``packed_path`` lies in the workdir that the caller gave."""

    source: str
    digest: str = ""  # of the packed tree; empty for a builtin
    commit: str = ""  # of git
    size_bytes: int = 0
    packed_path: str = ""
    manifest_bytes: bytes = b""
    builtin: str = ""


async def resolve(
    address: Address | str,
    workdir: Path,
    limits: SourceLimits,
    policy: SourcePolicy,
    rewrite: Mapping[str, str],
) -> Resolved:
    """Return what `address` is now. `workdir` is a directory for this alone; the caller ends it.

    Cancelled, it leaves no process and no thread behind.

    Raises:
        Refused, Unavailable: leaves of ``faults``, DeadlineExceeded.

    """
    given = parse(address) if isinstance(address, str) else address
    found = rewritten(given, rewrite)
    permit(found, policy)
    if found.kind == "builtin":
        return Resolved(source=found.text, builtin=found.location)
    await in_thread(lambda _: workdir.mkdir(parents=True, exist_ok=True))
    commit = ""
    if found.kind == "git":
        await in_thread(lambda _: _check_repository(found))
        commit = await git.fetch_tree(found, workdir, limits, policy)
        tree = workdir / "tree"
    elif found.kind == "archive":
        tree = await _unpacked(found, workdir, limits, policy)
    else:
        tree = Path(found.location)
    return await in_thread(lambda check: _packed(found, commit, tree, workdir, limits, check))


async def _unpacked(
    address: Address, workdir: Path, limits: SourceLimits, policy: SourcePolicy
) -> Path:
    path = Path(address.location)
    if address.is_remote:
        path = workdir / "archive"
        await archive.download(address, path, limits, policy)
    return await in_thread(lambda check: _open_archive(address, path, workdir, limits, check))


def _open_archive(
    address: Address, path: Path, workdir: Path, limits: SourceLimits, check: Check
) -> Path:
    if not path.is_file():
        raise SourceNotFound("", f"no archive at {shown(address.location)}")
    if address.sha256 and not address.is_remote:
        got = archive.file_sha256(path, check)
        if got != address.sha256:
            raise DigestMismatch(address.sha256, got)
    tree = workdir / "tree"
    unpack(path, tree, limits, check)
    return _subdir(address, _inner(tree))


def _inner(tree: Path) -> Path:
    """Step into the one directory that most archives have around everything."""
    inside = list(tree.iterdir())
    is_wrapped = len(inside) == 1 and inside[0].is_dir()
    return inside[0] if is_wrapped else tree


def _subdir(address: Address, tree: Path) -> Path:
    below = tree / address.subdir
    if not below.is_dir():
        raise SourceNotFound("", f"no directory {shown(address.subdir)} in {address.text}")
    return below


def _check_repository(address: Address) -> None:
    if address.scheme == "file" and not Path(address.location).is_dir():
        raise SourceNotFound("", f"no repository at {shown(address.location)}")


def _packed(
    address: Address, commit: str, tree: Path, workdir: Path, limits: SourceLimits, check: Check
) -> Resolved:
    if not tree.is_dir():
        raise SourceNotFound("", f"no directory at {shown(address.location)}")
    manifest = _manifest(address, tree, limits)
    packed = _pack_aside(tree, workdir, limits, check)
    path = workdir / f"{packed.digest}.tar"
    (workdir / "packed").rename(path)
    return Resolved(
        source=address.text,
        digest=packed.digest,
        commit=commit,
        size_bytes=packed.size_bytes,
        packed_path=str(path),
        manifest_bytes=manifest,
    )


def _pack_aside(tree: Path, workdir: Path, limits: SourceLimits, check: Check) -> Packed:
    into = workdir / "packed"
    into.unlink(missing_ok=True)
    packed = pack(tree, into, limits, check)
    if packed.size_bytes > limits.packed_bytes:
        raise ArchiveLimit("", f"> {size_text(limits.packed_bytes)} packed")
    shutil.rmtree(workdir / "tree", ignore_errors=True)
    return packed


def _manifest(address: Address, tree: Path, limits: SourceLimits) -> bytes:
    path = tree / MANIFEST
    if path.is_symlink() or not path.is_file():
        implied = implied_text({each for each in IMPLIED if _is_executable(tree / each)})
        if implied is not None and not path.is_symlink() and not path.exists():
            return implied
        fix = f"a load has {MANIFEST} at its top; name the directory that has it (#ref:sub/dir)"
        raise ManifestMissing("", f"{address.text} has no {MANIFEST}", fix)
    with path.open("rb") as file:
        manifest = file.read(limits.manifest_bytes + 1)
    if len(manifest) > limits.manifest_bytes:
        raise ArchiveLimit("", f"{MANIFEST} > {size_text(limits.manifest_bytes)}")
    return manifest


def _is_executable(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and bool(path.stat().st_mode & 0o100)
