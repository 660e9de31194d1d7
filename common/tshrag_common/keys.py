"""Keys, JWTs and credentials of a lab, in pure Python: issue, read, revoke.

An nkey is an Ed25519 key in base32 whose first letter says whose it is (O operator, A account,
U user; S before a secret seed). A JWT here is ``b64url(header).b64url(claims).b64url(ed25519)``,
version 2 of the NATS claims. Issuing one takes well under a millisecond.
"""

import base64
import hashlib
import json
import os
import re
import time
from binascii import crc_hqx
from pathlib import Path
from typing import Literal

import msgspec
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from tshrag_common.errors import NotFound, Refused, shown

KeyKind = Literal["operator", "account", "user"]
_PREFIX: dict[KeyKind, int] = {"operator": 14 << 3, "account": 0, "user": 20 << 3}
_SEED_PREFIX = 18 << 3
_CREDS = re.compile(
    r"-----BEGIN NATS USER JWT-----\s+(?P<jwt>[\w.-]+)\s+------END NATS USER JWT------"
    r".*?-----BEGIN USER NKEY SEED-----\s+(?P<seed>[A-Z2-7]+)\s+------END USER NKEY SEED------",
    re.DOTALL,
)
_MAX_FILE_BYTES = 1 << 20


class Key:
    """An nkey with its secret half."""

    def __init__(self, seed: str) -> None:
        """Read a seed.

        Raises:
            Refused: it is none, or it was cut or mistyped (``nkey``).

        """
        raw = _base32(seed)
        if len(raw) != 36 or raw[0] & 0xF8 != _SEED_PREFIX:
            raise Refused("", "this is no nkey seed", code="nkey")
        prefix = (raw[0] & 7) << 5 | (raw[1] & 0xF8) >> 3
        self.seed = seed
        self._signing = SigningKey(raw[2:34])
        self.public = _encoded(bytes([prefix]) + self._signing.verify_key.encode())

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of the signature."""
        return self._signing.sign(data).signature


def new_key(kind: KeyKind) -> Key:
    prefix = _PREFIX[kind]
    head = bytes([_SEED_PREFIX | prefix >> 5, (prefix & 31) << 3])
    return Key(_encoded(head + os.urandom(32)))


def verify(public: str, data: bytes, signature: bytes) -> bool:
    """Tell whether `signature` over `data` was made by the owner of the key `public`."""
    try:
        VerifyKey(public_bytes(public)).verify(data, signature)
    except (BadSignatureError, ValueError):
        return False
    return True


def public_bytes(public: str) -> bytes:
    """Return the 32 bytes of a public nkey; refuse (``nkey``) what is none."""
    raw = _base32(public)
    if len(raw) != 35 or raw[0] not in _PREFIX.values():
        raise Refused("", f"{shown(public)} is no public nkey", code="nkey")
    return raw[1:33]


def issue(issuer: Key, subject: str, name: str, nats: dict[str, object], expires: int = 0) -> str:
    """Sign a JWT for the key `subject`; `nats` is the part that depends on its type.

    It is good until `expires`, in seconds since 1970; 0: until it is revoked.
    """
    body: dict[str, object] = {
        "iss": issuer.public,
        "iat": int(time.time()),
        "sub": subject,
        "name": name,
        "nats": {**nats, "version": 2},
        **({"exp": expires} if expires else {}),
    }
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()
    body["jti"] = base64.b32encode(digest).rstrip(b"=").decode()
    head = _b64(b'{"typ":"JWT","alg":"ed25519-nkey"}')
    signed = f"{head}.{_b64(json.dumps(body).encode())}"
    return f"{signed}.{_b64(issuer.sign(signed.encode()))}"


def claims_of(jwt: str) -> dict[str, object]:
    """Return what `jwt` says, without a look at its signature: the server checks that."""
    try:
        body = jwt.split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(body + "=="), type=dict[str, object])
    except (IndexError, ValueError):
        raise Refused("", "the JWT cannot be read", code="creds") from None
    return claims


class Credentials(msgspec.Struct, frozen=True):
    """A user's JWT with the seed of its key: what a .creds file holds."""

    name: str
    jwt: str
    seed: str

    def sign(self, data: bytes) -> bytes:
        return Key(self.seed).sign(data)

    @property
    def text(self) -> str:
        return (
            f"-----BEGIN NATS USER JWT-----\n{self.jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{self.seed}\n------END USER NKEY SEED------\n"
        )


def new_user(
    issuer: Key, account: str, name: str, rights: dict[str, object] | None = None
) -> Credentials:
    """Issue a user of `account`; with a role's key as `issuer` the role fences it in."""
    key = new_key("user")
    claims: dict[str, object] = {"type": "user", "issuer_account": account, **(rights or {})}
    return Credentials(name, issue(issuer, key.public, name, claims), key.seed)


def parse_creds(text: str) -> Credentials:
    """Read the text of a .creds file.

    Raises:
        Refused: that is no such text (``creds``).

    """
    found = _CREDS.search(text)
    if not found:
        raise Refused("", "no JWT and seed in the credentials", code="creds")
    Key(found["seed"])
    return Credentials(str(claims_of(found["jwt"]).get("name", "")), found["jwt"], found["seed"])


class Bundle(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One file that connects an agent, a person or a controller, as JSON.

    ``creds`` is empty where the server is a plain one, without accounts. An agent checks commands
    by ``controller_key`` and seals its reports with ``mac_key`` (hexadecimal). ``lab`` is in the
    file of a controller only: all keys of the lab, as JSON.
    """

    kind: Literal["agent", "person", "controller"]
    name: str
    url: str
    org: str = ""
    creds: str = ""
    controller_key: str = ""
    mac_key: str = ""
    ca: str = ""
    version: int = 1
    lab: str = ""

    @property
    def mac(self) -> bytes:
        return bytes.fromhex(self.mac_key)

    def encoded(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


def read_bundle(path: Path) -> Bundle:
    """Read the file that ``agent enroll`` or ``user add`` has printed.

    Raises:
        Refused: missing, readable by others, or not what it should be (``creds``).

    """
    try:
        bundle = msgspec.json.decode(read_secret(path), type=Bundle)
        if bundle.version != 1:
            raise Refused(str(path), f"version {bundle.version}, supported 1", code="creds")
        bytes.fromhex(bundle.mac_key)
    except ValueError as error:
        fix = "take the file as it was printed"
        raise Refused(str(path), f"no credentials: {error}", fix, code="creds") from None
    return bundle


def read_secret(path: Path) -> bytes:
    """Read a file that nobody else may read (``creds: mode 0644, need 0600``)."""
    try:
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            fix = f"chmod 600 {path}"
            raise Refused("", f"mode {mode:04o}, need 0600", fix, code="creds")
        with path.open("rb") as file:
            return file.read(_MAX_FILE_BYTES)
    except FileNotFoundError:
        raise NotFound("creds", str(path)) from None
    except OSError as error:
        raise Refused(str(path), str(error.strerror).lower(), code="creds") from None


def write_secret(path: Path, data: bytes) -> None:
    """Write a file that nobody else may read: all of it, durably, or the old one stays."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _encoded(raw: bytes) -> str:
    """Return base32 of `raw` and its CRC-16 (XMODEM), as nkeys are written."""
    checksum = crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(raw + checksum).rstrip(b"=").decode()


def _base32(text: str) -> bytes:
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except ValueError:
        raise Refused("", "this is no nkey", code="nkey") from None
    if _encoded(raw[:-2]) != text:  # also bits of the last letter that stand for nothing
        raise Refused("", "this is no nkey: it was cut or mistyped", code="nkey")
    return raw


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
