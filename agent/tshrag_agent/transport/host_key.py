"""The pinned host keys of a DUT as OpenSSH writes them; no SSH library is needed for that."""

from pathlib import Path

from tshrag_agent.transport.ways import SshWay
from tshrag_common.errors import Refused, shown

_KINDS = ("ssh-", "ecdsa-", "sk-")


def pinned_keys(way: SshWay) -> tuple[str, ...]:
    """Return each pinned key as ``TYPE BASE64``, with its marker (``@cert-authority``) if any.

    Raises:
        Refused: the file cannot be read, or holds no key (``config``).

    """
    is_text = " " in way.host_key.strip()
    try:
        text = way.host_key if is_text else Path(way.host_key).expanduser().read_text()
    except (OSError, ValueError) as error:
        what = f"host_key {shown(way.host_key)} cannot be read: {error}"
        raise Refused(way.where, what, "pin the DUT's key", code="config") from error
    found = tuple(key for key in map(_key, text.splitlines()) if key)
    if not found:
        raise Refused(way.where, "host_key holds no key", "pin the DUT's key", code="config")
    return found


def _key(line: str) -> str:
    words = line.split()
    begin = next((n for n, word in enumerate(words) if word.startswith(_KINDS)), None)
    if begin is None or len(words) < begin + 2:
        return ""
    marker = [words[0]] if words[0].startswith("@") else []
    return " ".join([*marker, *words[begin : begin + 2]])
