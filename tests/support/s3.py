"""S3 for tests: moto (its semantics) and rclone (signatures checked) as servers of their own."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import wait_for

KEY, SECRET = "tshragtest", "tshragsecret"


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def moto(folder: Path) -> Iterator[Mapping[str, str]]:
    """Run moto; yield the options of its store."""
    port = a_free_port()
    argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _served(argv, port, folder):
        yield {"endpoint": f"http://127.0.0.1:{port}", "region": "us-east-1"}


@contextmanager
def rclone(folder: Path) -> Iterator[Mapping[str, str]]:
    """Run ``rclone serve s3`` over a folder with a bucket ``lab``."""
    port, served = a_free_port(), folder / "served"
    (served / "lab").mkdir(parents=True)
    program = shutil.which("rclone") or str(Path(sys.executable).parent / "rclone")
    argv = [
        program, "serve", "s3", str(served), "--addr", f"127.0.0.1:{port}",
        "--auth-key", f"{KEY},{SECRET}", "--config", str(folder / "none"),
    ]  # fmt: skip
    with _served(argv, port, folder):
        yield {"endpoint": f"http://127.0.0.1:{port}", "region": "us-east-1"}


@contextmanager
def _served(argv: list[str], port: int, folder: Path) -> Iterator[None]:
    log = (folder / "s3.log").open("wb")
    process = subprocess.Popen(
        argv, stdout=log, stderr=log, env={**os.environ, "HOME": str(folder)}
    )
    try:
        wait_for(lambda: process.poll() is not None or _answers(port), within_s=50)
        assert process.poll() is None, f"{argv[:4]} has ended"
        yield
    finally:
        process.kill()
        process.wait()
        log.close()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
