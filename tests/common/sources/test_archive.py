import asyncio
import datetime
import hashlib
import io
import socket
import ssl
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.repositories import MANIFEST
from tests.support.waiting import wait_until
from tshrag_common.errors import DeadlineExceeded
from tshrag_common.sources.address import parse
from tshrag_common.sources.archive import download
from tshrag_common.sources.faults import (
    ArchiveLimit,
    DigestMismatch,
    SourceNotFound,
    SourceRefused,
    SourceUnreachable,
    UrlDenied,
)
from tshrag_common.sources.network import addresses_of
from tshrag_common.sources.policy import LOCAL, SourceLimits, SourcePolicy
from tshrag_common.sources.resolve import resolve

LIMITS = SourceLimits(fetch_s=20)
LISTED = SourcePolicy(schemes=("http", "https"), hosts=("127.0.0.1",))


def an_archive(*wrap: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in {"load.toml": MANIFEST, "go": b"#!/bin/sh\n"}.items():
            member = tarfile.TarInfo("/".join([*wrap, name]))
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


ARCHIVE = an_archive()
SHA = hashlib.sha256(ARCHIVE).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    """Answers by path; what it saw is on the server."""

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        server.seen.append((self.path, dict(self.headers)))
        if target := server.moved.get(self.path):
            self.send_response(302)
            self.send_header("Location", target)
            self.end_headers()
        elif self.path.startswith("/hang"):
            server.released.wait(20)
        elif self.path.startswith("/status"):
            self.send_error(int(self.path[7:10]))
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(ARCHIVE)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.moved: dict[str, str] = {}
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @contextmanager
    def serving(self) -> Iterator["_Server"]:
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            self.released.set()
            self.shutdown()
            thread.join()
            self.server_close()


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server().serving() as serving:
        yield serving


async def got(url: str, into: Path, sha256: str = SHA, policy: SourcePolicy = LISTED) -> None:
    await download(parse(url, sha256), into, LIMITS, policy)


async def test_an_archive_is_downloaded_and_resolved(server: _Server, tmp_path: Path) -> None:
    text = f"{server.url}/iperf.tar.gz?a=1#sha256={SHA}"
    found = await resolve(text, tmp_path / "w", LIMITS, LISTED, {})
    assert found.manifest_bytes == MANIFEST
    assert found.source == text
    assert [path for path, _ in server.seen] == ["/iperf.tar.gz?a=1"]
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/load.toml").write_bytes(MANIFEST)
    (tmp_path / "dir/go").write_bytes(b"#!/bin/sh\n")
    plain = await resolve(str(tmp_path / "dir"), tmp_path / "p", LIMITS, LOCAL, {})
    assert plain.digest == found.digest


async def test_the_one_directory_around_everything_is_stepped_into(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(an_archive("iperf-3.1"))
    (tmp_path / "b.tgz").write_bytes(ARCHIVE)
    (tmp_path / "c.tgz").write_bytes(an_archive("top", "sub"))
    texts = (f"{tmp_path}/a.tgz", f"{tmp_path}/b.tgz#sha256={SHA}", f"{tmp_path}/c.tgz#:sub")
    found = [
        await resolve(text, tmp_path / f"w{n}", LIMITS, LOCAL, {}) for n, text in enumerate(texts)
    ]
    assert len({one.digest for one in found}) == 1


async def test_another_digest_is_refused_with_both(server: _Server, tmp_path: Path) -> None:
    want = "00" * 32
    with pytest.raises(DigestMismatch) as caught:
        await got(f"{server.url}/a.zip", tmp_path / "x", want)
    assert caught.value.line == f"sha256_mismatch: want {want} got {SHA}"
    (tmp_path / "a.tgz").write_bytes(ARCHIVE)
    with pytest.raises(DigestMismatch):
        await resolve(f"{tmp_path}/a.tgz#sha256={want}", tmp_path / "w", LIMITS, LOCAL, {})


async def test_a_private_server_is_never_even_asked(server: _Server, tmp_path: Path) -> None:
    policy = SourcePolicy(schemes=("http",))
    for host in ("127.0.0.1", "localhost", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]"):
        url = f"http://{host}:{server.server_port}/a.zip"
        with pytest.raises(UrlDenied, match="host"):
            await got(url, tmp_path / "x", policy=policy)
    assert server.seen == []


async def test_a_name_is_judged_by_the_addresses_behind_it() -> None:
    name = socket.gethostname()  # of this machine, so behind it there is nothing public
    with pytest.raises((UrlDenied, SourceUnreachable), match=r"not public|no address"):
        await addresses_of(name, 80, SourcePolicy(hosts=("other",)))
    found = await addresses_of("localhost", 80, SourcePolicy(hosts=("localhost",)))
    assert set(found) <= {"127.0.0.1", "::1"}


async def test_up_to_three_redirects_are_followed(server: _Server, tmp_path: Path) -> None:
    server.moved = {"/1.zip": "/2", "/2": f"{server.url}/3", "/3": "4"}
    await got(f"{server.url}/1.zip", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == ARCHIVE
    server.moved["/4"] = "/5"
    with pytest.raises(UrlDenied, match="more than 3 redirects"):
        await got(f"{server.url}/1.zip", tmp_path / "y")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("file:///etc/passwd", "url_denied: scheme"),
        ("ftp://host/x", "url_denied: scheme"),
        ("ssh://git@host/x", "url_denied: scheme"),
        ("http://169.254.169.254/latest/meta-data", "url_denied: host"),
        ("http://[::1]/x", "url_denied: host"),
        ("http://user:pw@127.0.0.1/x", "url_denied: host"),
        ("http://127.0.0.1/../x y", "url_denied: path"),
    ],
)
async def test_a_redirect_is_checked_like_the_first_address(
    server: _Server, tmp_path: Path, target: str, said: str
) -> None:
    server.moved = {"/a.zip": target}
    with pytest.raises(UrlDenied) as caught:
        await got(f"{server.url}/a.zip", tmp_path / "x")
    assert caught.value.line.startswith(said)
    assert len(server.seen) == 1


async def test_a_rewritten_scheme_does_not_open_redirects(server: _Server, tmp_path: Path) -> None:
    server.moved = {"/a.zip": f"{server.url}/b"}
    policy = SourcePolicy(hosts=("127.0.0.1",))
    text = f"https://mirror/a.zip#sha256={SHA}"
    with pytest.raises(UrlDenied, match="scheme"):
        await resolve(text, tmp_path / "w", LIMITS, policy, {"https://mirror": server.url})
    server.moved = {}
    found = await resolve(text, tmp_path / "v", LIMITS, policy, {"https://mirror": server.url})
    assert found.source == text


async def test_statuses_are_told_apart(server: _Server, tmp_path: Path) -> None:
    for status, error in ((404, SourceNotFound), (403, SourceRefused), (503, SourceUnreachable)):
        with pytest.raises(error, match=f"HTTP {status}"):
            await got(f"{server.url}/status{status}.zip", tmp_path / "x")


async def test_nothing_of_ours_is_sent_along(server: _Server, tmp_path: Path) -> None:
    await got(f"{server.url}/a.zip", tmp_path / "x")
    _, headers = server.seen[0]
    assert set(headers) <= {"Host", "User-Agent", "Accept-Encoding", "Connection"}


async def test_a_download_has_a_size_and_a_time_limit(server: _Server, tmp_path: Path) -> None:
    small = SourceLimits(packed_bytes=100)
    with pytest.raises(ArchiveLimit, match="> 100 bytes packed"):
        await download(parse(f"{server.url}/a.zip", SHA), tmp_path / "x", small, LISTED)
    short = SourceLimits(fetch_s=0.2)
    with pytest.raises(DeadlineExceeded, match=r"more than 0\.2 s"):
        await download(parse(f"{server.url}/hang.zip", SHA), tmp_path / "y", short, LISTED)


async def test_a_cancelled_download_ends_its_thread(server: _Server, tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(got(f"{server.url}/hang.zip", tmp_path / "x"))
        await wait_until(lambda: server.seen)
        task.cancel()
    assert task.cancelled()
    assert not server.released.is_set()


def a_certificate(base: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "source.test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8
    (base / "key.pem").write_bytes(key.private_bytes(pem, plain, serialization.NoEncryption()))
    (base / "cert.pem").write_bytes(certificate.public_bytes(pem))
    return base / "cert.pem", base / "key.pem"


async def test_https_is_checked_against_the_name_not_the_address(tmp_path: Path) -> None:
    certificate, key = a_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    trust = ssl.create_default_context(cafile=certificate)
    server = _Server()
    server.socket = context.wrap_socket(server.socket, server_side=True)
    policy = SourcePolicy(hosts=("localhost", "127.0.0.1"))
    with server.serving():
        named = parse(f"https://localhost:{server.server_port}/a.zip", SHA)
        await download(named, tmp_path / "x", LIMITS, policy, trust)
        with pytest.raises(SourceUnreachable, match="SSLCertVerificationError"):
            await download(named, tmp_path / "y", LIMITS, policy)
        number = parse(f"https://127.0.0.1:{server.server_port}/a.zip", SHA)
        with pytest.raises(SourceUnreachable, match="SSLCertVerificationError"):
            await download(number, tmp_path / "z", LIMITS, policy, trust)
    assert (tmp_path / "x").read_bytes() == ARCHIVE
