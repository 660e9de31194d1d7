"""Small files over a console: lines of base64, or of octal digits where a DUT has no base64.

Each line is answered before the next but one is typed, so that no buffer of a slow board runs
over; what has arrived is checked by a digest, and sent again more slowly when it differs.
"""

import asyncio
import base64
import hashlib
import io
import secrets
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.dialogue import Dialogue
from tshrag_agent.transport.expect import Literal, Matcher
from tshrag_agent.transport.launch import quote
from tshrag_agent.transport.marks import RECORD, cksum
from tshrag_agent.transport.remote_shell import RemoteShell

MOST_BYTES = 16 << 20
"""Of an upload: more of it takes hours at 115200 baud."""

_BASE64_BYTES = 720  # of a line, 960 when encoded
_OCTAL_BYTES = 240
_WINDOW = 2  # lines on their way: together well below the 4095 bytes of a tty in line mode
_LINE_S = 10.0
_DECODE_S = 60.0
_GET_S = 24 * 3600.0  # the deadline is the caller's


class SerialFiles:
    """Uploads and downloads of a DUT that has `tools`."""

    def __init__(self, shell: RemoteShell, tools: Mapping[str, str]) -> None:
        self._shell, self._tools = shell, tools

    async def upload(self, source: Path, target: str) -> None:
        """Copy a file or a directory with its modes."""
        if not await asyncio.to_thread(source.is_dir):
            mode = (await asyncio.to_thread(source.stat)).st_mode & 0o7777
            await self._put(await asyncio.to_thread(_read, source), target)
            await self._do(f"chmod {mode:o} {_word(target)}")
            return
        if "tar" not in self._tools:
            await self._upload_one_by_one(source, target)
            return
        packed = f"/tmp/tshrag-{secrets.token_hex(8)}.tar"
        zipped = "gzip" in self._tools
        await self._put(await asyncio.to_thread(_pack, source, zipped), packed)
        unpack = f"gzip -dc {packed}|tar -xf -" if zipped else f"tar -xf {packed}"
        place = f"mkdir -p {_word(target)}&&(cd {_word(target)}&&{unpack})"
        await self._do(f"{place};_ts_r=$?;rm -f {packed};(exit $_ts_r)")

    async def download(self, source: str, target: Path, most_bytes: int) -> int:
        """Copy a file or a directory of the DUT; return the bytes of what arrived."""
        script = f"if [ -d {_word(source)} ];then echo d;elif [ -r {_word(source)} ];then echo f;fi"
        _, kind = await self._shell.perform(script.encode())
        if kind.strip() == b"f":
            data = await self._get(f"cat {_word(source)}", most_bytes)
            await asyncio.to_thread(_write, target, data)
            return len(data)
        if kind.strip() != b"d":
            raise self._failed(f"there is no {_word(source)} on the DUT")
        if "tar" not in self._tools:
            raise self._failed("the DUT has no tar", "ask for single files")
        data = await self._get(f"(cd {_word(source)}&&tar -cf - .)", most_bytes)
        return await asyncio.to_thread(_unpack, data, target)

    async def _upload_one_by_one(self, source: Path, target: str) -> None:
        for path in await asyncio.to_thread(_walk, source):
            place = str(PurePosixPath(target, path.relative_to(source).as_posix()))
            if path.is_dir():
                await self._do(f"mkdir -p {_word(place)}")
            else:
                await self.upload(path, place)

    async def _put(self, data: bytes, target: str) -> None:
        if len(data) > MOST_BYTES:
            what = f"{len(data)} bytes are too many for a console"
            raise self._failed(what, "reach the DUT by SSH, or let it fetch the load")
        while True:
            try:
                await self._send(data, target)
                if await self._arrived(data, target):
                    return
            except TimeoutError:
                pass  # a line was lost; more slowly then
            self._shell.slow_down("a file does not arrive whole")
            if not await self._shell.regain():
                raise self._failed("the shell has not come back after a lost line")

    async def _send(self, data: bytes, target: str) -> None:
        nonce = secrets.token_hex(8)
        kind, size = ("b", _BASE64_BYTES) if "base64" in self._tools else ("o", _OCTAL_BYTES)
        await self._shell.keep(b"_ts_f=" + quote(target))
        await self._shell.ask('eval "$_ts_t"')
        mark = RECORD + nonce.encode()
        answer = Matcher([Literal(name="line", text=mark + b"." + RECORD)])
        begin = Matcher([Literal(name="begin", text=mark + b"B" + RECORD)])
        end = Matcher([Literal(name="end", text=mark + b"E")])
        with self._shell.talk() as talk:
            await self._shell.type_line(talk, f'_ts_get {nonce} {kind} "$_ts_f"'.encode())
            await self._await(talk, begin, _LINE_S)
            lines = list(_lines(data, kind, size))
            for number, line in enumerate(lines):
                if number >= _WINDOW:
                    await self._await(talk, answer, _LINE_S)
                await self._shell.type_line(talk, line)
            for _ in lines[-_WINDOW:]:
                await self._await(talk, answer, _LINE_S)
            await self._shell.type_line(talk, b".")
            end.add(answer.unread)
            await self._await(talk, end, _DECODE_S)

    async def _await(self, talk: Dialogue, matcher: Matcher, within_s: float) -> None:
        if await talk.expect(matcher, within_s) is None:
            raise TimeoutError

    async def _arrived(self, data: bytes, target: str) -> bool:
        ask, expected = self._digest(data)
        _, said = await self._shell.ask(f'{ask} <"$_ts_f"', timeout_s=_DECODE_S)
        return said.split()[: len(expected)] == expected

    def _digest(self, data: bytes) -> tuple[str, list[bytes]]:
        """Return a command of the DUT and what it says first of `data`."""
        if "sha256sum" in self._tools:
            return "sha256sum", [hashlib.sha256(data).hexdigest().encode()]
        if "md5sum" in self._tools:
            digest = hashlib.md5(data, usedforsecurity=False)
            return "md5sum", [digest.hexdigest().encode()]
        if "cksum" in self._tools:
            return "cksum", [b"%d" % cksum(data), b"%d" % len(data)]
        return "wc -c", [b"%d" % len(data)]

    async def _get(self, command: str, most_bytes: int) -> bytes:
        encode = "base64" if "base64" in self._tools else "od -An -v -to1"
        script = f"{command}|{encode}".encode()
        most = most_bytes * 6 + 4096
        _, said = await self._shell.perform(script, timeout_s=_GET_S, most_bytes=most)
        data = _decode(said, octal="base64" not in self._tools)
        if len(data) > most_bytes:
            raise self._failed(f"it is longer than {most_bytes} bytes")
        return data

    async def _do(self, script: str) -> None:
        status, said = await self._shell.perform(f"{{ {script};}} 2>&1".encode(), timeout_s=60.0)
        if status:
            raise self._failed(said[-200:].decode("utf-8", "replace").strip() or f"status {status}")

    def _failed(self, what: str, fix: str = "") -> TransportFailed:
        return TransportFailed("transfer_failed", self._shell.where, what, fix)


def _word(text: str) -> str:
    return quote(text).decode("utf-8", "surrogateescape")


def _lines(data: bytes, kind: str, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        part = data[start : start + size]
        yield base64.b64encode(part) if kind == "b" else b"".join(b"\\%03o" % b for b in part)


def _decode(said: bytes, *, octal: bool) -> bytes:
    try:
        return bytes(int(word, 8) for word in said.split()) if octal else base64.b64decode(said)
    except ValueError:
        return b""  # the digest of nothing will not do either; a console has talked into it


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MOST_BYTES + 1)


def _walk(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_dir() or path.is_file())


def _pack(folder: Path, zipped: bool) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz" if zipped else "w") as archive:
        archive.add(folder, arcname=".")
    return packed.getvalue()


def _write(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)


def _unpack(data: bytes, target: Path) -> int:
    """Unpack what a DUT, which is not trusted, has packed; return the bytes of its files."""
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(target, filter="data")
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
