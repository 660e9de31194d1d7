from pathlib import Path

import pytest

from tests.support.repositories import MANIFEST
from tshrag_common.errors import LabError
from tshrag_common.manifest import read_manifest
from tshrag_common.sources.faults import ArchiveLimit, ManifestMissing, SourceNotFound
from tshrag_common.sources.policy import LOCAL, SourceLimits, SourcePolicy
from tshrag_common.sources.resolve import Resolved, resolve

LIMITS = SourceLimits()


async def test_a_builtin_has_no_digest_and_no_file(tmp_path: Path) -> None:
    found = await resolve("builtin:noop", tmp_path / "w", LIMITS, SourcePolicy(), {})
    assert found == Resolved(source="builtin:noop", builtin="noop")


async def test_a_directory_is_packed_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "load").mkdir()
    (tmp_path / "load/load.toml").write_bytes(MANIFEST)
    found = await resolve(str(tmp_path / "load"), tmp_path / "w", LIMITS, LOCAL, {})
    assert found.commit == ""
    assert found.manifest_bytes == MANIFEST
    assert found.packed_path == str(tmp_path / "w" / f"{found.digest}.tar")
    assert (tmp_path / "load/load.toml").exists()
    again = await resolve(str(tmp_path / "load"), tmp_path / "w", LIMITS, LOCAL, {})
    assert again == found


async def test_what_is_missing_is_named(tmp_path: Path) -> None:
    for text in (f"{tmp_path}/none", f"{tmp_path}/none.tgz", f"{tmp_path}/none#v1"):
        with pytest.raises(SourceNotFound, match="none"):
            await resolve(text, tmp_path / "w", LIMITS, LOCAL, {})
    (tmp_path / "load").mkdir()
    with pytest.raises(ManifestMissing):
        await resolve(f"{tmp_path}/load", tmp_path / "w", LIMITS, LOCAL, {})
    (tmp_path / "load/load.toml").symlink_to("/etc/passwd")
    with pytest.raises(ManifestMissing):
        await resolve(f"{tmp_path}/load", tmp_path / "w", LIMITS, LOCAL, {})


async def test_an_executable_at_the_top_stands_for_a_manifest(tmp_path: Path) -> None:
    load = tmp_path / "load"
    load.mkdir()
    (load / "run").write_text("#!/bin/sh\n")
    with pytest.raises(ManifestMissing):
        await resolve(str(load), tmp_path / "w", LIMITS, LOCAL, {})
    (load / "run").chmod(0o755)
    found = await resolve(str(load), tmp_path / "w", LIMITS, LOCAL, {})
    assert read_manifest(found.manifest_bytes).platforms[0].entry == "run"
    (load / "load_bin").symlink_to("run")
    with pytest.raises(LabError):  # a link stands for nothing, and is in no load
        await resolve(str(load), tmp_path / "w", LIMITS, LOCAL, {})


async def test_a_packed_load_is_bounded_too(tmp_path: Path) -> None:
    (tmp_path / "load").mkdir()
    (tmp_path / "load/load.toml").write_bytes(MANIFEST)
    with pytest.raises(ArchiveLimit, match="> 1 KiB packed"):
        await resolve(
            f"{tmp_path}/load", tmp_path / "w", SourceLimits(packed_bytes=1024), LOCAL, {}
        )
