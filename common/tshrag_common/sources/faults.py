"""What can be wrong with a source, an archive or a digest: leaves of the error tree."""

from tshrag_common.errors import Refused, Unavailable, shown


class UrlDenied(Refused):
    """A source that may not be used: its scheme, its host, its path."""

    code = "url_denied"


class RefInvalid(Refused):
    """Text that can be no branch, tag or commit."""

    code = "ref_invalid"


class RefNotFound(Refused):
    """The repository is there, the branch, tag or commit is not."""

    code = "ref_not_found"

    def __init__(self, ref: str, url: str, fix: str = "") -> None:
        super().__init__("", f"{shown(ref)} at {url}", fix)
        self.ref, self.url = ref, url


class SourceNotFound(Refused):
    """There is no repository, archive or directory at that place."""

    code = "source_not_found"


class SourceRefused(Refused):
    """The place is there but does not let us in, or what it gives cannot be taken."""

    code = "source_refused"


class SourceUnreachable(Unavailable):
    """The place of a source does not answer."""

    code = "source_unreachable"


class DigestInvalid(Refused):
    """Text that is no sha256."""

    code = "sha256_invalid"


class DigestMismatch(Refused):
    """The bytes are not those that were asked for; nothing was started with them."""

    code = "sha256_mismatch"

    def __init__(self, want: str, got: str) -> None:
        super().__init__("", f"want {want} got {got}")
        self.want, self.got = want, got


class ArchiveBroken(Refused):
    """Bytes that are no whole archive."""

    code = "archive"


class ArchiveLink(Refused):
    """A symbolic or hard link: a load holds regular files and directories only."""

    code = "archive_link"

    def __init__(self, name: str, target: str) -> None:
        super().__init__("", f"{shown(name)} -> {shown(target)}", "store the file itself")


class ArchiveKind(Refused):
    """A device, a fifo, a socket, a submodule."""

    code = "archive_kind"

    def __init__(self, name: str, kind: str) -> None:
        super().__init__("", f"{shown(name)} is {kind}", "a load holds files and directories only")


class ArchiveName(Refused):
    """A name that leads outside, appears twice, or breaks what reads it."""

    code = "archive_name"

    def __init__(self, name: str, what: str) -> None:
        super().__init__("", f"{shown(name)} {what}")


class ArchiveLimit(Refused):
    """More than a load may have."""

    code = "archive_limit"


class ManifestMissing(Refused):
    """A tree without load.toml is no load."""

    code = "manifest_missing"
