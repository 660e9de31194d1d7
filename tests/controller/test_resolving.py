"""Loads of a profile become digests and manifests: fetched, or read back from what was uploaded."""

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.repositories import Repository
from tshrag_common.errors import Invalid, LabError
from tshrag_common.profile import Profile
from tshrag_common.reading import profile_of
from tshrag_common.requests import LocalLoad
from tshrag_common.sources.policy import SourceLimits, SourcePolicy
from tshrag_controller import blobs
from tshrag_controller.blobs import FolderBlobs
from tshrag_controller.resolving import Resolving

POLICY = SourcePolicy()
MANIFEST = b'name = "iperf"\nversion = "3.1"\n[[platforms]]\nentry = "go.sh"\n'


def resolving(base: Path, rewrite: Mapping[str, str] | None = None) -> Resolving:
    store = FolderBlobs(base / "blobs", 64 << 20)
    return Resolving(store, base / "work", SourceLimits(fetch_s=30), POLICY, rewrite or {})


def profile(**paths: str) -> Profile:
    """Return a profile with a load for each path, and a step for each load."""
    return profile_of(
        {
            "name": "t",
            "loads": {name: {"path": path} for name, path in paths.items()},
            "schedule": {"sequence": [{"load": name} for name in paths]},
        }
    )


async def uploaded(base: Path, data: bytes, **more: str) -> LocalLoad:
    """Put bytes into the store as the client does that packed them."""
    digest = hashlib.sha256(data).hexdigest()
    path = base / digest
    path.write_bytes(data)
    await blobs.put_file(FolderBlobs(base / "blobs", 64 << 20), digest, path)
    return LocalLoad(source="./load", digest=digest, size_bytes=len(data), **more)


def a_tar(members: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return out.getvalue()


async def fault(made: Resolving, asked: Profile, **local: LocalLoad) -> str:
    with pytest.raises(LabError) as refused:
        await made.resolve_all(asked, local)
    return refused.value.line


async def test_an_uploaded_load_is_read_back_from_the_store(tmp_path: Path) -> None:
    data = a_tar({"bin/go.sh": b"#!/bin/sh\n", "load.toml": MANIFEST})
    local = await uploaded(tmp_path, data, commit="c0ffee")
    found = await resolving(tmp_path).resolve_all(profile(own="./load"), {"own": local})
    assert list(found) == ["own"]
    assert (found["own"].ref.digest, found["own"].ref.commit) == (local.digest, "c0ffee")
    assert found["own"].ref.size_bytes == len(data), "as stored, not as told"
    assert (found["own"].manifest.name, found["own"].manifest.version) == ("iperf", "3.1")
    assert not list((tmp_path / "work").iterdir()), "nothing is left of the work"


async def test_what_was_not_uploaded_is_refused(tmp_path: Path) -> None:
    local = LocalLoad(source="./load", digest="ab" * 32, size_bytes=7)
    said = await fault(resolving(tmp_path), profile(own="./load"), own=local)
    assert (
        said
        == "load: loads.own: own: load abababababab was not uploaded; upload it before the submit"
    )


@pytest.mark.parametrize("digest", ["../../etc/passwd", "", "AB" * 32, "ab" * 31])
async def test_a_digest_that_is_none_names_no_file(tmp_path: Path, digest: str) -> None:
    local = LocalLoad(source="./load", digest=digest, size_bytes=7)
    said = await fault(resolving(tmp_path), profile(own="./load"), own=local)
    assert "loads.own" in said


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"no tar at all" * 100, "archive"),
        (a_tar({"bin/go.sh": b"x"}), "manifest_missing"),
        (a_tar({"load.toml": MANIFEST}, {"bin": "/etc"}), "archive_link"),
        (a_tar({"load.toml": MANIFEST, "../evil": b"x"}), "archive_name"),
        (a_tar({"load.toml": MANIFEST + b"#" * (300 << 10)}), "too_large"),
        (a_tar({"load.toml": b"name = [unclosed"}), "toml"),
        (a_tar({"load.toml": MANIFEST})[:700], "archive"),
    ],
)
async def test_an_upload_that_is_no_load_is_refused_before_the_run_is_accepted(
    tmp_path: Path, data: bytes, word: str
) -> None:
    local = await uploaded(tmp_path, data)
    assert word in await fault(resolving(tmp_path), profile(own="./load"), own=local)
    assert not list((tmp_path / "work").iterdir())


async def test_the_faults_of_all_loads_come_in_one_answer(tmp_path: Path) -> None:
    asked = profile(denied="file:///etc", builtin="builtin:nop", gone="./load", fine="builtin:noop")
    local = LocalLoad(source="./load", digest="ab" * 32, size_bytes=7)
    with pytest.raises(Invalid) as refused:
        await resolving(tmp_path).resolve_all(asked, {"gone": local})
    found = {problem.where: problem.code for problem in refused.value.problems}
    assert found.keys() == {"loads.denied", "loads.builtin", "loads.gone"}
    assert found["loads.denied"] == "url_denied"
    assert found["loads.builtin"] == "unknown_builtin"
    assert "nearest: noop" in refused.value.line


async def test_a_builtin_is_known_by_its_name(tmp_path: Path) -> None:
    found = await resolving(tmp_path).resolve_all(profile(a="builtin:noop"), {})
    assert (found["a"].ref.digest, found["a"].ref.builtin) == ("", "noop")


async def test_a_load_of_a_repository_is_fetched_by_the_table_of_mirrors(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "origin")
    commit = repository.commit({"load.toml": MANIFEST, "go.sh": b"#!/bin/sh\n"}, "go.sh")
    repository.git("tag", "--annotate", "v3.1", "--message=release")
    mirror = Path(repository.publish()).parent
    table = {"git@repo:tools/": f"file://{mirror}/"}
    made = resolving(tmp_path, table)
    source = "git@repo:tools/iperf-module.git#v3.1"
    found = await made.resolve_all(profile(iperf=source), {})
    ref = found["iperf"].ref
    assert (ref.source, ref.commit, ref.name) == (source, commit, "iperf")
    kept = await FolderBlobs(tmp_path / "blobs", 1 << 20).size(ref.digest)
    assert kept == ref.size_bytes, "agents find it by its digest"
    again = await made.resolve_all(profile(a=source, b=source), {})
    assert again["a"].ref.digest == again["b"].ref.digest == ref.digest


async def test_a_ref_that_is_missing_is_named(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "origin")
    repository.commit({"load.toml": MANIFEST})
    mirror = Path(repository.publish()).parent
    made = resolving(tmp_path, {"git@repo:tools/": f"file://{mirror}/"})
    said = await fault(made, profile(a="git@repo:tools/iperf-module.git#v9"))
    assert said.startswith("ref_not_found: loads.a: ")


async def test_a_profile_of_commands_needs_no_load(tmp_path: Path) -> None:
    plain = profile_of({"name": "t", "schedule": {"sequence": [{"command": "true"}]}})
    assert await resolving(tmp_path).resolve_all(plain, {}) == {}
