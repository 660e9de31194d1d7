"""Looks for the secrets of a lab where they must not stand: what it finds goes into the history.

The seeds and the secret of ``keys.json`` are read from there; each is looked for as it is, in
base64 and in hexadecimal, in the logs, in all that agents and controller have stored, in the
history itself, and in the arguments of every process of this machine.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

from tshrag_common import history

_SECRETS = ("operator", "sys", "ctl", "agents_account", "agent_role", "person_role",
            "controller", "secret")  # fmt: skip
_PIECE_BYTES = 1 << 20


def search(keys: Path, *places: Path) -> int:
    """Note every secret that stands in `places` or in a command line; return the bytes read."""
    forms = dict(_forms(keys))
    longest = max(map(len, forms))
    read = 0
    for path in (each for place in places for each in sorted(place.rglob("*"))):
        if path.is_file() and not path.is_symlink() and path.name != keys.name:
            read += _look_into(path, forms, longest)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        read += _look_into(path, forms, longest)
    history.note("secrets_searched", count=len(forms), bytes=read)
    return read


def _forms(keys: Path) -> Iterator[tuple[bytes, tuple[str, str]]]:
    known = json.loads(keys.read_text())
    for name in _SECRETS:
        plain = str(known[name]).encode()
        yield plain, (name, "plain")
        yield base64.b64encode(plain).rstrip(b"=")[:-1], (name, "base64")
        yield plain.hex().encode(), (name, "hex")


def _look_into(path: Path, forms: dict[bytes, tuple[str, str]], longest: int) -> int:
    read, tail = 0, b""
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                read += len(piece)
                data = tail + piece
                for form, (what, how) in forms.items():
                    if form in data:
                        history.note("secret_seen", what=what, where=str(path), form=how)
                tail = data[-longest:]
    except OSError:  # it has ended, or was taken away
        return read
    return read
