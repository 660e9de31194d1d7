"""Which lab is meant, as whom, and what says so.

Flags go before variables, those before files (``./.tshrag.toml``, the user's, the machine's), and
where nobody says anything it is the lab that a controller runs on this machine.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tshrag_common.errors import NotFound, Refused
from tshrag_common.ids import DEFAULT_ORG, OrgId, org_id
from tshrag_common.keys import Bundle, parse_creds, read_bundle, read_secret
from tshrag_common.settings import DEFAULT_NATS_URL, NatsUrl, load_settings

OWN_BUNDLE = "me.json"
"""Written by the controller of this machine into its state folder."""

VARIABLES = {"url": "TSHRAG_NATS_URL", "creds": "TSHRAG_CREDS", "org": "TSHRAG_ORG"}


class CliSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``tshrag.toml`` of an operator: the same three values as the flags."""

    url: NatsUrl = ""
    creds: str = ""
    org: str = ""


class Setting(msgspec.Struct, frozen=True):
    """A value, and what said it: a flag, a variable, a file."""

    value: str
    origin: str


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """All that `open_client` needs. ``credentials`` is text, empty for a plain server."""

    url: Setting
    org: Setting
    creds: Setting
    credentials: str = ""
    ca: str = ""

    @property
    def org_id(self) -> OrgId:
        return org_id(self.org.value)


def state_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder in which the controller of this machine keeps its lab."""
    named = environment.get("TSHRAG_STATE") or environment.get("TSHRAG_CONTROLLER_STATE")
    return Path(named or "~/.local/share/tshrag/lab").expanduser().absolute()


def files(environment: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Return the files that may name a lab; the first that says something wins."""
    home = environment.get("XDG_CONFIG_HOME") or "~/.config"
    return (
        Path(".tshrag.toml"),
        Path(home).expanduser() / "tshrag" / "tshrag.toml",
        Path("/etc/tshrag/tshrag.toml"),
    )


def find(
    flags: Mapping[str, str | None], environment: Mapping[str, str] = os.environ
) -> Connection:
    """Return the connection that `flags`, `environment` and files name.

    Raises:
        Refused: nothing names a lab (``no_lab``), or its credentials cannot be read.

    """
    said = _said(flags, environment)
    own = _own_bundle(environment)
    if "creds" in said:
        return _with_creds(said, said["creds"])
    if own is not None and said.get("url", own[1]).value == own[0].url:
        return _of_bundle(said, own[0], own[1])
    if "url" not in said:
        where = ", ".join(("--url", VARIABLES["url"], str(files(environment)[1])))
        fix = f"start one with 'tshrag up', or name one by {where}"
        raise Refused("", "no lab is known on this machine", fix, code="no_lab")
    return Connection(
        url=said["url"], org=_org(said, ""), creds=Setting("", "none: a plain server")
    )


def _said(flags: Mapping[str, str | None], environment: Mapping[str, str]) -> dict[str, Setting]:
    """Return what was said of each value, by whom goes first."""
    found = {
        name: Setting(value, f"--{name}") for name, value in flags.items() if value is not None
    }
    for name, variable in VARIABLES.items():
        if value := environment.get(variable):
            found.setdefault(name, Setting(value, variable))
    for path in files(environment):
        if path.is_file():
            settings = load_settings(CliSettings, path)
            for name in VARIABLES:
                if value := getattr(settings, name):
                    found.setdefault(name, Setting(str(value), str(path)))
    return found


def _own_bundle(environment: Mapping[str, str]) -> tuple[Bundle, Setting] | None:
    path = state_folder(environment) / OWN_BUNDLE
    try:
        bundle = read_bundle(path)
    except NotFound:
        return None
    return bundle, Setting(bundle.url, str(path))


def _with_creds(said: Mapping[str, Setting], creds: Setting) -> Connection:
    path = Path(creds.value).expanduser()
    raw = read_secret(path)
    if raw.lstrip()[:1] == b"{":
        return _of_bundle(said, read_bundle(path), creds)
    text = raw.decode("utf-8", "replace")
    parse_creds(text)
    url = said.get("url", Setting(DEFAULT_NATS_URL, "default"))
    return Connection(url=url, org=_org(said, ""), creds=creds, credentials=text)


def _of_bundle(said: Mapping[str, Setting], bundle: Bundle, creds: Setting) -> Connection:
    if bundle.kind == "agent":
        fix = "an agent's file is for tshrag-agent; 'tshrag user add' makes one for people"
        raise Refused(creds.origin, f"credentials of agent {bundle.name}", fix, code="creds")
    origin = creds.origin if creds.value == bundle.url else creds.value
    return Connection(
        url=said.get("url", Setting(bundle.url, origin)),
        org=_org(said, bundle.org, origin),
        creds=Setting(origin if bundle.creds else "", creds.origin),
        credentials=bundle.creds,
        ca=bundle.ca,
    )


def _org(said: Mapping[str, Setting], known: str, origin: str = "") -> Setting:
    if "org" in said:
        return said["org"]
    return Setting(known, origin) if known else Setting(DEFAULT_ORG, "default")
