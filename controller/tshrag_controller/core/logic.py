"""PURE: criteria over criteria, in three values: pass, fail, and error for what is not known.

``all``: one fail decides, else one error; ``any``: one pass decides, else one error; ``not`` turns
pass and fail around, and an error stays one.
"""

from tshrag_common.criteria import CompiledCriterion, Evidence, Verdict

_TURNED: dict[Verdict, Verdict] = {"pass": "fail", "fail": "pass", "error": "error"}


def combined(criterion: CompiledCriterion, parts: tuple[Evidence, ...]) -> Evidence:
    """Return the evidence of a criterion from that of its parts."""
    verdict = _verdict(criterion.logic, [part.verdict for part in parts])
    decisive = [part for part in parts if _decides(criterion.logic, verdict, part)]
    said = "; ".join(f"{part.criterion}: {part.reason}" for part in decisive[:3])
    words = {"all": "all must hold", "any": "one must hold", "not": "it must not hold"}
    return Evidence(
        criterion=criterion.name,
        metric="",
        statistic=criterion.logic,
        verdict=verdict,
        reason=f"{words[criterion.logic]}: {said}" if said else words[criterion.logic],
        marginal=verdict == "pass" and any(part.marginal for part in decisive),
        severity=criterion.severity,
        samples=sum(part.samples for part in parts),
        parts=parts,
    )


def _verdict(logic: str, found: list[Verdict]) -> Verdict:
    if logic == "not":
        return _TURNED[found[0]]
    first: Verdict = "fail" if logic == "all" else "pass"
    if first in found:
        return first
    return "error" if "error" in found else _TURNED[first]


def _decides(logic: str, verdict: Verdict, part: Evidence) -> bool:
    return part.verdict == (_TURNED[verdict] if logic == "not" else verdict)
