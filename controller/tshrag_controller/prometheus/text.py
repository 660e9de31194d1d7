"""PURE. Families of numbers as the text that Prometheus scrapes."""

import re
from collections.abc import Iterable, Mapping

import msgspec

TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = tuple[tuple[str, str], ...]
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_]")


class Family(msgspec.Struct, frozen=True, array_like=True):
    """One name with its type and help, and a value for each set of labels."""

    name: str
    kind: str  # gauge or counter
    help: str
    values: tuple[tuple[Labels, float], ...]


def one(name: str, help_: str, value: float, kind: str = "gauge") -> Family:
    return Family(name, kind, help_, (((), float(value)),))


def by(
    label: str, name: str, help_: str, values: Mapping[str, float], kind: str = "gauge"
) -> Family:
    """Return a family with one label."""
    rows = tuple((((label, each),), float(value)) for each, value in sorted(values.items()))
    return Family(name, kind, help_, rows)


def exposition(families: Iterable[Family]) -> str:
    """Return the text; a family without values is left out."""
    lines: list[str] = []
    for each in families:
        if not each.values:
            continue
        lines.append(f"# HELP {each.name} {_escaped(each.help, quotes=False)}")
        lines.append(f"# TYPE {each.name} {each.kind}")
        lines += [f"{each.name}{_labels(labels)} {_number(value)}" for labels, value in each.values]
    return "\n".join(lines) + "\n"


def metric_name(key: str) -> str:
    """Return a key as Prometheus spells names: ``network.latency`` is tshrag_network_latency."""
    return "tshrag_" + _NOT_IN_NAMES.sub("_", key)


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(text: str, *, quotes: bool = True) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


def _number(value: float) -> str:
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1 << 53 else repr(value)
