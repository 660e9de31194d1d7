"""Small files over a console: lines of base64, or of octal digits where a DUT has no base64.

Each line is answered before the next but one is typed, so that no buffer of a slow board runs
over; what has arrived is checked by a digest, and sent again more slowly when it differs. Where a
step says so they go by XMODEM or YMODEM instead, with the programs of lrzsz.
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
from tshrag_agent.transport.exchange import exchange
from tshrag_agent.transport.expect import Literal, Matcher
from tshrag_agent.transport.launch import quote
from tshrag_agent.transport.marks import RECORD, Cut, question
from tshrag_agent.transport.remote_shell import RemoteShell
from tshrag_common.actions import SerialVia
from tshrag_common.cksum import cksum
from tshrag_common.xymodem import Receiver, Sender

MOST_BYTES = 16 << 20
"""Of an upload: more of it takes hours at 115200 baud."""

_BASE64_BYTES = 720  # of a line, 960 when encoded
_OCTAL_BYTES = 240
_WINDOW = 2  # lines on their way: together well below the 4095 bytes of a tty in line mode
_LINE_S = 10.0
_DECODE_S = 60.0
_GETS = 3  # tries
_GET_S = 24 * 3600.0  # the deadline is the caller's


class SerialFiles:
    """Uploads and downloads of a DUT that has `tools`."""

    def __init__(
        self, shell: RemoteShell, tools: Mapping[str, str], via: SerialVia = "base64"
    ) -> None:
        self._shell, self._tools, self._via = shell, tools, via

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
        packed = _packed_name()
        zipped = "gzip" in self._tools
        await self._put(await asyncio.to_thread(_pack, source, zipped), packed)
        unpack = f"gzip -dc {packed}|tar -xf -" if zipped else f"tar -xf {packed}"
        place = f"mkdir -p {_word(target)}&&(cd {_word(target)}&&{unpack})"
        await self._do(f"{place};_ts_r=$?;rm -f {packed};(exit $_ts_r)")

    async def download(self, source: str, target: Path, most_bytes: int) -> int:
        """Copy a file or a directory of the DUT; return the bytes of what arrived."""
        word = _word(source)
        kind = f"_ts_f={word};if [ -d {word} ];then echo d;elif [ -r {word} ];then echo f;fi"
        _, said = await self._shell.perform(kind.encode("utf-8", "surrogateescape"))
        if said.strip() == b"f":
            data = await self._get(most_bytes)
            await asyncio.to_thread(_write, target, data)
            return len(data)
        if said.strip() != b"d":
            raise self._failed(f"there is no {word} on the DUT")
        if "tar" not in self._tools:
            raise self._failed("the DUT has no tar", "ask for single files")
        packed = _packed_name()
        await self._do(f"(cd {word}&&tar -cf {packed} .);_ts_r=$?;_ts_f={packed};(exit $_ts_r)")
        try:
            data = await self._get(most_bytes)
        finally:
            await self._shell.ask(f"rm -f {packed}")
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
        await self._do(f'_ts_f={_word(target)};(:>"$_ts_f")')
        while True:
            try:
                if self._via == "base64":
                    await self._send(data)
                else:
                    await self._send_by_modem(data)
                if await self._arrived(data):
                    return
            except TimeoutError:
                pass  # a line was lost; more slowly then
            self._shell.slow_down("a file does not arrive whole")
            if not await self._shell.regain():
                raise self._failed("the shell has not come back after a lost line")

    async def _send(self, data: bytes) -> None:
        nonce = secrets.token_hex(8)
        kind, size = ("b", _BASE64_BYTES) if "base64" in self._tools else ("o", _OCTAL_BYTES)
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

    async def _send_by_modem(self, data: bytes) -> None:
        """Let ``rb`` or ``rx`` write a file beside the target, then give it its name."""
        program = await self._program("rb" if self._via == "ymodem" else "rx")
        name = f"tshrag-{secrets.token_hex(8)}"
        named = self._via == "ymodem"
        take = f'cd "$(dirname "$_ts_f")"&&{program}' + ("" if named else f" {name}")
        await self._exchanged(f"({take})", Sender(data, name if named else ""))
        cut = f"head -c {len(data)} <{name} >{name}.cut&&mv {name}.cut {name}"
        keep = f'cat {name} >"$_ts_f"&&rm -f {name}'
        await self._do(f'cd "$(dirname "$_ts_f")"&&{keep if named else cut + "&&" + keep}')

    async def _exchanged(self, command: str, machine: Sender | Receiver) -> None:
        """Start `command` on the DUT, and let `machine` talk to it until both are over."""
        nonce = secrets.token_hex(8)
        cut = Cut(nonce)

        def through(data: bytes) -> bytes:
            had_begun = cut.began
            heard = cut.feed(data)
            return data if had_begun else heard + cut.held  # nothing may wait here: it is binary

        with self._shell.talk() as talk:
            await self._shell.type_line(talk, question(nonce, f"{command} 2>/dev/null"))
            await exchange(talk, machine, through, lambda: cut.end is not None)
            async with asyncio.timeout(_DECODE_S):
                while cut.end is None:
                    cut.feed(await talk.hear(_DECODE_S) or b"")

    async def _program(self, name: str) -> str:
        """Return how `name` of lrzsz is called on the DUT."""
        if name == "rx":  # that of lrzsz begins without CRC, and has to be told
            status, _ = await self._shell.ask("rx --help 2>&1|grep -q -e --with-crc")
            if status == 0:
                return "rx -c"
        status, _ = await self._shell.ask(f"command -v {name} >/dev/null 2>&1")
        if status:
            raise self._failed(f"the DUT has no {name}", "install lrzsz there, or leave out via")
        return name

    async def _await(self, talk: Dialogue, matcher: Matcher, within_s: float) -> None:
        if await talk.expect(matcher, within_s) is None:
            raise TimeoutError

    async def _arrived(self, data: bytes) -> bool:
        for tool, expected in _digests(data):
            status, said = await self._shell.ask(f'{tool} <"$_ts_f"', timeout_s=_DECODE_S)
            if status == 0:
                return said.split()[: len(expected)] == expected
        raise self._failed("the DUT has nothing that could check a file")

    async def _get(self, most_bytes: int) -> bytes:
        """Return what is in the file that ``_ts_f`` names; the kernel may talk into it: checked."""
        _, said = await self._shell.ask('wc -c <"$_ts_f"')
        if not said.strip().isdigit() or int(said) > most_bytes:
            what = f"it has {said.strip().decode('ascii', 'replace')} bytes, longer than"
            raise self._failed(f"{what} {most_bytes} bytes")
        if self._via != "base64":
            return await self._get_by_modem(int(said))
        octal = "base64" not in self._tools
        encode = 'od -An -v -to1 <"$_ts_f"' if octal else 'base64 <"$_ts_f"'
        most = int(said) * 6 + 4096
        for _ in range(_GETS):
            _, coded = await self._shell.ask(encode, timeout_s=_GET_S, most_bytes=most)
            data = _decode(coded, octal=octal)
            if data is not None and await self._arrived(data):
                return data
        raise self._failed("a file does not come back whole", "see what else uses the console")

    async def _get_by_modem(self, size: int) -> bytes:
        named = self._via == "ymodem"
        program = await self._program("sb" if named else "sx")
        for _ in range(_GETS):
            machine = Receiver(named=named, most_bytes=size + 1024)
            await self._exchanged(f'{program} "$_ts_f"', machine)
            data = bytes(machine.data[:size])
            if await self._arrived(data):
                return data
        raise self._failed("a file does not come back whole", "see what else uses the console")

    async def _do(self, script: str) -> None:
        text = f"{{ {script};}} 2>&1".encode("utf-8", "surrogateescape")
        status, said = await self._shell.perform(text, timeout_s=_DECODE_S)
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


def _digests(data: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Name programs, best first, with what they say first of `data`; a tiny DUT lacks some."""
    yield "sha256sum", [hashlib.sha256(data).hexdigest().encode()]
    yield "md5sum", [hashlib.md5(data, usedforsecurity=False).hexdigest().encode()]
    yield "cksum", [b"%d" % cksum(data), b"%d" % len(data)]
    yield "wc -c", [b"%d" % len(data)]


def _decode(said: bytes, *, octal: bool) -> bytes | None:
    """Return the bytes; None where it is no encoding: a console has talked into it."""
    try:
        return bytes(int(word, 8) for word in said.split()) if octal else base64.b64decode(said)
    except ValueError:
        return None


def _packed_name() -> str:
    return f"/tmp/tshrag-{secrets.token_hex(8)}.tar"


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
