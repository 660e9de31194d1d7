"""PURE: the document of a profile -> a Profile, or every problem of it at once.

First the text (documents), then the fields (strict), then what one part says of another: names of
loads, targets and steps, criteria, sources. Nothing here looks outside the document.
"""

from collections.abc import Mapping

import msgspec
from msgspec import UnsetType

from tshrag_common.actions import Expect
from tshrag_common.console_patterns import pattern_fault
from tshrag_common.criteria import Criterion
from tshrag_common.criteria_compile import compile_criteria, compile_criterion
from tshrag_common.documents import Document, read_document
from tshrag_common.errors import Invalid, LabError, Problem, did_you_mean, shown
from tshrag_common.findings import Findings
from tshrag_common.jobs import MAX_JOBS
from tshrag_common.needs import needed_steps
from tshrag_common.positions import At
from tshrag_common.profile import MAX_ROLES, VERSION, Profile, ReportOptions
from tshrag_common.schedule import Kind, Matrix, Step, count_jobs, walk
from tshrag_common.sources.address import parse
from tshrag_common.strict import convert

_GUARDED: tuple[Kind, ...] = (
    "load", "command", "shell", "power", "boot", "send", "expect", "bootloader", "upload",
    "download", "flash",
)  # fmt: skip
_ONLY_WITH: Mapping[str, tuple[Kind, ...]] = {
    "params": ("load", "command"),
    "level": ("load", "command"),
    "when": _GUARDED,
    "until": _GUARDED,
    "abort": _GUARDED,
}
_GUARDS = ("when", "until", "abort")


def read_profile(raw: bytes, name: str = "") -> Profile:
    """Return the profile that `raw`, a file called `name`, holds.

    Raises:
        Invalid: with every problem, each with its path and line.

    """
    document = read_document(raw, name)
    return _checked(document.data, Findings(document))


def profile_of(data: object) -> Profile:
    """Return the profile that plain `data` is; raise Invalid with every problem."""
    return _checked(data, Findings())


def _checked(data: object, findings: Findings) -> Profile:
    _check_version(data, findings)
    profile = convert(data, Profile, findings, lambda made: check_profile(made, findings))
    return _one_place_for_criteria(profile)


def _check_version(data: object, findings: Findings) -> None:
    said = data.get("version", VERSION) if isinstance(data, dict) else VERSION
    if isinstance(said, int) and not isinstance(said, bool) and said != VERSION:
        findings.add("version", (), f"profile {said}, supported {VERSION}")
        findings.check()


def check_profile(profile: Profile, findings: Findings) -> None:
    """Note what is wrong between the parts of `profile`."""
    roots: list[tuple[At, Step]] = [(("schedule",), profile.schedule)]
    if profile.distribution:
        roots.append((("distribution",), profile.distribution))
    for at, root in roots:
        for here, step in walk(root, at):
            _check_step(profile, here, step, findings)
        needed_steps(root, at, findings)
        total = count_jobs(root)
        if total > MAX_JOBS:
            findings.add("limit", at, f"{total} jobs > {MAX_JOBS}")
    _check_sources(profile, findings)
    _check_targets(profile, findings)
    _check_criteria(profile, findings)


def _check_step(profile: Profile, at: At, step: Step, findings: Findings) -> None:
    if step.load and step.load not in profile.loads:
        near = did_you_mean(step.load, profile.loads) or "name it in 'loads'"
        findings.add("unknown_load", (*at, "load"), shown(step.load), near)
    source = step.upload or step.flash
    if source and source.load not in profile.loads:
        near = did_you_mean(source.load, profile.loads) or "name it in 'loads'"
        findings.add("unknown_load", (*at, step.kind, "load"), shown(source.load), near)
    if step.expect and not isinstance(step.expect, str):
        _check_expect(step.expect, (*at, "expect"), findings)
    if step.target and step.target not in profile.targets:
        near = did_you_mean(step.target, profile.targets) or "name it in 'targets'"
        findings.add("unknown_target", (*at, "target"), shown(step.target), near)
    for field, kinds in _ONLY_WITH.items():
        if getattr(step, field) and step.kind not in kinds:
            what = f"a {step.kind} has no {field}"
            findings.add("kind", (*at, field), what, f"it goes with {' or '.join(kinds)}")
    _check_guards(step, at, findings)
    if step.matrix:
        _check_exclude(step, step.matrix, (*at, "matrix", "exclude"), findings)


def _check_guards(step: Step, at: At, findings: Findings) -> None:
    for field in _GUARDS:
        guard: Criterion | UnsetType = getattr(step, field)
        if guard:
            _check_guard(guard, (*at, field), findings)


def _check_guard(guard: Criterion, at: At, findings: Findings) -> None:
    """Note what cannot be judged while samples come; loads are not known here."""
    try:
        made = compile_criterion("guard", guard)
    except Invalid as invalid:
        for problem in invalid.problems:
            findings.add(problem.code, at, problem.what, problem.fix)
        return
    if not made.is_live:
        what = "a comparison, or a number across groups, is judged at the end only"
        findings.add("bounds", at, what)


def _check_expect(expect: Expect, at: At, findings: Findings) -> None:
    if not expect.text and not expect.regex:
        findings.add("missing", at, "there is nothing to wait for", "add text or regex")
    for name in ("regex", "death"):
        for number, source in enumerate(getattr(expect, name)):
            fault = pattern_fault(source)
            if fault and "${" not in source:
                findings.add("bad_pattern", (*at, name, number), *fault)


def _check_exclude(step: Step, matrix: Matrix, at: At, findings: Findings) -> None:
    for number, rule in enumerate(matrix.exclude):
        for name in sorted(rule.keys() - matrix.axes.keys()):
            near = did_you_mean(name, matrix.axes) or f"axes: {', '.join(matrix.axes)}"
            findings.add("unknown_field", (*at, number, name), "", near)
    if not count_jobs(step):
        findings.add("range", at, "leaves no combination")


def _check_sources(profile: Profile, findings: Findings) -> None:
    for name, source in profile.loads.items():
        if not source.path:
            continue
        try:
            parse(source.path, source.sha256 or "")
        except LabError as refused:
            what = f"{refused.where}: {refused.what}" if refused.where else refused.what
            findings.add(refused.code, ("loads", name, "path"), what, refused.fix)


def _check_targets(profile: Profile, findings: Findings) -> None:
    if len(profile.targets) > MAX_ROLES:
        findings.add("limit", ("targets",), f"gang <= {MAX_ROLES}")
    held: dict[str, str] = {}  # DUT -> role that can have no other
    for name, role in profile.targets.items():
        at: At = ("targets", name)
        for dut in sorted({dut for dut in role.duts if role.duts.count(dut) > 1}):
            findings.add("duplicate_dut", (*at, "duts"), dut)
        if role.runtime == "host" and (role.kind or role.duts):
            findings.add("target", at, "a host has no kind and no DUTs", "give it another runtime")
        if len(role.duts) == 1 and role.hold == "run":
            dut = role.duts[0]
            if dut in held:
                what = f"{dut}, which '{held[dut]}' has for the whole run"
                findings.add("duplicate_dut", (*at, "duts"), what)
            held.setdefault(dut, name)


def _check_criteria(profile: Profile, findings: Findings) -> None:
    inside = profile.report.criteria if profile.report else {}
    if inside and profile.criteria:
        what = "'report' holds criteria, and 'criteria' is there too"
        findings.add("duplicate_key", ("report", "criteria"), what, "keep one of them")
    for criteria, under in ((profile.criteria, ()), (inside, ("report",))):
        try:
            compile_criteria(criteria)
        except Invalid as invalid:
            findings.add_all(invalid.problems, under)


def _one_place_for_criteria(profile: Profile) -> Profile:
    report = profile.report
    if not report or not report.criteria:
        return profile
    rest: ReportOptions = msgspec.structs.replace(report, criteria={})
    return msgspec.structs.replace(profile, criteria=report.criteria, report=rest)


def validate_profile(document: Document) -> list[Problem]:
    """Return every problem of a document that is a profile."""
    findings = Findings(document)
    try:
        _checked(document.data, findings)
    except Invalid as invalid:
        return list(invalid.problems)
    return []
