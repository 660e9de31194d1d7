import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.debian import need_program
from tests.support.serial_pty import board, running
from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.console import SerialConsole
from tshrag_agent.transport.login import Login
from tshrag_agent.transport.serial_shell import SerialTransport
from tshrag_agent.transport.serial_way import SerialWay
from tshrag_common.actions import SerialVia
from tshrag_common.ids import DutId


def bare_tools(folder: Path) -> Path:
    """Make a folder of programs like that of a tiny board: no base64, tar, gzip, sums."""
    busybox = Path(need_program("busybox", package="busybox"))
    folder.mkdir()
    for name in ("sh", "cat", "chmod", "cksum", "env", "grep", "id", "mkdir", "mv", "od", "rm"):
        (folder / name).symlink_to(busybox)
    for name in ("sleep", "stty", "tr", "uname", "wc"):
        (folder / name).symlink_to(busybox)
    return folder


@pytest.fixture(params=["full", "bare"])
async def dut(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SerialTransport]:
    tools = [] if request.param == "full" else ["--path", str(bare_tools(tmp_path / "tools"))]
    async with dut_on(tmp_path / "board", *tools) as made:
        yield made


@asynccontextmanager
async def dut_on(folder: Path, *arguments: str) -> AsyncIterator[SerialTransport]:
    with board(folder, *arguments) as path:
        way = SerialWay(url=path, login=Login(silence_s=0.5), grace_s=1.0)
        async with running(SerialConsole("b1", way.line)) as console:
            yield SerialTransport(DutId("b1"), console, way)


async def test_a_file_arrives_whole_with_its_mode(dut: SerialTransport, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "a b's"
    source.write_bytes(bytes(range(256)) * 20)
    source.chmod(0o750)
    await dut.upload(source, str(target), timeout_s=55)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o750


async def test_an_empty_file_arrives_too(dut: SerialTransport, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    await dut.upload(tmp_path / "empty", str(tmp_path / "there"), timeout_s=55)
    assert (tmp_path / "there").read_bytes() == b""


async def test_a_tree_arrives_with_its_folders_and_modes(
    dut: SerialTransport, tmp_path: Path
) -> None:
    tree = tmp_path / "load"
    (tree / "lib" / "deep").mkdir(parents=True)
    (tree / "run").write_text("#!/bin/sh\necho hi\n")
    (tree / "run").chmod(0o755)
    (tree / "lib" / "deep" / "data").write_bytes(os.urandom(2000))
    await dut.upload(tree, str(tmp_path / "there"), timeout_s=55)
    assert os.access(tmp_path / "there" / "run", os.X_OK)
    there = tmp_path / "there" / "lib" / "deep" / "data"
    assert there.read_bytes() == (tree / "lib" / "deep" / "data").read_bytes()


async def test_a_file_comes_back_whole(dut: SerialTransport, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(bytes(range(256)) * 20)
    size = await dut.download(
        str(tmp_path / "log"), tmp_path / "got", most_bytes=10_000, timeout_s=55
    )
    assert size == 5120
    assert (tmp_path / "got").read_bytes() == (tmp_path / "log").read_bytes()


async def test_what_is_not_there_or_too_large_is_refused(
    dut: SerialTransport, tmp_path: Path
) -> None:
    with pytest.raises(TransportFailed, match="there is no '/no/such'"):
        await dut.download("/no/such", tmp_path / "got", most_bytes=10, timeout_s=55)
    (tmp_path / "log").write_bytes(b"x" * 11)
    with pytest.raises(TransportFailed, match="it has 11 bytes, longer than 10 bytes"):
        await dut.download(str(tmp_path / "log"), tmp_path / "got", most_bytes=10, timeout_s=55)


async def test_a_place_that_cannot_be_written_is_said(dut: SerialTransport, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x")
    with pytest.raises(TransportFailed) as caught:
        await dut.upload(tmp_path / "source", "/no/such/place", timeout_s=55)
    assert caught.value.code == "transfer_failed"
    assert "/no/such/place" in str(caught.value)


async def test_a_folder_comes_back_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "logs" / "a").mkdir(parents=True)
    (tmp_path / "logs" / "a" / "log").write_bytes(b"12345")
    async with dut_on(tmp_path / "board") as dut:
        got = await dut.download(
            str(tmp_path / "logs"), tmp_path / "got", most_bytes=100_000, timeout_s=55
        )
    assert got == 5
    assert (tmp_path / "got" / "a" / "log").read_bytes() == b"12345"


async def test_a_line_that_loses_bytes_is_tried_again_more_slowly(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(range(256)) * 8)
    async with dut_on(tmp_path / "board", "--lossy") as dut:
        await dut.upload(tmp_path / "source", str(tmp_path / "there"), timeout_s=55)
    assert (tmp_path / "there").read_bytes() == bytes(range(256)) * 8


async def test_an_upload_that_takes_too_long_leaves_a_shell_behind(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(os.urandom(3_000_000))
    async with dut_on(tmp_path / "board") as dut:
        with pytest.raises(TransportFailed, match=r"the upload took longer than 0\.5 s"):
            await dut.upload(tmp_path / "source", str(tmp_path / "there"), timeout_s=0.5)
        assert (await dut.probe(timeout_s=20)).os == "linux"


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("via", "size"), [("xmodem", 1500), ("ymodem", 0), ("ymodem", 40_000)])
async def test_lrzsz_takes_and_gives_a_file(tmp_path: Path, via: SerialVia, size: int) -> None:
    need_program("rb", package="lrzsz")
    data = os.urandom(size)
    source, there = tmp_path / "source", tmp_path / "the re's"
    source.write_bytes(data)
    source.chmod(0o750)
    async with dut_on(tmp_path / "board") as dut:
        await dut.upload(source, str(there), timeout_s=120, via=via)
        assert there.read_bytes() == data
        assert there.stat().st_mode & 0o777 == 0o750
        got = await dut.download(
            str(there), tmp_path / "got", most_bytes=100_000, timeout_s=120, via=via
        )
    assert got == size and (tmp_path / "got").read_bytes() == data
    left = await asyncio.to_thread(os.listdir, tmp_path)
    assert not [each for each in left if each.startswith("tshrag-")]


async def test_a_dut_without_lrzsz_says_so(tmp_path: Path) -> None:
    (tmp_path / "source").touch()
    async with dut_on(tmp_path / "board", "--path", str(bare_tools(tmp_path / "tools"))) as dut:
        with pytest.raises(TransportFailed, match="the DUT has no rb"):
            await dut.upload(tmp_path / "source", str(tmp_path / "x"), timeout_s=55, via="ymodem")
