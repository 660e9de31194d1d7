"""PURE: ``load.toml``: what a load is, what it takes, what it measures, where it runs.

The format is shown in ``configs/loads/load.toml``.
"""

from collections.abc import Collection
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tshrag_common.documents import read_document
from tshrag_common.errors import LabError, Refused
from tshrag_common.fields import CommandWords, Name, Text, Token
from tshrag_common.findings import Findings
from tshrag_common.jobs import LoadRef
from tshrag_common.metrics import RESERVED, MetricInfo, is_below, metric_key
from tshrag_common.params import Param, check_default
from tshrag_common.positions import At
from tshrag_common.results import ResultFile
from tshrag_common.scrapes import Scrape
from tshrag_common.strict import convert
from tshrag_common.units import UNITS, BadQuantity, unit

FILE = "load.toml"
ANY_ARCH = "any"
ARCHS = ("x86_64", "aarch64", "armv7l", "armv6l", "riscv64", "i686")
IMPLIED = ("load_bin", "run", "run.sh")
"""An executable of one of these names, or of the load's own, stands for a manifest."""

_ARCH_WORDS = {"amd64": "x86_64", "arm64": "aarch64", "armhf": "armv7l", "i386": "i686"}


def _inside(path: str) -> str:
    odd = path.startswith("/") or "\\" in path or "\0" in path
    return "outside the load" if odd or ".." in path.split("/") else ""


Entry = Annotated[
    str, Meta(min_length=1, max_length=1024, extra={"code": "path", "check": _inside})
]


class Platform(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is started where this fits; ``arch`` as ``uname -m`` says it."""

    entry: Entry
    os: Token = "linux"
    arch: Token = ANY_ARCH


class Needs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a place must have."""

    tools: Annotated[tuple[Name, ...], Meta(max_length=64)] = ()
    kind: Name | Literal[""] = ""
    slots: Annotated[int, Meta(ge=1, le=1024)] = 1


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A load as its author describes it."""

    name: Name
    version: Name
    platforms: Annotated[tuple[Platform, ...], Meta(min_length=1, max_length=64)]
    description: Text = ""
    interpreter: CommandWords = ()  # put before the entry: ["python3"]
    args: Annotated[tuple[Text, ...], Meta(max_length=256)] = ()  # put behind it
    params: dict[Name, Param] = {}
    metrics: Annotated[tuple[MetricInfo, ...], Meta(max_length=1000)] = ()
    results: Annotated[tuple[ResultFile, ...], Meta(max_length=32)] = ()
    scrape: Annotated[tuple[Scrape, ...], Meta(max_length=8)] = ()
    namespace: str = ""
    needs: Needs = Needs()
    runs: Literal["host", "dut"] | UnsetType = UNSET
    setup: CommandWords = ()  # on the same place, before the entry
    cleanup: CommandWords = ()  # after it, whatever happened
    deterministic: bool = False  # takes a seed, and equal seeds give equal bytes

    def entry(self, os: str, arch: str) -> Platform | None:
        """Return what to start on this platform; a named architecture goes before ``any``."""
        fitting = [each for each in self.platforms if each.os == os]
        exact = [each for each in fitting if each.arch == arch]
        return next(iter(exact or [each for each in fitting if each.arch == ANY_ARCH]), None)

    def argv(self, platform: Platform) -> tuple[str, ...]:
        """Return the command line, with the entry relative to the load's directory."""
        return (*self.interpreter, platform.entry, *self.args)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Return (os, arch) of every platform there is an entry for."""
        return tuple(
            dict.fromkeys(
                (each.os, arch)
                for each in self.platforms
                for arch in (ARCHS if each.arch == ANY_ARCH else (each.arch,))
            )
        )


class ResolvedLoad(msgspec.Struct, frozen=True, kw_only=True):
    """A load of a profile, once its source has become bytes with a digest."""

    ref: LoadRef
    manifest: Manifest


def read_manifest(raw: bytes, name: str = FILE) -> Manifest:
    """Return the manifest that `raw`, a file called `name`, holds.

    Raises:
        Invalid: with every problem, each with its path and line.

    """
    document = read_document(raw, name, kind="manifest")
    findings = Findings(document)
    manifest = convert(
        document.data, Manifest, findings, lambda made: check_manifest(made, findings)
    )
    return _canonical(manifest)


def implied_manifest(name: str, executables: Collection[str]) -> Manifest:
    """Return the manifest of a tree without ``load.toml``, from the executables at its top.

    Raises:
        Refused: code ``manifest_missing``: none of them says what to start.

    """
    entry = next((each for each in (*IMPLIED, name) if each in executables), None)
    if entry is None:
        what = f"a tree without {FILE} is no load"
        fix = f"add {FILE}, or an executable named {', '.join(IMPLIED)} or {name!r}"
        raise Refused("", what, fix, code="manifest_missing")
    return Manifest(name=name, version="0", platforms=(Platform(entry=entry),))


def implied_text(executables: Collection[str]) -> bytes | None:
    """Return the manifest that stands for one of `executables` at the top of a tree; None: none."""
    entry = next((each for each in IMPLIED if each in executables), None)
    if entry is None:
        return None
    return f'name = "load"\nversion = "0"\n[[platforms]]\nentry = "{entry}"\n'.encode()


def check_manifest(manifest: Manifest, findings: Findings) -> None:
    """Note what is wrong between the parts of `manifest`."""
    namespace = _key(manifest.namespace, ("namespace",), findings) if manifest.namespace else ""
    if namespace.partition(".")[0] in RESERVED:
        findings.add("metric_key", ("namespace",), f"{namespace!r} belongs to the agent")
    seen: set[str] = set()
    for number, info in enumerate(manifest.metrics):
        key = _check_metric(info, namespace, ("metrics", number), findings)
        if key in seen:
            findings.add("duplicate_key", ("metrics", number), f"{key!r} is declared twice")
        seen.add(key)
    for number, result in enumerate(manifest.results):
        _check_prefix(result.prefix, namespace, ("results", number, "prefix"), findings)
    for number, scrape in enumerate(manifest.scrape):
        _check_prefix(scrape.prefix, namespace, ("scrape", number, "prefix"), findings)
    for name, param in manifest.params.items():
        check_default(param, ("params", name), findings)


def _canonical(manifest: Manifest) -> Manifest:
    replace = msgspec.structs.replace
    return replace(
        manifest,
        namespace=metric_key(manifest.namespace) if manifest.namespace else "",
        metrics=tuple(replace(info, key=metric_key(info.key)) for info in manifest.metrics),
        platforms=tuple(
            replace(each, arch=_ARCH_WORDS.get(each.arch, each.arch)) for each in manifest.platforms
        ),
    )


def _check_metric(info: MetricInfo, namespace: str, at: At, findings: Findings) -> str:
    key = _key(info.key, (*at, "key"), findings)
    if key and not is_below(key, namespace):
        what = f"{key!r} is not below {namespace!r}" if namespace else f"{key!r} is of the agent"
        findings.add("metric_key", (*at, "key"), what)
    if info.unit not in UNITS:
        try:
            unit(info.unit)
        except BadQuantity as bad:
            findings.add(bad.code, (*at, "unit"), bad.what, bad.fix)
    return key or info.key


def _check_prefix(prefix: str, namespace: str, at: At, findings: Findings) -> None:
    key = _key(prefix, at, findings) if prefix else ""
    if key and not is_below(key, namespace):
        what = f"{key!r} is not below {namespace!r}" if namespace else f"{key!r} is of the agent"
        findings.add("metric_key", at, what)


def _key(text: str, at: At, findings: Findings) -> str:
    try:
        return metric_key(text)
    except LabError as refused:
        findings.add(refused.code, at, refused.what, refused.fix)
        return ""
