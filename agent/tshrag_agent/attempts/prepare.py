"""What is executed: the argv of a command, or the entry of a load, fetched and verified."""

from pathlib import Path

import msgspec

from tshrag_agent.attempts import workdir
from tshrag_agent.attempts.workdir import Workdir
from tshrag_agent.loads.cache import TREE, LoadCache
from tshrag_common.errors import Refused
from tshrag_common.jobs import JobSpec, LoadRef
from tshrag_common.manifest import FILE, Manifest, implied_manifest, read_manifest


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """The command lines of an attempt; ``tree`` is the load's own directory."""

    argv: tuple[str, ...]
    setup: tuple[str, ...] = ()
    cleanup: tuple[str, ...] = ()
    tree: Path | None = None


class Kit(msgspec.Struct, frozen=True):
    """Where loads come from, and what this host is."""

    loads: LoadCache
    os: str
    arch: str


async def host_command(kit: Kit, place: Workdir, spec: JobSpec) -> Command:
    """Return what to execute on this host.

    Raises:
        Refused: the load has no entry for this platform, or is not what its digest says.

    """
    if spec.kind == "command" or spec.load is None:
        return Command(argv=spec.argv)
    return await load_command(kit, place, spec.load, kit.os, kit.arch)


async def load_command(kit: Kit, place: Workdir, load: LoadRef, os: str, arch: str) -> Command:
    """Unpack a load below the directory of the attempt and return its command lines."""
    prepared = await kit.loads.prepare(load.digest, place.path, size_bytes=load.size_bytes)
    return _command(place, prepared.tree, load, os, arch)


def unpacked_command(kit: Kit, place: Workdir, load: LoadRef) -> Command:
    """Return the command lines of a load that an earlier agent has unpacked here."""
    return _command(place, place.path / TREE, load, kit.os, kit.arch)


def _command(place: Workdir, tree: Path, load: LoadRef, os: str, arch: str) -> Command:
    manifest = manifest_of(tree, load.name)
    platform = manifest.entry(os, arch)
    if platform is None:
        there = ", ".join(f"{each.os}/{each.arch}" for each in manifest.platforms)
        what = f"no entry for {os}/{arch}, only for {there}"
        raise Refused(load.name, what, "add the platform to load.toml", code="no_platform")
    entry = tree / platform.entry
    if not entry.is_file():
        what = f"the entry {platform.entry} is not in the load"
        raise Refused(load.name, what, "correct load.toml", code="entry_missing")
    workdir.link_entry(place, entry)
    return Command(
        argv=(*manifest.interpreter, str(entry), *manifest.args),
        setup=_inside(tree, manifest.setup),
        cleanup=_inside(tree, manifest.cleanup),
        tree=tree,
    )


def manifest_of(tree: Path, name: str) -> Manifest:
    """Read ``load.toml`` of an unpacked load, or conclude from its executables."""
    try:
        return read_manifest((tree / FILE).read_bytes())
    except FileNotFoundError:
        executables = {
            path.name for path in tree.iterdir() if path.is_file() and path.stat().st_mode & 0o100
        }
        return implied_manifest(name, executables)


def _inside(tree: Path, argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return a command line with each word that is a file of the load made a full path.

    It begins in the directory of the job, so ``sh setup.sh`` would not find its script.
    """
    return tuple(str(tree / word) if _is_file(tree, word) else word for word in argv)


def _is_file(tree: Path, word: str) -> bool:
    if not word or word.startswith("/"):
        return False
    try:
        return (tree / word).is_file()
    except OSError:  # longer than a name may be
        return False
