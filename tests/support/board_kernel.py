"""A real Linux for QEMU boards: Debian's kernel, an initrd of busybox and dropbear.

Made once from Debian packages into a folder of the user's cache (``TSHRAG_BOARDS_CACHE``), outside
of the repository. Behind the serial line is busybox's getty; the network has dropbear.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.debian import need_program

PASSWORD = "letmein"
_INIT = """#!/bin/sh
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /etc/dropbear
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/pts; mount -t devpts devpts /dev/pts
hostname board
insmod /e1000.ko
ip link set lo up; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0
/sbin/dropbear -E -s -r /etc/dropbear/key
exec /bin/init
"""
_INITTAB = """\
ttyS0::respawn:/bin/getty -L ttyS0 115200 vt100
::ctrlaltdel:/bin/reboot
::shutdown:/bin/true
"""


class BoardKernel:
    """Where kernel and initrd are, and the key that the board's dropbear takes."""

    def __init__(self, folder: Path) -> None:
        self.kernel, self.initrd = folder / "vmlinuz", folder / "initrd.gz"
        self.client_key, self.host_key = folder / "client_key", folder / "host_key.pub"
        self.folder = folder

    @property
    def is_there(self) -> bool:
        return self.initrd.exists()


def need_kernel() -> BoardKernel:
    """Return the kernel; make it where that is possible, skip loudly elsewhere."""
    home = os.environ.get("TSHRAG_BOARDS_CACHE") or "~/.cache/tshrag-boards"
    made = BoardKernel(Path(home).expanduser() / "linux-1")
    for program, package in (
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("cpio", "cpio"),
        ("dropbear", "dropbear-bin"),
        ("openssl", "openssl"),
    ):
        need_program(program, package)
    if not made.is_there:
        if not shutil.which("apt-get") or os.uname().machine != "x86_64":
            pytest.skip("the kernel of these boards is a package of Debian for x86_64")
        _make(made)
    return made


def _run(*argv: str, cwd: Path, stdin: bytes = b"") -> bytes:
    done = subprocess.run(argv, cwd=cwd, input=stdin, capture_output=True, timeout=600, check=False)
    if done.returncode:
        raise AssertionError(f"{argv}: {done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout


def _make(made: BoardKernel) -> None:
    folder = made.folder
    folder.mkdir(parents=True, exist_ok=True)
    depends = _run("apt-cache", "depends", "linux-image-amd64", cwd=folder).decode()
    package = next(word for word in depends.split() if word.startswith("linux-image-6"))
    _run("apt-get", "download", "-q", package, cwd=folder)
    (deb,) = folder.glob("linux-image-*.deb")
    tree, root = folder / "package", folder / "root"
    _run("dpkg-deb", "-x", str(deb), str(tree), cwd=folder)
    shutil.copy(next(tree.glob("boot/vmlinuz-*")), made.kernel)
    _make_root(made, root, next(tree.rglob("e1000.ko")))
    names = _run("find", ".", cwd=root)
    packed = _run("cpio", "-o", "-H", "newc", "--quiet", cwd=root, stdin=names)
    fresh = folder / "initrd.new"
    fresh.write_bytes(_run("gzip", "-1", cwd=folder, stdin=packed))
    fresh.rename(made.initrd)
    deb.unlink()
    shutil.rmtree(tree)


def _make_root(made: BoardKernel, root: Path, module: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    for name in ("bin", "sbin", "etc/dropbear", "root/.ssh"):
        (root / name).mkdir(parents=True)
    _run("apt-get", "download", "-q", "busybox-static", cwd=made.folder)  # the other one has libs
    (deb,) = made.folder.glob("busybox-static*.deb")
    _run("dpkg-deb", "-x", str(deb), str(made.folder / "static"), cwd=made.folder)
    shutil.copy(made.folder / "static/bin/busybox", root / "bin/busybox")
    (root / "bin/sh").symlink_to("busybox")
    shutil.copy(module, root / "e1000.ko")
    dropbear = need_program("dropbear", "dropbear-bin")
    shutil.copy(dropbear, root / "sbin/dropbear")
    for word in _run("ldd", dropbear, cwd=root).decode().split():
        if word.startswith("/") and Path(word).is_file():
            (root / word[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, root / word[1:])
    hashed = _run("openssl", "passwd", "-6", PASSWORD, cwd=root).decode().strip()
    _write(root / "etc/passwd", f"root:{hashed}:0:0:root:/root:/bin/sh\n")
    _write(root / "etc/group", "root:x:0:\n")
    _write(root / "etc/shells", "/bin/sh\n")
    _write(root / "etc/inittab", _INITTAB)
    _write(root / "init", _INIT, 0o755)
    _make_keys(made, root)


def _make_keys(made: BoardKernel, root: Path) -> None:
    maker = need_program("dropbearkey", "dropbear-bin")
    said = _run(maker, "-t", "ed25519", "-f", str(root / "etc/dropbear/key"), cwd=root).decode()
    _write(
        made.host_key, next(line for line in said.splitlines() if line.startswith("ssh-")) + "\n"
    )
    made.client_key.unlink(missing_ok=True)
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(made.client_key), cwd=root)
    public = Path(f"{made.client_key}.pub").read_text()
    _write(root / "root/.ssh/authorized_keys", public, 0o600)
    (root / "root/.ssh").chmod(0o700)
    (root / "root").chmod(0o700)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.write_text(text)
    path.chmod(mode)


def linux_toml(made: BoardKernel, name: str, password_file: Path, ssh_port: int) -> str:
    """Return the ``[[dut]]`` of a board with this kernel, on a console and by SSH."""
    return f"""\
[[dut]]
id = "{name}"
kind = "qemu-x86"

[dut.qemu]
program = "qemu-system-x86_64"
machine = "pc"
memory = "256M"
kernel = "{made.kernel}"
initrd = "{made.initrd}"
append = "console=ttyS0 panic=-1 quiet"
args = [
    "-device", "e1000,netdev=lab",
    "-netdev", "user,id=lab,restrict=on,hostfwd=tcp:127.0.0.1:{ssh_port}-:22",
]
network = false

[dut.serial.login]
user = "root"
password_file = "{password_file}"
timeout_s = 240.0

[dut.boot]
quiet_s = 120.0
timeout_s = 400.0

[dut.ssh]
host = "127.0.0.1"
port = {ssh_port}
host_key = "{made.host_key}"
key_file = "{made.client_key}"
"""
