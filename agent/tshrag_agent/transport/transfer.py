"""Files to and from a DUT through its shell and its ``tar``: where no SFTP server is.

Paths go over stdin, never through a command line: the login shell may be any.
"""

import asyncio
import contextlib
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath
from typing import IO

from tshrag_agent.transport import tree
from tshrag_agent.transport.base import Stream
from tshrag_agent.transport.launch import Splitter, quote
from tshrag_agent.transport.wrapper import GuardedShell

_UNPACK = 'exec /bin/sh -c \'IFS= read -r d; mkdir -p -- "$d" && cd -- "$d" && exec tar -xf -\''
_PACK = (
    "exec /bin/sh -c 'IFS= read -r d; read -r n; "
    'if [ ! -e "$d" ]; then echo "there is no such file or folder" >&2; exit 1; fi; '
    'if [ -d "$d" ]; then k=dir; cd -- "$d"; f=.; '
    'else k=file; cd -- "$(dirname -- "$d")"; f=./$(basename -- "$d"); fi || exit 1; '
    'printf "\\036%s %s\\n" "$n" $k; exec tar -cf - "$f"\''
)
_CHUNK_BYTES = 256 * 1024
_CHECKED_BYTES = 256 << 20
"""Of larger trees the sums are left out: reading them again would take a small DUT minutes."""


async def upload_packed(shell: GuardedShell, source: Path, target: str, timeout_s: float) -> None:
    """Copy `source` to `target` as one tar stream."""
    place = PurePosixPath(_path(shell, target))
    heard = bytearray()
    try:
        packed = await asyncio.to_thread(tree.pack, source, place.name)
        folder = place if await asyncio.to_thread(source.is_dir) else place.parent
    except (OSError, ValueError) as error:
        raise shell.failed("transfer_failed", f"{source} cannot be packed: {error}") from error

    def hear(_: Stream, data: bytes) -> None:
        heard.extend(data[: 4096 - len(heard)])

    with packed:
        async with shell.channel(_UNPACK, hear, timeout_s) as far:
            await far.write(str(folder).encode("utf-8", "surrogateescape") + b"\n")
            while chunk := await asyncio.to_thread(packed.read, _CHUNK_BYTES):
                await far.write(chunk)
            far.finish()
            await far.closed()
    if far.status != 0:
        what = f"{target!a} was not written: {heard.decode('utf-8', 'replace').strip()[-300:]!a}"
        raise shell.failed(
            "transfer_failed", what, "see space and rights there, and that it has tar"
        )


async def verify(shell: GuardedShell, source: Path, target: str, timeout_s: float) -> None:
    """See that what is at `target` has the sums of `source`, where the DUT can tell."""
    place = PurePosixPath(_path(shell, target))
    if await asyncio.to_thread(tree.size_of, source) > _CHECKED_BYTES:
        return
    sums = await asyncio.to_thread(tree.sums, source, place.name)
    if not sums:
        return
    folder = str(place if await asyncio.to_thread(source.is_dir) else place.parent)
    end = f"END_{secrets.token_hex(8)}".encode()
    script = (
        b"command -v sha256sum >/dev/null || exit 0\ncd -- " + quote(folder) + b" || exit 1\n"
        b"sha256sum -c - 2>/dev/null <<'" + end + b"' | grep -v ': OK$'\n" + sums + end + b"\n"
        b"exit 0\n"
    )
    status, said, _ = await shell.script(script, timeout_s=timeout_s)
    if status != 0 or said:
        bad = said.decode("utf-8", "replace").strip()[:200] or "it is not there"
        raise shell.failed("transfer_failed", f"{target!a} did not arrive whole: {bad!a}")


async def download_packed(
    shell: GuardedShell, source: str, target: Path, most_bytes: int, timeout_s: float
) -> int:
    """Copy a file or a directory of the DUT to `target`; return the bytes."""
    async with _fetched(shell, source, most_bytes, timeout_s) as (packed, kind):
        try:
            return await asyncio.to_thread(_place, packed, kind, target, most_bytes)
        except (OSError, ValueError) as error:
            what = f"{source!a} was not copied: {error}"
            raise shell.failed("transfer_failed", what) from error


class _Coming:
    """A tar on its way: what was heard and is not in the file yet, and what went wrong."""

    def __init__(self, nonce: str, most_bytes: int) -> None:
        self.split = Splitter(nonce)
        self.kind = ""
        self.errors = bytearray()
        self._heard = bytearray()
        self._room_bytes = most_bytes * 2 + (10 << 20)  # headers and padding of many small files

    def hear(self, stream: Stream, data: bytes) -> None:
        if stream == "stderr":
            self.errors.extend(data[: 4096 - len(self.errors)])
            return
        lines = list[str]()
        if not self.split.began:
            data, lines = self.split.feed(data)
        self.kind = "".join([self.kind, *lines])
        self._heard.extend(data[: self._room_bytes])
        self._room_bytes -= min(len(data), self._room_bytes)

    def take(self) -> bytes:
        taken, self._heard = bytes(self._heard), bytearray()
        return taken


@contextlib.asynccontextmanager
async def _fetched(
    shell: GuardedShell, source: str, most_bytes: int, timeout_s: float
) -> AsyncIterator[tuple[IO[bytes], str]]:
    """Fetch a tar of `source` into a temporary file; say whether it is a dir or a file."""
    nonce = secrets.token_hex(8)
    coming = _Coming(nonce, most_bytes)
    path = _path(shell, source).encode("utf-8", "surrogateescape")
    with await asyncio.to_thread(tempfile.TemporaryFile) as packed:
        async with shell.channel(_PACK, coming.hear, timeout_s) as far:
            await far.write(path + f"\n{nonce}\n".encode())
            async with asyncio.TaskGroup() as group:
                end = group.create_task(far.closed(), name="end of a download")
                while not end.done():
                    await asyncio.wait([end], timeout=0.02)
                    await asyncio.to_thread(packed.write, coming.take())
            await asyncio.to_thread(packed.write, coming.take() + coming.split.rest())
        if far.status != 0 or not coming.kind:
            said = coming.errors.decode("utf-8", "replace").strip()[-300:]
            raise shell.failed("transfer_failed", f"{source!a} cannot be read: {said!a}")
        await asyncio.to_thread(packed.seek, 0)
        yield packed, coming.kind


def _place(packed: IO[bytes], kind: str, target: Path, most_bytes: int) -> int:
    """Unpack beside `target`, then put it there: it is whole or it is not there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".download-", dir=target.parent))
    try:
        total = tree.unpack(packed, fresh, most_bytes)
        if kind == "file":
            found = list(fresh.iterdir())
            if not found:
                raise ValueError("it is neither a file nor a folder")
            found[0].replace(target)
        elif target.exists():
            shutil.copytree(fresh, target, dirs_exist_ok=True)
        else:
            fresh.chmod(0o755)
            fresh.replace(target)
        return total
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _path(shell: GuardedShell, path: str) -> str:
    if not path or "\n" in path or "\0" in path:
        raise shell.failed("transfer_failed", f"{path!a} is no path", "no line break, not empty")
    return path
