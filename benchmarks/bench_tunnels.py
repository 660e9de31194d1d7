"""Tunnels: how fast bytes go through `tshrag forward`, and how long a connection takes to open.

All of it is real: controller, agent, broker, the command line that listens, a TCP server and an
sshd at the far end, each a process. The limits in the same minute: the same server without a
tunnel, nats-py alone, OpenSSH without a tunnel.
"""

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks import limits
from benchmarks.harness import ROOT, Figure, RunningLab, Scale, a_lab, figure, run_async
from benchmarks.tunnel_peer import PIECE_BYTES
from tests.support.command_line import TSHRAG, environment_of
from tests.support.ssh_server import SshServer
from tshrag_common.errors import Unavailable

_WAIT_S = 60.0


def measure(scale: Scale) -> list[Figure]:
    folder = Path(tempfile.mkdtemp(prefix="tshrag-bench-ssh-"))
    server = SshServer("openssh", folder)
    try:
        server.start()
        return run_async(_measure(scale, server))
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def _measure(scale: Scale, server: SshServer) -> list[Figure]:
    rounds = scale.of(5, 1)
    async with _peer() as far, a_lab(slots=1, duts=_dut(server)) as lab:
        environment = environment_of(lab.folder)
        await _done("lease", "board", "--for", "1h", environment=environment)
        async with _forwarded(far, environment) as near:
            found = [
                await _throughput(lab, near, far, count, rounds, scale.of(200, 4) << 20)
                for count in (1, 20)
            ]
            found += await _opens(near, far, scale.of(100, 5))
        found.append(await _ssh(server, environment, rounds, scale.of(100, 4) << 20))
    return found


def _dut(server: SshServer) -> str:
    return (
        '[[dut]]\nid = "board"\nkind = "bench"\n\n[dut.ssh]\nhost = "127.0.0.1"\n'
        f'port = {server.port}\nhost_key = "{server.host_key.strip()}"\n'
        f'key_file = "{server.folder}/client_key"\n'
    )


@asynccontextmanager
async def _peer() -> AsyncIterator[int]:
    """Run the far end; yield its port."""
    words = (sys.executable, "-m", "benchmarks.tunnel_peer")
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    try:
        yield int(await _line(process.stdout))
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def _forwarded(port: int, environment: Mapping[str, str]) -> AsyncIterator[int]:
    """Run `tshrag forward`; yield the port that it listens on."""
    process = await asyncio.create_subprocess_exec(
        *TSHRAG, "forward", "board", str(port), stderr=asyncio.subprocess.PIPE, env=environment
    )
    try:
        said = await _line(process.stderr)
        yield int(said.partition(" ")[0].rpartition(":")[2])
    finally:
        process.terminate()
        await process.communicate()


async def _line(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    async with asyncio.timeout(_WAIT_S):
        return (await stream.readline()).decode()


async def _done(*words: str, environment: Mapping[str, str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *TSHRAG, *words, env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    if await process.wait():
        raise Unavailable("bench", f"tshrag {' '.join(words)} ended with {process.returncode}")


async def _throughput(
    lab: RunningLab, near: int, far: int, count: int, rounds: int, size: int
) -> Figure:
    ours: list[float] = []
    direct: list[float] = []
    bare: list[float] = []
    for _ in range(rounds):
        direct.append(await _carried(far, count, size))
        wire = await limits.Wire.open(lab.processes)
        bare.append(await wire.bytes_per_s(size) / 1e6)
        await wire.close()
        ours.append(await _carried(near, count, size))
    return figure(
        f"tunnel_{count}",
        f"bytes to a TCP server through {count} tunnels of 'tshrag forward' at once, all counted",
        "MB/s",
        ours=ours,
        limits=direct,
        limit_is=f"the same server over loopback, {count} connections at once",
        aim=50.0,
        facts={"nats_py_mb_per_s": round(limits.median(bare), 1)},
    )


async def _carried(port: int, count: int, size: int) -> float:
    """Send `size` bytes over `count` connections at once; return MB/s until all are counted."""
    began = time.perf_counter()
    async with asyncio.timeout(_WAIT_S * 4), asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(_send(port, size // count))
    return size / (time.perf_counter() - began) / 1e6


async def _send(port: int, size: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"c")
    data = os.urandom(PIECE_BYTES)
    for start in range(0, size, len(data)):
        writer.write(data[: min(len(data), size - start)])
        await writer.drain()
    writer.write_eof()
    counted = await reader.read()
    writer.close()
    if int(counted or b"0") != size:
        raise Unavailable("bench", f"{counted!r} of {size} bytes came through a tunnel")


async def _opens(near: int, far: int, count: int) -> list[Figure]:
    ours: list[float] = []
    direct: list[float] = []
    for number in range(count + 2):
        took, bare = await _opened_ms(near), await _opened_ms(far)
        if number >= 2:
            ours.append(took)
            direct.append(bare)
    return [
        figure(
            f"tunnel_open_p{level}",
            "a connection through 'tshrag forward' until the first byte is back",
            "ms",
            ours=[limits.percentile(ours, level)],
            limits=[limits.percentile(direct, level)],
            limit_is="the same over loopback",
            better="lower",
        )
        for level in (50, 99)
    ]


async def _opened_ms(port: int) -> float:
    began = time.perf_counter()
    async with asyncio.timeout(_WAIT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"ek")
        await reader.readexactly(1)
    took = time.perf_counter() - began
    writer.close()
    return took * 1e3


async def _ssh(server: SshServer, environment: Mapping[str, str], rounds: int, size: int) -> Figure:
    """Send bytes to `cat` on the board with OpenSSH, and the same without a tunnel."""
    proxy = " ".join(("tshrag", "forward", "board", "22", "--stdio"))
    words = f"{sys.executable} -m tshrag_controller.cli.app forward board 22 --stdio"
    ours: list[float] = []
    direct: list[float] = []
    for _ in range(rounds):
        direct.append(await _ssh_mb_per_s(server, (), environment, size))
        option = ("-o", f"ProxyCommand={words}")
        ours.append(await _ssh_mb_per_s(server, option, environment, size))
    return figure(
        "tunnel_ssh",
        f"bytes to 'cat' on a board with OpenSSH by ProxyCommand '{proxy}', start included",
        "MB/s",
        ours=ours,
        limits=direct,
        limit_is="OpenSSH to the same sshd without a tunnel",
    )


async def _ssh_mb_per_s(
    server: SshServer, options: tuple[str, ...], environment: Mapping[str, str], size: int
) -> float:
    common = ("-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
    way = ("-q", "-p", str(server.port), "-i", f"{server.folder}/client_key", "root@127.0.0.1")
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        "ssh", *common, *options, *way, "wc -c",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment,
    )  # fmt: skip
    async with asyncio.timeout(_WAIT_S * 2):
        counted, _ = await process.communicate(bytes(size))
    if process.returncode or int(counted) != size:
        raise Unavailable("bench", f"ssh ended with {process.returncode}: {counted[-80:]!r}")
    return size / (time.perf_counter() - began) / 1e6
