import asyncio
import os
from pathlib import Path

import pytest

from tests.support.repositories import MANIFEST, Repository
from tests.support.waiting import wait_until
from tshrag_common.errors import DeadlineExceeded, Refused, Unavailable
from tshrag_common.sources.faults import (
    ArchiveKind,
    ArchiveLimit,
    ArchiveLink,
    ManifestMissing,
    RefNotFound,
    SourceNotFound,
    SourceUnreachable,
    UrlDenied,
)
from tshrag_common.sources.policy import LOCAL, SourceLimits, SourcePolicy
from tshrag_common.sources.resolve import Resolved, resolve

LIMITS = SourceLimits(fetch_s=30)
LOAD = {"load.toml": MANIFEST, "bin/go.sh": b"#!/bin/sh\necho 1\n", "data": b"a\r\nb\r\n"}
CONTROLLER = SourcePolicy()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "origin")
    made.commit(LOAD, "bin/go.sh")
    made.git("tag", "--annotate", "v3.1", "--message=release")
    return made


async def resolved(text: str, workdir: Path, policy: SourcePolicy = LOCAL) -> Resolved:
    return await resolve(text, workdir, LIMITS, policy, {})


async def test_the_source_of_the_example_comes_from_a_mirror(
    repository: Repository, tmp_path: Path
) -> None:
    commit = repository.git("rev-parse", "HEAD")
    mirror = Path(repository.publish()).parent
    text = "git@repo:tools/iperf-module.git#v3.1"
    table = {"git@repo:tools/": f"file://{mirror}/"}
    found = await resolve(text, tmp_path / "w", LIMITS, CONTROLLER, table)
    assert (found.source, found.commit) == (text, commit)
    assert found.manifest_bytes == MANIFEST
    kept = {path.name: path.stat().st_size for path in (tmp_path / "w").iterdir()}
    assert kept == {f"{found.digest}.tar": found.size_bytes}
    assert found.packed_path == str(tmp_path / "w" / f"{found.digest}.tar")


async def test_tag_branch_commit_bare_and_directory_give_one_digest(
    repository: Repository, tmp_path: Path
) -> None:
    bare, commit = repository.publish(), repository.git("rev-parse", "HEAD")
    texts = [
        f"{bare}#v3.1",
        f"{bare}#main",
        f"{bare}#{commit}",
        f"{bare}#refs/tags/v3.1",
        f"file://{bare}#v3.1",
        f"{repository.work}#main",
        str(repository.work),
    ]
    found = [await resolved(text, tmp_path / f"{n}") for n, text in enumerate(texts)]
    assert len({one.digest for one in found}) == 1
    assert [one.commit for one in found] == [commit] * 6 + [""]


async def test_an_older_commit_can_be_named(repository: Repository, tmp_path: Path) -> None:
    first = repository.git("rev-parse", "HEAD")
    repository.commit({"data": b"newer"})
    bare = repository.publish()
    old = await resolved(f"{bare}#{first}", tmp_path / "old")
    new = await resolved(f"{bare}#main", tmp_path / "new")
    assert old.commit == first
    assert old.digest != new.digest


async def test_a_directory_of_a_repository_can_be_named(
    repository: Repository, tmp_path: Path
) -> None:
    repository.commit({f"loads/ping/{name}": data for name, data in LOAD.items()})
    bare = repository.publish()
    found = await resolved(f"{bare}#main:loads/ping", tmp_path / "w")
    plain = await resolved(str(repository.work / "loads/ping"), tmp_path / "p")
    assert found.digest == plain.digest
    with pytest.raises(SourceNotFound, match="no directory 'loads/pong'"):
        await resolved(f"{bare}#main:loads/pong", tmp_path / "x")
    with pytest.raises(ManifestMissing):
        await resolved(f"{bare}#main:loads", tmp_path / "y")


async def test_a_ref_that_is_not_there_is_named_with_its_repository(
    repository: Repository, tmp_path: Path
) -> None:
    bare = repository.publish()
    for ref in ("v9", "f" * 40, "abcdef1"):
        with pytest.raises(RefNotFound) as caught:
            await resolved(f"{bare}#{ref}", tmp_path / f"w-{ref}")
        assert caught.value.line.startswith(f"ref_not_found: '{ref}' at {bare}#{ref}")


async def test_a_place_without_a_repository_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nothing"):
        with pytest.raises(SourceNotFound):
            await resolved(f"{tmp_path / name}#v1", tmp_path / f"w-{name}")


async def test_attributes_and_filters_of_the_tree_change_nothing(
    repository: Repository, tmp_path: Path
) -> None:
    attributes = b"* text eol=crlf ident export-ignore export-subst filter=evil\n"
    repository.commit({"d/load.toml": MANIFEST, "d/x": b"$Id$ $Format:%H$\n"})
    plain = await resolved(f"{repository.publish()}#main:d", tmp_path / "a")
    repository.commit({".gitattributes": attributes})
    found = await resolved(f"{repository.publish()}#main:d", tmp_path / "b")
    assert plain.digest == found.digest


async def test_links_and_submodules_are_refused(repository: Repository, tmp_path: Path) -> None:
    (repository.work / "link").symlink_to("/etc/passwd")
    repository.git("add", "link")
    repository.git("commit", "--quiet", "--message=link")
    with pytest.raises(ArchiveLink, match="'link' -> "):
        await resolved(f"{repository.publish()}#main", tmp_path / "a")
    repository.git("rm", "--quiet", "link")
    commit = repository.git("rev-parse", "HEAD")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},sub")
    repository.git("commit", "--quiet", "--message=sub")
    with pytest.raises(ArchiveKind, match="'sub' is a submodule"):
        await resolved(f"{repository.publish()}#main", tmp_path / "b")


async def test_hooks_and_settings_of_the_repository_are_not_executed(
    repository: Repository, tmp_path: Path
) -> None:
    canary = tmp_path / "CANARY"
    bare = Path(repository.publish())
    for hook in ("pre-receive", "post-checkout", "post-update", "reference-transaction"):
        (bare / "hooks").mkdir(exist_ok=True)
        (bare / "hooks" / hook).write_text(f"#!/bin/sh\ntouch {canary}\n")
        (bare / "hooks" / hook).chmod(0o755)
    with (bare / "config").open("a") as config:
        config.write(f'[uploadpack]\n\tpackObjectsHook = "touch {canary};"\n')
        config.write(f'[core]\n\tfsmonitor = "touch {canary}"\n\tsshCommand = "touch {canary}"\n')
    await resolved(f"{bare}#v3.1", tmp_path / "w")
    assert not canary.exists()


INJECTIONS = [
    "--upload-pack=touch CANARY",
    "--upload-pack=touch CANARY#v3.1",
    "-u touch CANARY#v3.1",
    "ext::sh -c touch% CANARY",
    "ext::sh -c touch% CANARY#v3.1",
    "file:///REPO#--upload-pack=touch CANARY",
    "file:///REPO#--help",
    "file:///REPO#-q",
    "file:///REPO#v3.1;touch CANARY",
    "file:///REPO#$(touch CANARY)",
    "file:///REPO#`touch CANARY`",
    "file:///REPO#v3.1:--output=CANARY",
    "file:///REPO#v3.1 --upload-pack=touch\tCANARY",
    "file:///REPO#main:refs/heads/x",
    "file:///REPO --upload-pack=touch$IFS'CANARY'#v3.1",
    "git@-oProxyCommand=touch CANARY:x.git#v3.1",
    "ssh://-oProxyCommand=touch%20CANARY/x.git#v3.1",
    "ssh://git@host/x.git --upload-pack=touch CANARY#v3.1",
    "git@host:x.git;touch CANARY#v3.1",
    "https://host/x.git?--config=core.sshCommand=touch#v3.1",
    "https://host/x.git#--config=core.sshCommand=touch",
    "fd::0#v3.1",
    "transport::--upload-pack=touch CANARY#v3.1",
]


@pytest.mark.parametrize("text", INJECTIONS)
async def test_no_injection_leaves_a_canary(
    text: str, repository: Repository, tmp_path: Path
) -> None:
    bare = repository.publish()
    canary = tmp_path / "CANARY"
    hostile = text.replace("/REPO", bare).replace("CANARY", str(canary))
    wide = SourcePolicy(schemes=("https", "ssh", "file"))
    with pytest.raises((Refused, Unavailable)):
        await resolve(hostile, tmp_path / "w", SourceLimits(fetch_s=5), wide, {})
    assert not canary.exists()
    assert not Path("CANARY").exists()  # noqa: ASYNC240 # a test may look


async def test_size_and_number_are_bounded(repository: Repository, tmp_path: Path) -> None:
    repository.commit({f"f{n}": os.urandom(200_000) for n in range(6)})
    bare = repository.publish()
    for name, limits in {
        "files": SourceLimits(files=4),
        "unpacked": SourceLimits(unpacked_bytes=1_000_000),
        "repository": SourceLimits(packed_bytes=500_000),
    }.items():
        with pytest.raises(ArchiveLimit, match=name):
            await resolve(f"{bare}#main", tmp_path / name, limits, LOCAL, {})


async def test_a_manifest_is_needed_and_bounded(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(ArchiveLimit, match=r"load.toml > 8 bytes"):
        await resolve(
            f"{repository.work}#main", tmp_path / "a", SourceLimits(manifest_bytes=8), LOCAL, {}
        )
    repository.git("rm", "--quiet", "load.toml")
    repository.git("commit", "--quiet", "--message=none")
    with pytest.raises(ManifestMissing, match=r"has no load\.toml"):
        await resolved(f"{repository.work}#main", tmp_path / "b")


def processes_about(word: str) -> list[str]:
    """Return the command lines of all processes that have `word` in theirs."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return [line for line in lines if word in line]


async def a_silent_server() -> asyncio.Server:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    return await asyncio.start_server(silent, "127.0.0.1", 0)


async def test_a_server_that_never_answers_ends_with_the_limit(tmp_path: Path) -> None:
    async with await a_silent_server() as server:
        port = server.sockets[0].getsockname()[1]
        policy = SourcePolicy(schemes=("http",), hosts=("127.0.0.1",))
        with pytest.raises(DeadlineExceeded, match=r"git took more than 0\.3 s"):
            await resolve(
                f"http://127.0.0.1:{port}/silent.git#v1",
                tmp_path / "w",
                SourceLimits(fetch_s=0.3),
                policy,
                {},
            )
        await wait_until(lambda: not processes_about(f"127.0.0.1:{port}/silent.git"))


async def test_a_cancelled_fetch_leaves_no_process(tmp_path: Path) -> None:
    async with await a_silent_server() as server:
        port = server.sockets[0].getsockname()[1]
        policy = SourcePolicy(schemes=("http",), hosts=("127.0.0.1",))
        url = f"http://127.0.0.1:{port}/cancelled.git"
        async with asyncio.TaskGroup() as group:
            task = group.create_task(resolve(f"{url}#v1", tmp_path / "w", LIMITS, policy, {}))
            await wait_until(lambda: len(processes_about(url)) > 1)
            task.cancel()
        await wait_until(lambda: not processes_about(url))
    assert task.cancelled()


async def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    async with await a_silent_server() as server:
        port = server.sockets[0].getsockname()[1]
    policy = SourcePolicy(schemes=("http",), hosts=("127.0.0.1",))
    with pytest.raises(SourceUnreachable):
        await resolve(f"http://127.0.0.1:{port}/x.git#v1", tmp_path / "w", LIMITS, policy, {})


async def test_files_of_this_machine_are_refused_where_policy_has_no_file(
    repository: Repository, tmp_path: Path
) -> None:
    for text in (f"{repository.publish()}#v3.1", str(repository.work), "file:///etc#v1"):
        with pytest.raises(UrlDenied, match=r"^scheme: 'file'"):
            await resolved(text, tmp_path / "w", CONTROLLER)
