import pytest
from hypothesis import given, strategies as st

from tshrag_common.errors import Refused
from tshrag_common.sources.address import Address, check_ref, parse, permit, rewritten
from tshrag_common.sources.faults import DigestInvalid, RefInvalid, UrlDenied
from tshrag_common.sources.policy import LOCAL, SourcePolicy, is_listed

SHA = "ab" * 32
REMOTE = SourcePolicy()


@pytest.mark.parametrize(
    ("text", "kind", "scheme", "ref", "subdir"),
    [
        ("git@repo:tools/iperf-module.git#v3.1", "git", "ssh", "v3.1", ""),
        ("git@host.lab:x.git", "git", "ssh", "HEAD", ""),
        ("ssh://git@host:2222/tools/x.git#main", "git", "ssh", "main", ""),
        ("https://host/x.git#release/2.0", "git", "https", "release/2.0", ""),
        ("https://host/x#main:loads/ping", "git", "https", "main", "loads/ping"),
        ("https://host/x.git#" + "a1" * 20, "git", "https", "a1" * 20, ""),
        ("file:///srv/x.git#v1", "git", "file", "v1", ""),
        ("./x.git#v1", "git", "file", "v1", ""),
        ("/srv/my loads/x#v1:a", "git", "file", "v1", "a"),
        ("./loads/ping", "directory", "file", "", ""),
        ("loads/ping", "directory", "file", "", ""),
        ("../ping", "directory", "file", "", ""),
        ("file:///srv/ping", "directory", "file", "", ""),
        (f"https://host/a.tar.gz#sha256={SHA}", "archive", "https", "", ""),
        (f"https://host/a.zip?key=1#sha256={SHA}:sub", "archive", "https", "", "sub"),
        ("./a.tgz", "archive", "file", "", ""),
        ("builtin:noop", "builtin", "builtin", "", ""),
    ],
)
def test_every_form_of_source_is_read(
    text: str, kind: str, scheme: str, ref: str, subdir: str
) -> None:
    address = parse(text)
    assert (address.kind, address.scheme) == (kind, scheme)
    assert (address.ref, address.subdir) == (ref, subdir)
    assert address.text == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ext::sh -c touch% canary", "url_denied: scheme"),
        ("fd::17", "url_denied: scheme"),
        ("--upload-pack=touch canary", "url_denied: scheme"),
        ("-oProxyCommand=touch canary", "url_denied: scheme"),
        ("git://host/x.git#v1", "url_denied: scheme"),
        ("ftp://host/x.tar.gz", "url_denied: scheme"),
        ("javascript:alert(1)", "url_denied: scheme"),
        ("file:x", "url_denied: scheme"),
        ("file://host/x.git#v1", "url_denied: scheme"),
        ("C:\\loads", "url_denied: scheme"),
        ("~/x", "url_denied: scheme"),
        ("", "url_denied: scheme"),
        ("#v1", "url_denied: scheme"),
        ("a\x00b", "url_denied: scheme"),
        ("https://host/x.git#v1\n", "url_denied: scheme"),
        ("x" * 3000, "url_denied: scheme"),
        ("https://host/page", "url_denied: scheme"),
        ("git@-oProxyCommand=x:y.git#v1", "url_denied: host"),
        ("ssh://-oProxyCommand=x/y.git#v1", "url_denied: host"),
        ("ssh://git:secret@host/y.git#v1", "url_denied: host"),
        ("https://user@host/y.git#v1", "url_denied: host"),
        ("https://host:99999/y.git#v1", "url_denied: host"),
        ("https:///y.git#v1", "url_denied: host"),
        ("git@repo:../../etc/x.git#v1", "url_denied: path"),
        ("git@repo:-x.git#v1", "url_denied: path"),
        ("https://host/%2e%2e/y.git#v1", "url_denied: path"),
        ("https://host/..%2Fy.git#v1", "url_denied: path"),
        ("https://host/a b.git#v1", "url_denied: path"),
        ("https://host/a.tar.gz", "url_denied: sha256"),
        ("builtin:../x", "url_denied: scheme"),
        ("https://host/x.git#--help", "ref_invalid"),
        ("https://host/x.git#", "ref_invalid"),
        ("https://host/x.git#" + "a" * 39, "ref_invalid"),
        ("https://host/x.git#a..b", "ref_invalid"),
        ("https://host/x.git#a:refs/heads/b:..", "ref_invalid"),
        ("https://host/x.git#+main", "ref_invalid"),
        ("https://host/x.git#main:../x", "ref_invalid"),
        ("https://host/x.git#main:/x", "ref_invalid"),
        ("https://host/x.git#v1@{1}", "ref_invalid"),
        ("https://host/a.zip#v1", "ref_invalid"),
        ("https://host/a.zip#sha256=12", "sha256_invalid"),
    ],
)
def test_everything_else_is_refused(text: str, said: str) -> None:
    with pytest.raises(Refused) as caught:
        parse(text)
    assert caught.value.line.startswith(said)
    assert "\n" not in caught.value.line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file:///srv/x.git#v1", "url_denied: scheme"),
        ("./x", "url_denied: scheme"),
        ("http://169.254.169.254/x.git#v1", "url_denied: scheme"),
        ("https://169.254.169.254/x.git#v1", "url_denied: host"),
        ("https://127.0.0.1/x.git#v1", "url_denied: host"),
        ("https://0x7f000001/x.git#v1", "url_denied: host"),
        ("https://2130706433/x.git#v1", "url_denied: host"),
        ("https://127.1/x.git#v1", "url_denied: host"),
        ("https://[::1]/x.git#v1", "url_denied: host"),
        ("https://[::ffff:10.0.0.1]/x.git#v1", "url_denied: host"),
        ("https://[64:ff9b::a9fe:a9fe]/x.git#v1", "url_denied: host"),
        ("https://[fd00:ec2::254]/x.git#v1", "url_denied: host"),
        ("https://10.1.2.3/x.git#v1", "url_denied: host"),
        ("https://100.100.100.200/x.git#v1", "url_denied: host"),
        ("https://168.63.129.16/x.git#v1", "url_denied: host"),
        ("https://localhost/x.git#v1", "url_denied: host"),
        ("https://a.localhost./x.git#v1", "url_denied: host"),
        ("git@192.168.1.1:x.git#v1", "url_denied: host"),
    ],
)
def test_a_private_place_is_refused_unless_it_is_listed(text: str, said: str) -> None:
    with pytest.raises(UrlDenied) as caught:
        permit(parse(text), REMOTE)
    assert caught.value.line.startswith(said)


def test_what_the_operator_lists_is_allowed() -> None:
    policy = SourcePolicy(schemes=("https", "http"), hosts=("10.1.0.0/16", "*.lab", "localhost"))
    for host in ("10.1.2.3", "git.lab", "GIT.lab", "localhost"):
        permit(parse(f"http://{host}/x.git#v1"), policy)
    assert not is_listed("10.2.0.1", policy)
    assert not is_listed("gitlab", policy)


def test_public_sources_and_builtins_need_no_listing() -> None:
    for text in ("git@repo:x.git#v1", "https://8.8.8.8/x.git#v1", "builtin:noop"):
        permit(parse(text), REMOTE)
    permit(parse("./x"), LOCAL)


def test_the_longest_prefix_of_the_table_wins_and_may_lead_to_a_file() -> None:
    table = {"git@repo:": "/srv/all/", "git@repo:tools/": "file:///srv/mirror/"}
    address = rewritten(parse("git@repo:tools/iperf-module.git#v3.1"), table)
    assert (address.location, address.ref) == ("/srv/mirror/iperf-module.git", "v3.1")
    assert address.text == "git@repo:tools/iperf-module.git#v3.1"
    permit(address, REMOTE)


def test_a_rewrite_does_not_open_a_host() -> None:
    address = rewritten(parse("https://host/x.git#v1"), {"https://host/": "http://127.0.0.1/"})
    with pytest.raises(UrlDenied, match="host"):
        permit(address, REMOTE)


def test_an_archive_keeps_its_sha256_over_a_rewrite() -> None:
    for address in (parse(f"https://h/a.zip#sha256={SHA}"), parse("https://h/a.zip", SHA)):
        found = rewritten(address, {"https://h/": "/srv/"})
        assert (found.kind, found.location, found.sha256) == ("archive", "/srv/a.zip", SHA)


def test_a_sha256_stands_once_and_with_archives_only() -> None:
    with pytest.raises(UrlDenied, match="differ"):
        parse(f"https://h/a.zip#sha256={SHA}", "cd" * 32)
    with pytest.raises(UrlDenied, match="no archive"):
        parse("https://h/a.git#v1", SHA)
    with pytest.raises(DigestInvalid):
        parse("https://h/a.zip", "AB" * 32)


@given(st.text(max_size=60))
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    for candidate in (text, f"git@repo:{text}", f"https://host/x.git#{text}", f"ssh://{text}"):
        try:
            address = parse(candidate)
        except Refused as refused:
            assert "\n" not in refused.line
        else:
            _has_no_trap(address)


def _has_no_trap(address: Address) -> None:
    assert not address.location.startswith("-")
    assert not address.host.startswith("-")
    if address.kind == "git":
        assert check_ref(address.ref) == address.ref
        assert not address.ref.startswith(("-", "+"))
        assert ".." not in address.subdir.split("/")
    if address.is_remote:
        assert "/../" not in f"/{address.location}/"


def test_a_ref_is_no_longer_than_git_has_it() -> None:
    with pytest.raises(RefInvalid):
        check_ref("a" * 256)
