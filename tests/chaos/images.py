"""Disks that lose power: an ext4 on a loop image; a cut is a copy of the image, mounted anew.

Only what the file system has written to its device is in the copy, which is what a power cut
leaves. Needs root.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path


def can_mount() -> str:
    """Return why there can be no disks here; empty when there can."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [name for name in ("mkfs.ext4", "mount", "umount") if shutil.which(name) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    return "" if Path("/dev/loop-control").exists() else "needs loop devices"


class Disk:
    """One disk; `cut` leaves it as a power cut at this instant would."""

    def __init__(self, folder: Path, mebibytes: int = 64) -> None:
        self._image, self._copy = folder / "disk.img", folder / "cut.img"
        self.mount = folder / "mount"
        self.mount.mkdir(parents=True)
        with self._image.open("wb") as file:
            file.truncate(mebibytes << 20)
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        _run("mount", "-o", "loop", str(self._image), str(self.mount))

    def cut(self) -> None:
        """Keep what is on the device now; `restore` is called when all users have gone."""
        _run("cp", "--sparse=always", str(self._image), str(self._copy))

    def restore(self) -> None:
        """Mount what was left by the cut."""
        _run("umount", str(self.mount))
        self._copy.rename(self._image)
        _run("mount", "-o", "loop", str(self._image), str(self.mount))

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.mount)], capture_output=True, check=False)


@contextlib.contextmanager
def a_disk(folder: Path, mebibytes: int = 64) -> Iterator[Disk]:
    disk = Disk(folder, mebibytes)
    try:
        yield disk
    finally:
        disk.close()


@contextlib.contextmanager
def a_small_disk(mount: Path, mebibytes: int) -> Iterator[Path]:
    """Mount a tmpfs of so many MiB."""
    mount.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0700", "tmpfs", str(mount))
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], capture_output=True, check=False)


def fill(mount: Path, name: str = "filler") -> Path:
    """Fill a disk to the last byte; return the file to remove."""
    path = mount / name
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        size = 1 << 20
        while size:
            try:
                file.write(b"\0" * size)
            except OSError:
                size //= 2
    return path


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


def can_have_quotas() -> str:
    """Return why there can be no quotas here; empty when there can."""
    if why := can_mount():
        return why
    missing = [name for name in ("mkfs.btrfs", "btrfs") if shutil.which(name) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    kinds = Path("/proc/filesystems").read_text()
    return "" if "btrfs" in kinds else "needs btrfs in the kernel"


@contextlib.contextmanager
def a_quota(folder: Path, kibibytes: int) -> Iterator[Path]:
    """Yield a folder with a quota, on a disk that has much more room; it holds for root too."""
    image, mount = folder / "quota.img", folder / "quota"
    mount.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(128 << 20)
    _run("mkfs.btrfs", "-q", str(image))
    _run("mount", "-o", "loop", str(image), str(mount))
    try:
        _run("btrfs", "quota", "enable", str(mount))
        _run("btrfs", "subvolume", "create", str(mount / "jobs"))
        _run("btrfs", "qgroup", "limit", f"{kibibytes}K", str(mount / "jobs"))
        yield mount / "jobs"
    finally:
        subprocess.run(["umount", "-l", str(mount)], capture_output=True, check=False)
        image.unlink()
