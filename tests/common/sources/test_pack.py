import hashlib
import os
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings, strategies as st

from tshrag_common.sources.faults import ArchiveKind, ArchiveLimit, ArchiveLink, ArchiveName
from tshrag_common.sources.pack import pack, tree_digest
from tshrag_common.sources.policy import SourceLimits
from tshrag_common.sources.unpack import unpack

LIMITS = SourceLimits()
GOLDEN = "bfd6c49443e06060f3f8b13dcc24f8f16450920e08ce7864bd6550c8b53d3f76"

names = st.text("abz-.é_A~", min_size=1, max_size=70).filter(lambda name: name not in (".", ".."))
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
trees = st.dictionaries(paths, st.tuples(st.binary(max_size=1500), st.booleans()), max_size=8)


def plant(root: Path, files: dict[str, tuple[bytes, bool]]) -> None:
    """Make the files in the order given; a name that another one blocks is left out."""
    root.mkdir()
    for name, (data, executable) in files.items():
        path = root / name
        if path.is_dir() or any(above.is_file() for above in path.parents):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o700 if executable else 0o600)


def test_the_digest_of_a_known_tree_never_changes(tmp_path: Path) -> None:
    files = {"load.toml": (b'name = "x"\n', False), "bin/go": (b"#!/bin/sh\n", True)}
    plant(tmp_path / "tree", files | {"é" * 40 + "/" + "n" * 90: (b"long", False)})
    packed = pack(tmp_path / "tree", tmp_path / "a.tar", LIMITS)
    assert packed.digest == GOLDEN
    assert packed.digest == hashlib.sha256((tmp_path / "a.tar").read_bytes()).hexdigest()
    assert packed.size_bytes == (tmp_path / "a.tar").stat().st_size
    assert packed.entries == 5


@settings(max_examples=40, deadline=None)
@given(trees)
def test_equal_trees_have_equal_digests_however_they_were_made(
    files: dict[str, tuple[bytes, bool]],
) -> None:
    with TemporaryDirectory() as name:
        base = Path(name)
        plant(base / "a", files)
        first = pack(base / "a", base / "a.tar", LIMITS)
        unpack(base / "a.tar", base / "b", LIMITS)
        assert tree_digest(base / "b", LIMITS) == first.digest
        for path in (base / "b").rglob("*"):
            os.utime(path, (1, 1))
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o640)
        assert pack(base / "b", base / "b.tar", LIMITS) == first
        assert (base / "a.tar").read_bytes() == (base / "b.tar").read_bytes()


@settings(max_examples=25, deadline=None)
@given(trees)
def test_other_programs_read_what_is_packed(files: dict[str, tuple[bytes, bool]]) -> None:
    with TemporaryDirectory() as name:
        base = Path(name)
        plant(base / "a", files)
        pack(base / "a", base / "a.tar", LIMITS)
        with tarfile.open(base / "a.tar") as archive:
            for member in archive.getmembers():
                path = base / "a" / member.name
                if member.isfile():
                    data = archive.extractfile(member)
                    assert data is not None
                    assert data.read() == path.read_bytes()
                assert (member.uid, member.mtime, member.uname) == (0, 0, "")
                assert member.mode == (0o755 if path.stat().st_mode & 0o100 else 0o644)


def test_one_changed_bit_or_mode_or_name_changes_the_digest(tmp_path: Path) -> None:
    plant(tmp_path / "a", {"x": (b"1", False), "d/y": (b"2", False)})
    seen = {tree_digest(tmp_path / "a", LIMITS)}
    (tmp_path / "a/x").write_bytes(b"3")
    seen.add(tree_digest(tmp_path / "a", LIMITS))
    (tmp_path / "a/x").chmod(0o755)
    seen.add(tree_digest(tmp_path / "a", LIMITS))
    (tmp_path / "a/x").rename(tmp_path / "a/z")
    seen.add(tree_digest(tmp_path / "a", LIMITS))
    (tmp_path / "a/empty").mkdir()
    seen.add(tree_digest(tmp_path / "a", LIMITS))
    assert len(seen) == 5


def test_git_folders_and_bytecode_are_left_out(tmp_path: Path) -> None:
    plant(tmp_path / "a", {"x": (b"1", False)})
    extra = {"x": (b"1", False), ".git/config": (b"", False), "__pycache__/x.pyc": (b"", False)}
    plant(tmp_path / "b", extra)
    first = pack(tmp_path / "a", tmp_path / "a.tar", LIMITS)
    assert pack(tmp_path / "b", tmp_path / "b.tar", LIMITS) == first


def test_links_fifos_and_odd_names_are_refused(tmp_path: Path) -> None:
    for name in ("link", "fifo", "name", "bytes"):
        (tmp_path / name).mkdir()
    (tmp_path / "link/x").symlink_to("/etc/passwd")
    with pytest.raises(ArchiveLink, match=r"'x' -> '/etc/passwd'"):
        tree_digest(tmp_path / "link", LIMITS)
    os.mkfifo(tmp_path / "fifo/x")
    with pytest.raises(ArchiveKind, match="a fifo"):
        tree_digest(tmp_path / "fifo", LIMITS)
    (tmp_path / "name/a\nb").touch()
    with pytest.raises(ArchiveName):
        tree_digest(tmp_path / "name", LIMITS)
    Path(os.fsdecode(bytes(tmp_path / "bytes") + b"/\xff")).touch()
    with pytest.raises(ArchiveName, match="UTF-8"):
        tree_digest(tmp_path / "bytes", LIMITS)


def test_the_limits_hold_for_directories_too(tmp_path: Path) -> None:
    plant(tmp_path / "a", {f"{n}": (b"12345", False) for n in range(5)})
    with pytest.raises(ArchiveLimit, match="> 4 files"):
        tree_digest(tmp_path / "a", SourceLimits(files=4))
    with pytest.raises(ArchiveLimit, match="> 20 bytes unpacked"):
        tree_digest(tmp_path / "a", SourceLimits(unpacked_bytes=20))
    plant(tmp_path / "b", {"/".join("abcdefgh"): (b"", False)})
    with pytest.raises(ArchiveLimit, match="depth > 7"):
        tree_digest(tmp_path / "b", SourceLimits(depth=7))


def test_a_packed_tree_ends_as_tars_end(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    pack(tmp_path / "a", tmp_path / "a.tar", LIMITS)
    assert (tmp_path / "a.tar").read_bytes() == bytes(1024)
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert archive.getmembers() == []
