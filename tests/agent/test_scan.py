import asyncio
from pathlib import Path

import pytest

from tshrag_agent.scan import Scan, SerialPort, UsbDevice, attached, learn, neighbours, proposal
from tshrag_agent.settings import read_settings
from tshrag_common.errors import DeadlineExceeded


def plug(root: Path, tty: str, adapter: str, port: str) -> None:
    """Let a USB serial adapter come, as udev and the kernel show one."""
    (root / "dev").mkdir(exist_ok=True)
    (root / "dev" / tty).touch()
    for kind, name in (("by-id", adapter), ("by-path", f"pci-usb-{port}")):
        folder = root / "dev/serial" / kind
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(root / "dev" / tty)
    (root / "sys/class/tty" / tty / "device").mkdir(parents=True)
    device = root / "sys/bus/usb/devices" / port
    device.mkdir(parents=True)
    for name, text in (
        ("bDeviceClass", "00"),
        ("idVendor", "0403"),
        ("idProduct", "6001"),
        ("manufacturer", "FTDI\x1b[2J"),
        ("product", "TTL232R"),
    ):
        (device / name).write_text(text + "\n")


def test_adapters_are_named_by_what_stays_the_same(tmp_path: Path) -> None:
    plug(tmp_path, "ttyUSB0", "usb-FTDI_FT1-if00-port0", "1-1.3")
    (tmp_path / "sys/class/tty/ttyS0/device").mkdir(parents=True)
    found = attached(tmp_path)
    by_id = "/dev/serial/by-id/usb-FTDI_FT1-if00-port0"
    assert found.serial == (
        SerialPort(device="/dev/ttyUSB0", by_id=by_id, by_path="/dev/serial/by-path/pci-usb-1-1.3"),
    )
    assert found.usb == (UsbDevice(path="1-1.3", ids="0403:6001", name="FTDI[2J TTL232R"),)
    assert found.lines[0].split() == ["serial", "/dev/ttyUSB0", by_id]


async def test_what_comes_is_proposed_as_a_board_that_the_agent_can_read(tmp_path: Path) -> None:
    plug(tmp_path, "ttyUSB0", "usb-old", "1-1.1")
    before = attached(tmp_path)
    coming = asyncio.create_task(learn(before, 30.0, tmp_path))
    await asyncio.to_thread(plug, tmp_path, "ttyUSB1", "usb-new", "1-1.2")
    found = await coming
    assert [each.by_id for each in found.serial] == ["/dev/serial/by-id/usb-new"]
    config = tmp_path / "agent.toml"
    config.write_text(proposal("pi-9", found))
    (dut,) = read_settings(config, {}).dut
    assert dut.serial is not None
    assert (dut.id, dut.serial.url) == ("pi-9", "/dev/serial/by-id/usb-new")


async def test_nothing_that_comes_is_said(tmp_path: Path) -> None:
    with pytest.raises(DeadlineExceeded, match="nothing new within"):
        await learn(Scan(), 0.1, tmp_path)


def test_neighbours_are_those_that_answered(tmp_path: Path) -> None:
    arp = tmp_path / "proc/net/arp"
    arp.parent.mkdir(parents=True)
    head = "IP address       HW type     Flags       HW address            Mask     Device\n"
    row = "{}         0x1         {}         aa:bb:cc:dd:ee:ff     *        eth0\n"
    arp.write_text(head + row.format("10.0.0.7", "0x2") + row.format("10.0.0.8", "0x0"))
    assert neighbours(tmp_path) == ["10.0.0.7"]
