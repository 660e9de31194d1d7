"""Loads that lie on this machine: packed here, uploaded by digest, what is there is not sent."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tshrag_common import requests as r
from tshrag_common.client import Client
from tshrag_common.documents import Document, read_document
from tshrag_common.errors import Invalid, LabError, Problem
from tshrag_common.findings import Findings
from tshrag_common.manifest import read_manifest
from tshrag_common.profile import Profile
from tshrag_common.reading import profile_of, read_profile
from tshrag_common.sources.address import Address, parse
from tshrag_common.sources.policy import LOCAL, SourceLimits
from tshrag_common.sources.resolve import MANIFEST, Resolved, resolve
from tshrag_common.sources.upload import upload
from tshrag_controller.cli.documents import read_file
from tshrag_controller.cli.progress import Progress


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A profile as its author has it, and where relative paths of it begin."""

    document: Document
    profile: Profile
    folder: Path

    @property
    def json(self) -> msgspec.Raw:
        return msgspec.Raw(msgspec.json.encode(self.document.data))

    def placed(self, invalid: Invalid) -> Invalid:
        """Return what the controller found wrong, with file and line of this document."""
        findings = Findings(self.document)
        findings.add_all(invalid.problems)
        return Invalid(findings.problems)


def read_draft(name: str) -> Draft:
    """Read the profile in file `name`.

    Raises:
        Refused: the file cannot be read.
        Invalid: with every problem of it.

    """
    raw = read_file(name)
    read_profile(raw, name)
    document = read_document(raw, name)
    folder = Path(name).absolute().parent
    return Draft(document=document, profile=profile_of(document.data), folder=folder)


async def hand_in(client: Client, draft: Draft, progress: Progress) -> dict[str, r.LocalLoad]:
    """Pack the local loads of a profile, upload what the lab has not; return them by name.

    Raises:
        Invalid: what is wrong with each of them.

    """
    local = local_loads(draft)
    if not local:
        return {}
    with tempfile.TemporaryDirectory(prefix="tshrag-") as workdir:
        packed = await _packed(draft, local, Path(workdir), progress)
        digests = tuple({each.digest for each in packed.values()})
        there = (await client.blob_has(digests)).digests
        for name, load in packed.items():
            if load.digest not in there:
                await _upload(client, name, load, progress)
                there = (*there, load.digest)
    return {
        name: r.LocalLoad(
            source=load.source, digest=load.digest, size_bytes=load.size_bytes, commit=load.commit
        )
        for name, load in packed.items()
    }


def local_loads(draft: Draft) -> dict[str, Address]:
    """Return the loads of a profile that lie here, their paths made absolute."""
    found: dict[str, Address] = {}
    for name, source in draft.profile.loads.items():
        if not source.path:
            continue
        address = parse(source.path, source.sha256 or "")
        if address.kind != "builtin" and not address.is_remote:
            location = str(draft.folder / address.location)
            found[name] = msgspec.structs.replace(address, location=location)
    return found


async def _packed(
    draft: Draft, local: Mapping[str, Address], workdir: Path, progress: Progress
) -> dict[str, Resolved]:
    packed: dict[str, Resolved] = {}
    problems: list[Problem] = []
    for name, address in local.items():
        progress.say(f"packing {name}")
        try:
            load = await resolve(address, workdir / str(len(packed)), SourceLimits(), LOCAL, {})
            read_manifest(load.manifest_bytes, f"{address.location}/{MANIFEST}")
            packed[name] = load
        except Invalid as invalid:
            problems += invalid.problems
        except LabError as error:
            what = f"{error.where}: {error.what}" if error.where else error.what
            where = f"loads.{name}.path"
            fault = Problem(code=error.code, where=where, what=what, fix=error.fix)
            problems += draft.placed(Invalid([fault])).problems
    if problems:
        raise Invalid(problems)
    return packed


async def _upload(client: Client, name: str, load: Resolved, progress: Progress) -> None:
    async def put(digest: str, offset: int, total: int, data: bytes) -> int:
        asked = r.BlobPut(digest=digest, offset=offset, total=total, data=data)
        stored = (await client.blob_put(asked)).stored
        progress.advance(f"uploading {name}", stored, total)
        return stored

    await upload(Path(load.packed_path), load.digest, put)
