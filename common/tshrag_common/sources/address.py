r"""PURE: read where a load comes from.

    git@host:tools/x.git#v3.1        git over ssh; also ssh://git@host:22/tools/x.git#v3.1
    https://host/x.git#v3.1          git over https; #main:sub/dir takes a directory of it
    ./x.git#v3.1  /srv/x  file:///…  git here when a ref is given, else a directory or an archive
    https://host/x.tar.gz            an archive (.tar.gz .tgz .tar .zip) with its sha256, given
                                     beside it or as #sha256=HEX, #sha256=HEX:sub/dir
    builtin:NAME                     an entry point of the agent

Everything else is ``url_denied``. What is read here goes to git, to a resolver and to paths: no
option, no way up, no control character, no password gets through.
"""

import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from tshrag_common.errors import shown
from tshrag_common.sources.faults import RefInvalid, UrlDenied
from tshrag_common.sources.policy import (
    SourcePolicy,
    is_listed,
    is_public,
    literal_address,
    sha256_text,
)

SourceKind = Literal["git", "archive", "directory", "builtin"]
Scheme = Literal["https", "http", "ssh", "file", "builtin"]

MAX_TEXT = 2048
ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")

_SCP = re.compile(r"([A-Za-z0-9_][\w.-]*)@([^/:\[\]]+|\[[^\]]*\]):(.+)", re.ASCII)
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)(/.*)?", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9_]([\w.-]*\w)?\.?|\[[0-9A-Fa-f:.]+\]", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9_][\w.-]*", re.ASCII)
_REF = re.compile(r"[0-9A-Za-z._/][\w./-]*", re.ASCII)
_BUILTIN = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_ODD_HEX = re.compile(r"[0-9a-f]{33,39}|[0-9a-f]{41,63}")  # a commit with a digit too few or many
_SCHEMES: Mapping[str, Scheme] = {"https": "https", "http": "http", "ssh": "ssh"}
_PORTS: Mapping[str, int] = {"https": 443, "http": 80, "ssh": 22}


class Address(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A source, read and checked in form; ``permit`` says whether it may be used."""

    text: str  # as somebody wrote it
    kind: SourceKind
    scheme: Scheme
    location: str  # URL for git or HTTP; a path; the name of a builtin
    host: str = ""
    port: int = 0
    ref: str = ""
    subdir: str = ""
    sha256: str = ""  # of an archive's file
    by_table: bool = False  # the operator's rewrites have led here

    @property
    def is_remote(self) -> bool:
        """Tell whether the controller has to get it; else its submitter packs it."""
        return self.scheme in ("https", "http", "ssh")


class _Place(msgspec.Struct, frozen=True, kw_only=True):
    """What stands before the ``#``."""

    scheme: Scheme
    location: str
    path: str
    host: str = ""
    port: int = 0


def parse(text: str, sha256: str = "") -> Address:
    """Return the source that `text` names; `sha256` is that of an archive.

    Raises:
        UrlDenied: it is no source, or one with a trap in it.
        RefInvalid: what follows the ``#`` is no ref, or leads out of the tree.
        DigestInvalid: a sha256 that is none.

    """
    _check_text(text)
    if text.startswith("builtin:"):
        return _builtin(text)
    before, hash_, fragment = text.rpartition("#") if "#" in text else (text, "", "")
    place = _place(before)
    is_archive = place.path.partition("?")[0].lower().endswith(ARCHIVES)
    if is_archive:
        return _archive(text, place, fragment, sha256)
    if sha256:
        raise UrlDenied("scheme", f"{shown(text)} is no archive, so it has no sha256")
    if hash_:
        return _git(text, place, fragment)
    if place.scheme == "file":
        return Address(text=text, kind="directory", scheme="file", location=place.location)
    if place.scheme == "ssh" or place.path.endswith(".git"):
        return _git(text, place, "HEAD")
    fix = "name a .git repository with #ref, or an archive with its sha256"
    raise UrlDenied("scheme", f"{shown(text)} is neither git nor an archive", fix)


def rewritten(address: Address, table: Mapping[str, str]) -> Address:
    """Return `address` with the longest prefix that `table` has replaced, as git's insteadOf.

    Only what is remote is rewritten. The result keeps the text of its author.
    """
    prefixes = [prefix for prefix in table if prefix and address.text.startswith(prefix)]
    if not address.is_remote or not prefixes:
        return address
    longest = max(prefixes, key=len)
    found = parse(table[longest] + address.text[len(longest) :], _sha256_beside(address))
    return msgspec.structs.replace(found, text=address.text, by_table=True)


def permit(address: Address, policy: SourcePolicy) -> None:
    """Refuse a scheme that `policy` does not have, and a host that is a private address.

    Names of hosts are looked up later, and checked again then. A scheme that the operator's
    rewrites lead to is allowed.

    Raises:
        UrlDenied: ``scheme`` or ``host``.

    """
    if address.scheme != "builtin" and not address.by_table:
        _permit_scheme(address.scheme, address.text, policy)
    if address.is_remote:
        permit_host(address.host, policy)


def permit_host(host: str, policy: SourcePolicy) -> None:
    """Refuse `host` where it spells an address that is not public and not listed."""
    if is_listed(host, policy):
        return
    fix = "list it in [loads] hosts of controller.toml"
    try:
        address = literal_address(host)
    except ValueError:
        raise UrlDenied("host", f"{shown(host)} is no plain address", fix) from None
    if address is not None and not is_public(address):
        raise UrlDenied("host", f"{shown(host)} is not public", fix)
    if host.rstrip(".").lower().split(".")[-1] == "localhost":
        raise UrlDenied("host", f"{shown(host)} is this machine", fix)


def web(url: str, policy: SourcePolicy) -> tuple[str, str, int, str]:
    """Return scheme, host, port and target of a URL that a redirect led to, once permitted."""
    _check_text(url)
    place = _place(url.partition("#")[0])
    if place.scheme not in ("https", "http"):
        raise UrlDenied("scheme", f"redirected to {shown(url)}")
    _permit_scheme(place.scheme, url, policy)
    permit_host(place.host, policy)
    return place.scheme, place.host, place.port, place.path


def check_ref(ref: str) -> str:
    """Return `ref` when git can have it as branch, tag or full commit.

    Raises:
        RefInvalid: it could be an option, a range, or a commit with a digit missing.

    """
    if _ODD_HEX.fullmatch(ref):
        raise RefInvalid("", f"{shown(ref)} has {len(ref)} hex digits", "a commit has 40")
    odd = ".." in ref or "//" in ref or "/." in ref or ref.startswith((".", "/"))
    if odd or ref.endswith(("/", ".", ".lock")) or len(ref) > 255 or not _REF.fullmatch(ref):
        fix = "use a branch, a tag or 40 hex digits: A-Z a-z 0-9 . _ / -"
        raise RefInvalid("", shown(ref), fix)
    return ref


def _permit_scheme(scheme: str, text: str, policy: SourcePolicy) -> None:
    if scheme not in policy.schemes:
        fix = f"allowed: {', '.join(policy.schemes) or 'none'}"
        raise UrlDenied("scheme", f"{scheme!r} in {shown(text)}", fix)


def _check_text(text: str) -> None:
    if not text.strip() or len(text) > MAX_TEXT:
        raise UrlDenied("scheme", f"{shown(text)} is empty or longer than {MAX_TEXT}")
    if any(not char.isprintable() for char in text):
        raise UrlDenied("scheme", f"{shown(text)} holds a control character")
    if text.startswith("-"):
        raise UrlDenied("scheme", f"{shown(text)} looks like an option")


def _place(text: str) -> _Place:
    if url := _URL.fullmatch(text):
        return _of_url(text, url[1].lower(), url[2], url[3] or "")
    if (scp := _SCP.fullmatch(text)) and "::" not in text:
        _check_remote(text, scp[2], scp[3])
        return _Place(scheme="ssh", location=text, path=scp[3], host=scp[2], port=22)
    if ":" in text.split("/", 1)[0] or text.startswith("~") or "\\" in text:
        fix = "use git@host:path.git#ref, https://, a local path or builtin:"
        raise UrlDenied("scheme", f"{shown(text)} is no source", fix)
    if not text:
        raise UrlDenied("scheme", "nothing stands before the '#'")
    return _Place(scheme="file", location=text, path=text)


def _of_url(text: str, scheme: str, authority: str, path: str) -> _Place:
    if scheme == "file":
        if authority or len(path) < 2 or "%" in path:
            raise UrlDenied("scheme", f"{shown(text)} is no local path", "file:///path")
        return _Place(scheme="file", location=path, path=path)
    if scheme not in _SCHEMES:
        raise UrlDenied("scheme", f"{shown(scheme)} in {shown(text)}", "use https or ssh")
    user, at, rest = authority.rpartition("@")
    if at and (scheme != "ssh" or not _USER.fullmatch(user)):
        raise UrlDenied("host", "no user or password in an address", "keep them out of profiles")
    host, port = _split_port(text, rest, _PORTS[scheme])
    _check_remote(text, host, path)
    return _Place(scheme=_SCHEMES[scheme], location=text, path=path, host=host, port=port)


def _split_port(text: str, rest: str, default: int) -> tuple[str, int]:
    host, colon, port = rest.rpartition(":") if not rest.endswith("]") else (rest, "", "")
    if not colon:
        return rest, default
    if not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) or not 1 <= int(port) <= 65535:
        raise UrlDenied("host", f"{shown(text)}: port 1..65535")
    return host, int(port)


def _check_remote(text: str, host: str, path: str) -> None:
    if not _HOST.fullmatch(host) or len(host) > 255:
        raise UrlDenied("host", f"{shown(host)} in {shown(text)} is no host")
    plain = path.partition("?")[0].lower().replace("%2e", ".").replace("%2f", "/")
    if ".." in plain.split("/") or plain.startswith("-") or not plain.strip("/"):
        raise UrlDenied("path", f"{shown(text)} leads outside or nowhere")
    if any(char in ' \\"<>^`{|}' for char in path) or "%00" in plain or not path.isascii():
        raise UrlDenied("path", f"{shown(text)} holds a character that a URL has not")


def _git(text: str, place: _Place, fragment: str) -> Address:
    ref, colon, subdir = fragment.partition(":")
    if "?" in place.path and place.scheme != "file":
        raise UrlDenied("path", f"{shown(text)}: a repository has no query")
    return Address(
        text=text,
        kind="git",
        scheme=place.scheme,
        location=place.location,
        host=place.host,
        port=place.port,
        ref=check_ref(ref),
        subdir=_subdir(subdir) if colon else "",
    )


def _archive(text: str, place: _Place, fragment: str, sha256: str) -> Address:
    digest, _, subdir = fragment.partition(":")
    if digest and not digest.startswith("sha256="):
        raise RefInvalid("", f"{shown(fragment)}: an archive has no refs", "use #sha256=…")
    digest = digest.removeprefix("sha256=") or sha256
    if not digest and place.scheme != "file":
        raise UrlDenied("sha256", f"{shown(text)} has none", "add sha256 of the archive's file")
    if sha256 and sha256 != digest:
        raise UrlDenied("sha256", f"{shown(text)} has two that differ")
    if place.scheme == "ssh":
        raise UrlDenied("scheme", f"{shown(text)}: archives come by https")
    return Address(
        text=text,
        kind="archive",
        scheme=place.scheme,
        location=place.location,
        host=place.host,
        port=place.port,
        subdir=_subdir(subdir) if subdir else "",
        sha256=sha256_text(digest) if digest else "",
    )


def _sha256_beside(address: Address) -> str:
    return "" if "#sha256=" in address.text else address.sha256


def _subdir(text: str) -> str:
    parts = text.strip("/").split("/")
    bad = {"", ".", ".."} & set(parts) or "\\" in text or ":" in text or text.startswith("/")
    if bad or len(text) > 1024:
        raise RefInvalid("", f"{shown(text)} is no directory below the tree")
    return "/".join(parts)


def _builtin(text: str) -> Address:
    name = text.removeprefix("builtin:")
    if not _BUILTIN.fullmatch(name):
        raise UrlDenied("scheme", f"{shown(text)} is no builtin", "builtin:NAME, a-z 0-9 _ . -")
    return Address(text=text, kind="builtin", scheme="builtin", location=name)
