"""``tshrag-agent scan``: what hangs on this host, and what has just come: a proposal for a board.

Serial adapters by their stable names, USB devices by the port that they hang on, neighbours of
the network that speak SSH. Nothing is opened and nothing is written to.
"""

import asyncio
import re
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from tshrag_common.errors import DeadlineExceeded

SSH_S = 1.0
LOOK_S = 0.5
_USB_DEVICE = re.compile(r"\d+-\d+(\.\d+)*")
_HUB = "09"
_SSH_PORT = 22


class SerialPort(msgspec.Struct, frozen=True, kw_only=True):
    """A tty with a device behind it. ``by_id`` names the adapter, ``by_path`` the socket."""

    device: str
    by_id: str = ""
    by_path: str = ""

    @property
    def name(self) -> str:
        """Return the name that stays the same after a reboot, where there is one."""
        return self.by_id or self.by_path or self.device


class UsbDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A device by its place: ``1-1.3`` is port 3 of the hub at port 1 of bus 1."""

    path: str
    ids: str
    name: str = ""


class SshHost(msgspec.Struct, frozen=True, kw_only=True):
    """A neighbour that speaks SSH, and how it greets."""

    address: str
    banner: str


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """All that was found."""

    serial: tuple[SerialPort, ...] = ()
    usb: tuple[UsbDevice, ...] = ()
    ssh: tuple[SshHost, ...] = ()

    def beyond(self, before: "Scan") -> "Scan":
        """Return what is here and was not before."""
        return Scan(
            serial=tuple(each for each in self.serial if each not in before.serial),
            usb=tuple(each for each in self.usb if each not in before.usb),
            ssh=tuple(each for each in self.ssh if each not in before.ssh),
        )

    @property
    def lines(self) -> list[str]:
        """Return it for people, one thing a line."""
        return [
            *(f"serial  {each.device:14} {each.name}" for each in self.serial),
            *(f"usb     {each.path:14} {each.ids} {each.name}".rstrip() for each in self.usb),
            *(f"ssh     {each.address:14} {each.banner}" for each in self.ssh),
        ]


def attached(root: Path = Path("/")) -> Scan:
    """Return what is attached to this host; `root` is another one for tests."""
    return Scan(serial=tuple(_serial(root)), usb=tuple(_usb(root)))


async def scan(root: Path = Path("/")) -> Scan:
    """Return what is attached, and which neighbours speak SSH."""
    found = await asyncio.to_thread(attached, root)
    addresses = await asyncio.to_thread(neighbours, root)
    greeted = await asyncio.gather(*(_greeting(each) for each in addresses))
    return msgspec.structs.replace(found, ssh=tuple(each for each in greeted if each is not None))


async def learn(before: Scan, within_s: float, root: Path = Path("/")) -> Scan:
    """Wait until something new is here that could be a board; return what came.

    Raises:
        DeadlineExceeded: nothing came.

    """
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        new = (await scan(root)).beyond(before)
        if new.serial or new.ssh:
            await asyncio.sleep(LOOK_S)  # a hub brings its devices one after the other
            return (await scan(root)).beyond(before)
        await asyncio.sleep(LOOK_S)
    what = f"nothing new within {within_s:g} s"
    raise DeadlineExceeded("scan", what, "power the board, or plug its cable, after the start")


def proposal(name: str, found: Scan) -> str:
    """Return the ``[[dut]]`` of a board that has come, for a person to look at."""
    lines = ["[[dut]]", f'id = "{name}"', 'kind = "board"                       # what it is']
    for port in found.serial[:1]:
        lines += ["", "[dut.serial]", f'url = "{port.name}"']
    for port in found.serial[1:]:
        lines.append(f"# also new: {port.name}")
    for host in found.ssh[:1]:
        lines += ["", f"[dut.ssh]                            # {host.banner}"]
        lines += [f'host = "{host.address}"', f'host_key = "/etc/tshrag/{name}.pub"']
        lines.append(f"# ssh-keyscan {host.address} says its key, if you trust the way to it")
        lines.append('key_file = "/etc/tshrag/lab.key"')
    for device in found.usb:
        lines.append(f"# on USB port {device.path}: {device.ids} {device.name}".rstrip())
    return "\n".join(lines) + "\n"


def neighbours(root: Path = Path("/")) -> list[str]:
    """Return the addresses that the kernel has lately seen on its networks."""
    found: list[str] = []
    for line in _text(root / "proc/net/arp").splitlines()[1:]:
        words = line.split()
        if len(words) >= 4 and words[2] != "0x0":
            found.append(words[0])
    return found


def _serial(root: Path) -> Iterable[SerialPort]:
    names: dict[str, dict[str, str]] = {}
    for kind in ("by-id", "by-path"):
        for link in _children(root / "dev/serial" / kind):
            names.setdefault(link.resolve().name, {})[kind] = f"/dev/serial/{kind}/{link.name}"
    for tty in _children(root / "sys/class/tty"):
        if (tty / "device").exists() and not tty.name.startswith("ttyS"):
            known = names.get(tty.name, {})
            by_id, by_path = known.get("by-id", ""), known.get("by-path", "")
            yield SerialPort(device=f"/dev/{tty.name}", by_id=by_id, by_path=by_path)


def _usb(root: Path) -> Iterable[UsbDevice]:
    for folder in _children(root / "sys/bus/usb/devices"):
        is_device = _USB_DEVICE.fullmatch(folder.name)
        if not is_device or _text(folder / "bDeviceClass") == _HUB:
            continue
        ids = f"{_text(folder / 'idVendor')}:{_text(folder / 'idProduct')}"
        words = (_text(folder / "manufacturer"), _text(folder / "product"))
        yield UsbDevice(path=folder.name, ids=ids, name=" ".join(filter(None, words)))


async def _greeting(address: str) -> SshHost | None:
    try:
        async with asyncio.timeout(SSH_S):
            reader, writer = await asyncio.open_connection(address, _SSH_PORT)
            try:
                line = await reader.read(256)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    text = ascii(line.split(b"\n")[0].decode("latin-1").strip())[1:-1]
    return SshHost(address=address, banner=text) if text.startswith("SSH-") else None


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _text(path: Path) -> str:
    """Return a small file as one printable line (a table as it is); empty where there is none."""
    try:
        text = path.read_text("utf-8", "replace")
    except OSError:
        return ""
    if "\n" in text.strip():
        return text
    return "".join(sign for sign in text.strip() if sign.isprintable())[:200]
