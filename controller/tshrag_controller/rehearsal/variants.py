"""PURE: which scheduler is tried: the lab's own, a plainer one, or other weights."""

import msgspec
from msgspec.structs import fields, replace

from tshrag_common.errors import Refused, did_you_mean
from tshrag_controller.core.policy import Policy

NAMES = {
    "lab": "as the table [scheduler] of LAB.toml says",
    "fifo": "first come, first served: no priorities, shares or groups",
    "no-groups": "every job makes its own setup",
    "no-shares": "what an org has used does not count",
}


class Variant(msgspec.Struct, frozen=True):
    """A policy, and what of the work it is shown."""

    name: str
    policy: Policy
    groups: bool = True
    priorities: bool = True


def variant_of(text: str, lab: Policy) -> Variant:
    """Return what ``NAME``, ``KEY=VALUE`` or ``NAME,KEY=VALUE,…`` means in a lab with this policy.

    Raises:
        Refused: there is no such name or weight, or it is no number within its bounds.

    """
    words = [word.strip() for word in text.split(",")]
    name = words.pop(0) if "=" not in words[0] else "lab"
    if name not in NAMES:
        fix = did_you_mean(name, NAMES) or f"known: {', '.join(NAMES)}, or KEY=VALUE"
        raise Refused("--policy", f"no policy {name!r}", fix, code="policy")
    plain = {"share_points": 0.0, "setup_points": 0.0} if name == "fifo" else {}
    plain |= {"share_points": 0.0} if name == "no-shares" else {}
    policy = replace(lab, **plain, **dict(_weight(word) for word in words))
    try:
        msgspec.convert(msgspec.to_builtins(policy), Policy)
    except msgspec.ValidationError as error:
        raise Refused(
            "--policy", str(error), "see [scheduler] in the settings", code="policy"
        ) from None
    return Variant(
        text, policy, groups=name not in ("fifo", "no-groups"), priorities=name != "fifo"
    )


def _weight(word: str) -> tuple[str, float]:
    key, _, value = word.partition("=")
    known = {field.name: field.default for field in fields(Policy) if _is_number(field)}
    if key not in known:
        fix = did_you_mean(key, known) or f"known: {', '.join(known)}"
        raise Refused("--policy", f"no weight {key!r}", fix, code="policy")
    try:
        return key, int(value) if isinstance(known[key], int) else float(value)
    except ValueError:
        raise Refused("--policy", f"{key} is {value!r}, no number", code="policy") from None


def _is_number(field: object) -> bool:
    return type(getattr(field, "default", None)) in (int, float)
