"""The cold store: segments as objects below a URL, through obstore (extra ``cold``).

``file:///folder``, ``s3://bucket/prefix`` and whatever else obstore opens. Credentials come from
the environment (``AWS_ACCESS_KEY_ID``, ...), never from a settings file.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tshrag_common.errors import Refused, Unavailable, shown
from tshrag_controller.store.parquet import ColdMissing, SegmentDamaged

TIMEOUT_S = 300.0
_SECRETS = ("secret", "token", "password", "access_key", "key_id")


class ColdFault(Unavailable):
    """The cold store refused something, or was not reached."""

    code = "cold_store"


class BadColdUrl(Refused):
    """A URL or an option of the cold store that cannot be used."""

    code = "cold_url"


class ColdStore:
    """Objects by name; every method bounds its time and translates what goes wrong."""

    def __init__(self, url: str, options: Mapping[str, str]) -> None:
        self.url = url
        self._store = _open(url, options)

    async def put(self, name: str, path: Path) -> None:
        """Store a file as an object; the same again replaces it."""
        obstore = _obstore()
        with await asyncio.to_thread(path.open, "rb") as file:
            await self._done(name, obstore.put_async(self._store, name, file))

    async def sha256(self, name: str) -> tuple[int, str]:
        """Read an object back whole; return its size and its sha256."""
        digest, size = hashlib.sha256(), 0
        async for piece in self._pieces(name):
            digest.update(piece)
            size += len(piece)
        return size, digest.hexdigest()

    async def get(self, name: str, path: Path, sha256: str) -> None:
        """Fetch an object into a file, which appears whole or not at all.

        Raises:
            SegmentDamaged: it is not the object that was stored.

        """
        await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
        partial, digest = path.with_name(f".{path.name}"), hashlib.sha256()
        with await asyncio.to_thread(partial.open, "wb") as file:
            async for piece in self._pieces(name):
                digest.update(piece)
                await asyncio.to_thread(file.write, piece)
        if sha256 and digest.hexdigest() != sha256:
            await asyncio.to_thread(partial.unlink)
            raise SegmentDamaged(name, f"the object in {self.url} is not what was stored")
        await asyncio.to_thread(partial.rename, path)

    async def delete(self, name: str) -> None:
        """Remove an object; one that is not there is gone already."""
        obstore = _obstore()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await obstore.delete_async(self._store, name)
        except FileNotFoundError:
            return
        except (obstore.exceptions.BaseError, OSError, TimeoutError) as error:
            raise self._fault(name, error) from None

    async def names(self) -> list[tuple[str, int]]:
        """Return (name, size) of all segments that are there."""
        obstore = _obstore()
        found: list[tuple[str, int]] = []
        try:
            async with asyncio.timeout(TIMEOUT_S):
                async for page in obstore.list(self._store):
                    found += [(str(each["path"]), int(each["size"])) for each in page]
        except (obstore.exceptions.BaseError, OSError, TimeoutError) as error:
            raise self._fault("", error) from None
        return sorted(each for each in found if each[0].endswith(".parquet"))

    async def _pieces(self, name: str) -> Any:
        obstore = _obstore()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await obstore.get_async(self._store, name)
                async for piece in answer.stream(min_chunk_size=1 << 20):
                    yield bytes(piece)
        except (obstore.exceptions.BaseError, OSError, TimeoutError) as error:
            raise self._fault(name, error) from None

    async def _done(self, name: str, doing: Any) -> Any:
        obstore = _obstore()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await doing
        except (obstore.exceptions.BaseError, OSError, TimeoutError) as error:
            raise self._fault(name, error) from None

    def _fault(self, name: str, error: Exception) -> ColdFault:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        return ColdFault(name or self.url, said, f"see that {self.url} is there and may be used")


def _obstore() -> Any:
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        fix = "pip install 'tshrag-controller[cold]'"
        raise ColdMissing("store", f"{error.name} is not installed", fix) from None
    return obstore


def option_fault(options: Mapping[str, str]) -> str:
    """Return what is wrong with options of a settings file; empty: nothing."""
    for name in options:
        if any(word in name.lower() for word in _SECRETS):
            return f"{shown(name)} belongs into the environment of the controller, not into a file"
    return ""


def _open(url: str, options: Mapping[str, str]) -> Any:
    obstore = _obstore()
    wrong = option_fault(options)
    if wrong:
        raise BadColdUrl("store.cold_options", wrong)
    try:
        if url.startswith("file://"):
            folder = url.removeprefix("file://")
            return obstore.store.LocalStore(folder, mkdir=True)
        client = {"timeout": "120s"}
        if options.get("allow_http", "") == "true" or "http://" in options.get("endpoint", ""):
            client["allow_http"] = "true"
        config = {name: value for name, value in options.items() if name != "allow_http"}
        return obstore.store.from_url(url, config=config, client_options=client)
    except (obstore.exceptions.BaseError, OSError, ValueError, TypeError) as error:
        fix = "file:///folder or s3://bucket/prefix; options as obstore names them"
        raise BadColdUrl(url, " ".join(str(error).split())[:300], fix) from None
