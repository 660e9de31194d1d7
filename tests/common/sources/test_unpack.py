"""Archives made to do harm: nothing outside of the fresh directory ever changes."""

import gzip
import io
import random
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tshrag_common.errors import Refused
from tshrag_common.sources.faults import (
    ArchiveBroken,
    ArchiveKind,
    ArchiveLimit,
    ArchiveLink,
    ArchiveName,
)
from tshrag_common.sources.policy import SourceLimits
from tshrag_common.sources.threads import Stopped
from tshrag_common.sources.unpack import unpack

LIMITS = SourceLimits(unpacked_bytes=1 << 22)
Fill = Callable[[tarfile.TarFile], object]


def a_tar(path: Path, fill: Fill, mode: str = "w", form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, mode, format=form) as archive:  # type: ignore[call-overload] # mode is a plain str here
        fill(archive)
    return path


def put(archive: tarfile.TarFile, name: str, data: bytes = b"x", **facts: object) -> str:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in facts.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(data))
    return name


def names_in(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def a_zip(path: Path, *members: tuple[str, bytes, int]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return path


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_archives_of_all_programs_are_read(tmp_path: Path, form: int, mode: str) -> None:
    long = "d" * 60 + "/" + "n" * 90

    def fill(archive: tarfile.TarFile) -> None:
        put(archive, "./", b"", type=tarfile.DIRTYPE)
        put(archive, "./run", b"#!/bin/sh\n", mode=0o4755)
        put(archive, long, b"y" * 1000, mode=0o600, uid=7, mtime=9)
        put(archive, "empty/", b"", type=tarfile.DIRTYPE, mode=0o000)
        put(archive, "bär", b"")

    unpack(a_tar(tmp_path / "a", fill, mode, form), tmp_path / "out", LIMITS)
    out = tmp_path / "out"
    assert (out / long).read_bytes() == b"y" * 1000
    assert stat.S_IMODE((out / "run").stat().st_mode) == 0o755
    assert stat.S_IMODE((out / long).stat().st_mode) == 0o644
    assert stat.S_IMODE((out / "empty").stat().st_mode) == 0o755
    assert (out / "bär").is_file()


def test_a_zip_is_read(tmp_path: Path) -> None:
    path = a_zip(
        tmp_path / "a.zip",
        ("d/", b"", stat.S_IFDIR | 0o755),
        ("d/run", b"#!/bin/sh\n" * 50, stat.S_IFREG | 0o4755),
        ("plain", b"p", 0),
    )
    unpack(path, tmp_path / "out", LIMITS)
    assert stat.S_IMODE((tmp_path / "out/d/run").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "out/plain").stat().st_mode) == 0o644
    assert (tmp_path / "out/d/run").read_bytes() == b"#!/bin/sh\n" * 50


HOSTILE: list[tuple[str, Fill, type[Refused], str]] = [
    ("absolute", lambda t: put(t, "/CANARY/x"), ArchiveName, "is absolute"),
    ("upwards", lambda t: put(t, "a/../../CANARY"), ArchiveName, "leads outside"),
    ("dots", lambda t: put(t, "..", type=tarfile.DIRTYPE, data=b""), ArchiveName, "outside"),
    ("backslash", lambda t: put(t, "..\\CANARY"), ArchiveName, "backslash"),
    ("newline", lambda t: put(t, "a\nb"), ArchiveName, "control"),
    ("long", lambda t: put(t, "n" * 256), ArchiveName, "255 bytes"),
    ("empty name", lambda t: put(t, "."), ArchiveName, "no name of a file"),
    ("symlink", lambda t: put(t, "x", b"", type=tarfile.SYMTYPE, linkname="/etc"), ArchiveLink,
     "'x' -> '/etc'"),
    ("hardlink", lambda t: put(t, "x", b"", type=tarfile.LNKTYPE, linkname="../y"), ArchiveLink,
     "'x' -> '../y'"),
    ("fifo", lambda t: put(t, "x", b"", type=tarfile.FIFOTYPE), ArchiveKind, "a fifo"),
    ("disk", lambda t: put(t, "x", b"", type=tarfile.BLKTYPE, devmajor=8), ArchiveKind, "a device"),
    ("zero", lambda t: put(t, "x", b"", type=tarfile.CHRTYPE, devmajor=1), ArchiveKind, "a device"),
    ("sparse", lambda t: put(t, "x", b"", type=b"S"), ArchiveKind, "sparse"),
    ("unknown", lambda t: put(t, "x", b"", type=b"V"), ArchiveKind, "unknown"),
    ("twice", lambda t: [put(t, "x"), put(t, "./x")], ArchiveName, "is there twice"),
    ("through", lambda t: [put(t, "x"), put(t, "x/y")], ArchiveName, "goes through a file"),
    ("over a folder", lambda t: [put(t, "x/y"), put(t, "x")], ArchiveName, "is there twice"),
    ("deep", lambda t: put(t, "a/" * 20 + "x"), ArchiveLimit, "depth > 20"),
    ("pax size", lambda t: put(t, "x", pax_headers={"size": "9"}), ArchiveBroken, "'size'"),
    ("huge header", lambda t: put(t, "x", pax_headers={"comment": "c" * 70_000}), ArchiveLimit,
     "header"),
    ("NUL in pax", lambda t: put(t, "x", pax_headers={"path": "a\x00b"}), ArchiveName, "control"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "fill", "error", "said"), HOSTILE, ids=[h[0] for h in HOSTILE])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_hostile_tar_is_refused(
    tmp_path: Path, kind: str, fill: Fill, error: type[Refused], said: str, mode: str
) -> None:
    archive = a_tar(tmp_path / "a", fill, mode)
    outside = [*names_in(tmp_path), "out"]
    with pytest.raises(error, match=said):
        unpack(archive, tmp_path / "out", LIMITS)
    assert names_in(tmp_path) == outside
    assert not Path("/CANARY").exists()
    links = [p for p in (tmp_path / "out").rglob("*") if p.is_symlink()]
    assert links == []


def test_rows_28_and_29_read_as_they_should(tmp_path: Path) -> None:
    whole = a_tar(tmp_path / "a", lambda t: put(t, "x", b"y" * 5000))
    (tmp_path / "torn").write_bytes(whole.read_bytes()[:3000])
    with pytest.raises(ArchiveBroken) as broken:
        unpack(tmp_path / "torn", tmp_path / "o1", LIMITS)
    assert broken.value.line == "archive: unexpected end at member 'x'"
    link = a_tar(tmp_path / "l", lambda t: put(t, "x", b"", type=b"2", linkname="y"))
    with pytest.raises(ArchiveLink) as linked:
        unpack(link, tmp_path / "o2", LIMITS)
    assert linked.value.line.startswith("archive_link: 'x' -> 'y'")
    with pytest.raises(ArchiveLimit) as limit:
        unpack(a_bomb(tmp_path / "b"), tmp_path / "o3", SourceLimits())
    assert limit.value.line == "archive_limit: > 2 GiB unpacked"


def a_bomb(path: Path) -> Path:
    """Announce 3 GiB."""
    member = tarfile.TarInfo("zeros")
    member.size = 3 << 30
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 16))
    return path


@pytest.mark.parametrize("cut", [0, 1, 100, 511, 512, 600, 5600, 5632, 10**6])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_cut_anywhere_is_never_taken(tmp_path: Path, cut: int, mode: str) -> None:
    noise = random.Random(1).randbytes(5000)
    whole = a_tar(tmp_path / "a", lambda t: put(t, "x", noise), mode).read_bytes()
    (tmp_path / "cut").write_bytes(whole[: min(cut, len(whole) - (1 if mode == "w:gz" else 4608))])
    with pytest.raises(ArchiveBroken):
        unpack(tmp_path / "cut", tmp_path / "out", LIMITS)


def test_a_compressed_bomb_ends_at_the_ratio(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a", "wb") as file:
        member = tarfile.TarInfo("zeros")
        member.size = 100 << 20
        file.write(member.tobuf())
        for _ in range(100):
            file.write(bytes(1 << 20))
    with pytest.raises(ArchiveLimit, match="> 100:1"):
        unpack(tmp_path / "a", tmp_path / "out", SourceLimits())
    assert (tmp_path / "out/zeros").stat().st_size < 30 << 20


def test_many_files_end_at_their_limit(tmp_path: Path) -> None:
    archive = a_tar(tmp_path / "a", lambda t: [put(t, f"f{n}", b"") for n in range(40)])
    with pytest.raises(ArchiveLimit, match="> 30 files"):
        unpack(archive, tmp_path / "out", SourceLimits(files=30))


def test_folders_on_the_way_count_as_files(tmp_path: Path) -> None:
    archive = a_tar(tmp_path / "a", lambda t: [put(t, f"d{n}/e/f", b"") for n in range(15)])
    with pytest.raises(ArchiveLimit, match="> 30 files"):
        unpack(archive, tmp_path / "out", SourceLimits(files=30))


def test_an_archive_inside_stays_closed(tmp_path: Path) -> None:
    inner = a_zip(tmp_path / "i.zip", ("y", b"1", 0)).read_bytes()
    unpack(a_tar(tmp_path / "a", lambda t: put(t, "i.zip", inner)), tmp_path / "out", LIMITS)
    assert names_in(tmp_path / "out") == ["i.zip"]


def test_an_old_directory_is_never_unpacked_into(tmp_path: Path) -> None:
    archive = a_tar(tmp_path / "a", lambda t: put(t, "x"))
    (tmp_path / "out").symlink_to(tmp_path)
    with pytest.raises(FileExistsError):
        unpack(archive, tmp_path / "out", LIMITS)


def test_unpacking_stops_when_it_is_told_to(tmp_path: Path) -> None:
    def stop() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        unpack(a_tar(tmp_path / "a", lambda t: put(t, "x")), tmp_path / "out", LIMITS, stop)


def test_unpacking_has_a_time_limit(tmp_path: Path) -> None:
    with pytest.raises(ArchiveLimit, match="> 0 s"):
        unpack(
            a_tar(tmp_path / "a", lambda t: put(t, "x")), tmp_path / "out", SourceLimits(unpack_s=0)
        )


@pytest.mark.parametrize(
    ("name", "mode", "error"),
    [
        ("/CANARY", 0, ArchiveName),
        ("../CANARY", 0, ArchiveName),
        ("a\\b", 0, ArchiveName),
        ("link", stat.S_IFLNK | 0o777, ArchiveLink),
        ("fifo", stat.S_IFIFO | 0o644, ArchiveKind),
        ("disk", stat.S_IFBLK | 0o644, ArchiveKind),
    ],
)
def test_a_hostile_zip_is_refused(
    tmp_path: Path, name: str, mode: int, error: type[Refused]
) -> None:
    path = a_zip(tmp_path / "a.zip", (name, b"/etc/passwd", mode))
    with pytest.raises(error):
        unpack(path, tmp_path / "out", LIMITS)
    assert names_in(tmp_path / "out") == []


def test_a_zip_with_a_name_twice_or_a_NUL_is_refused(tmp_path: Path) -> None:  # noqa: N802 # NUL is its name
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = a_zip(tmp_path / "a.zip", ("x", b"1", 0), ("x", b"2", 0))
    with pytest.raises(ArchiveName, match="twice"):
        unpack(twice, tmp_path / "o1", LIMITS)
    nul = a_zip(tmp_path / "b.zip", ("aXb", b"1", 0)).read_bytes().replace(b"aXb", b"a\0b")
    (tmp_path / "b.zip").write_bytes(nul)
    with pytest.raises(ArchiveName):
        unpack(tmp_path / "b.zip", tmp_path / "o2", LIMITS)


def test_zip_bombs_are_refused(tmp_path: Path) -> None:
    bomb = a_zip(tmp_path / "a.zip", ("x", bytes(20 << 20), 0))
    with pytest.raises(ArchiveLimit, match="100:1"):
        unpack(bomb, tmp_path / "o1", SourceLimits())
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, 1 << 30, 0, 0)
    (tmp_path / "b.zip").write_bytes(b"PK\3\4" + end)
    with pytest.raises(ArchiveLimit, match="table of contents"):
        unpack(tmp_path / "b.zip", tmp_path / "o2", SourceLimits())


@pytest.mark.parametrize("seed", range(60))
def test_damaged_archives_are_refused_or_read_but_never_a_surprise(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    kinds: list[Callable[[Path], Path]] = [
        lambda p: a_tar(p, lambda t: [put(t, "d/x", b"1" * 700), put(t, "y")]),
        lambda p: a_tar(p, lambda t: [put(t, "d/x", b"1" * 700), put(t, "y")], "w:gz"),
        lambda p: a_zip(p, ("d/x", b"1" * 700, 0o644), ("y", b"2", 0)),
    ]
    path = kinds[seed % 3](tmp_path / "a")
    data = bytearray(path.read_bytes())
    for _ in range(chance.randint(1, 12)):
        data[chance.randrange(min(len(data), 2048))] = chance.randrange(256)
    path.write_bytes(data)
    try:
        unpack(path, tmp_path / "out", LIMITS)
    except Refused as refused:
        assert "\n" not in refused.line
    assert names_in(tmp_path) in (["a"], ["a", "out"])
