"""Git over HTTP and over ssh: a real server for the one, a stand-in that executes for the other."""

import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.debian import need_program
from tests.support.repositories import MANIFEST, Repository
from tshrag_common.sources.faults import (
    RefNotFound,
    SourceNotFound,
    SourceRefused,
    SourceUnreachable,
    UrlDenied,
)
from tshrag_common.sources.policy import SourceLimits, SourcePolicy
from tshrag_common.sources.resolve import resolve

LIMITS = SourceLimits(fetch_s=30)
LISTED = SourcePolicy(schemes=("http", "ssh"), hosts=("localhost", "127.0.0.1"))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "origin")
    made.commit({"load.toml": MANIFEST, "go": b"#!/bin/sh\n"}, "go")
    made.git("tag", "--annotate", "v3.1", "--message=release")
    made.publish()
    return made


class _Backend(BaseHTTPRequestHandler):
    """Hands a request to git http-backend, as a web server would."""

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        url = urlsplit(self.path)
        server.seen.append(self.path)
        if url.path.startswith("/moved/"):
            self.send_response(301)
            self.send_header("Location", server.url + self.path.removeprefix("/moved"))
            self.end_headers()
            return
        if url.path.startswith("/closed/"):
            self.send_error(403)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=self._environment(), stdout=-1, check=True
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(fields.pop("Status", "200")[:3]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _environment(self) -> dict[str, str]:
        server, url = self.server, urlsplit(self.path)
        assert isinstance(server, _Server)
        return {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(server.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "PATH_INFO": url.path,
            "QUERY_STRING": url.query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "CONTENT_LENGTH": self.headers.get("Content-Length", ""),
        }

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Backend)
        self.root = root
        self.seen: list[str] = []

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server_port}"


@pytest.fixture
def server(repository: Repository) -> Iterator[_Server]:
    need_program("git", "git")
    server = _Server(repository.bare.parent)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_repository_comes_over_http_by_its_checked_address(
    server: _Server, repository: Repository, tmp_path: Path
) -> None:
    text = f"{server.url}/iperf-module.git#v3.1"
    found = await resolve(text, tmp_path / "w", LIMITS, LISTED, {})
    assert found.commit == repository.git("rev-parse", "HEAD")
    assert found.manifest_bytes == MANIFEST
    by_commit = f"{server.url}/iperf-module.git#{found.commit}"
    again = await resolve(by_commit, tmp_path / "v", LIMITS, LISTED, {})
    assert again.digest == found.digest


async def test_what_a_server_says_becomes_one_line(server: _Server, tmp_path: Path) -> None:
    for path, error in (
        ("iperf-module.git#v9", RefNotFound),
        ("none.git#v1", SourceNotFound),
        ("closed/x.git#v1", SourceRefused),
    ):
        with pytest.raises(error) as caught:
            await resolve(f"{server.url}/{path}", tmp_path / error.__name__, LIMITS, LISTED, {})
        assert "\n" not in caught.value.line


async def test_git_follows_no_redirect(server: _Server, tmp_path: Path) -> None:
    with pytest.raises(SourceUnreachable):
        text = f"{server.url}/moved/iperf-module.git#v3.1"
        await resolve(text, tmp_path / "w", LIMITS, LISTED, {})
    assert all(path.startswith("/moved/") for path in server.seen)


async def test_a_private_git_server_is_never_even_asked(server: _Server, tmp_path: Path) -> None:
    with pytest.raises(UrlDenied, match="host"):
        text = f"{server.url}/iperf-module.git#v3.1"
        await resolve(text, tmp_path / "w", LIMITS, SourcePolicy(schemes=("http",)), {})
    assert server.seen == []


STAND_IN = """#!/bin/sh
echo "$@" >> "{log}"
case "$*" in *closed.git*) echo "git@repo: Permission denied (publickey)." >&2; exit 255;; esac
for last; do :; done
cd "{root}" && exec sh -c "$last"
"""


@pytest.fixture
def ssh_log(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    programs, log = tmp_path / "programs", tmp_path / "ssh.log"
    programs.mkdir()
    text = STAND_IN.format(log=log, root=repository.bare.parent)
    (programs / "ssh").write_text(text)
    (programs / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return log


def said_to(log: Path) -> str:
    return log.read_text()


async def test_a_repository_comes_over_ssh_without_a_question(
    ssh_log: Path, repository: Repository, tmp_path: Path
) -> None:
    text = "git@a-name-of-ssh-config.invalid:iperf-module.git#v3.1"
    found = await resolve(text, tmp_path / "w", LIMITS, SourcePolicy(), {})
    assert found.commit == repository.git("rev-parse", "HEAD")
    asked = said_to(ssh_log)
    assert "-oBatchMode=yes" in asked
    assert "-oForwardAgent=no" in asked
    assert "git@a-name-of-ssh-config.invalid git-upload-pack 'iperf-module.git'" in asked


async def test_a_refused_key_is_said_with_what_to_do(ssh_log: Path, tmp_path: Path) -> None:
    text = "ssh://git@a-name-of-ssh-config.invalid/closed.git#v3.1"
    with pytest.raises(SourceRefused, match="keys and rights of the controller"):
        await resolve(text, tmp_path / "w", LIMITS, SourcePolicy(), {})
    assert "closed.git" in said_to(ssh_log)
