"""PURE: a step that is a job -> its JobSpec, with every variable in its place."""

import shlex
from collections.abc import Mapping

import msgspec
from msgspec import UNSET

from tshrag_common.criteria import CompiledCriterion
from tshrag_common.criteria_compile import compile_criterion
from tshrag_common.errors import Invalid, shown
from tshrag_common.fields import sleep_s
from tshrag_common.findings import Findings
from tshrag_common.jobs import JobKind, JobSpec, Need, Setup
from tshrag_common.manifest import ResolvedLoad
from tshrag_common.params import fill
from tshrag_common.positions import At
from tshrag_common.profile import Profile
from tshrag_common.schedule import BOARD, Step
from tshrag_common.units import BadQuantity
from tshrag_controller.core.actions import action_of, expanded
from tshrag_controller.core.scopes import Core, Scope, expand, expand_value, is_static

BARRIER = JobSpec(kind="nop")


class Specs:
    """The different specs of a plan; equal jobs share one. O(1) for a step without variables."""

    def __init__(
        self,
        profile: Profile,
        loads: Mapping[str, ResolvedLoad],
        needs: Mapping[int, Need],
        findings: Findings,
        setup: Setup | None = None,
    ) -> None:
        self.all: list[JobSpec] = []
        self._profile = profile
        self._loads = loads
        self._needs = needs
        self._findings = findings
        self._setup = setup
        self._known: dict[bytes, int] = {}
        self._static: dict[int, bool] = {}
        self._made: dict[tuple[int, int], tuple[int, Core]] = {}
        self._words: dict[int, tuple[str, ...]] = {}

    def index(self, step: Step, at: At, scope: Scope) -> int:
        """Return the number of the spec that `step` has in `scope`."""
        own = id(step)
        if own not in self._static:
            texts = (step.command or "", step.comment or "", step.sleep or "", step.params)
            board = msgspec.to_builtins(action_of(step))
            self._static[own] = is_static(*texts, step.shell or "", board, self._inline(step))
        if not self._static[own]:
            return self.add(self._guarded(self._spec(step, at, scope), step, at))
        key = (own, id(scope.core))
        if key not in self._made:  # the core is kept too: its id stays its own
            self._made[key] = (
                self.add(self._guarded(self._spec(step, at, scope), step, at)),
                scope.core,
            )
        return self._made[key][0]

    def add(self, spec: JobSpec) -> int:
        """Return the number of `spec`; an equal one has the same."""
        key = msgspec.msgpack.encode(spec, order="deterministic")
        if key not in self._known:
            self._known[key] = len(self.all)
            self.all.append(spec)
        return self._known[key]

    def _spec(self, step: Step, at: At, scope: Scope) -> JobSpec:
        on_fail = scope.core.on_fail
        if step.kind == "load":
            return self._load(step, at, scope)
        if step.kind == "command":
            return self._command(step, at, scope)
        if step.kind == "shell":
            argv = ("sh", "-c", expand(step.shell or "", scope))
            return msgspec.structs.replace(self._placed("command", step, scope, {}), argv=argv)
        if step.kind in BOARD:
            return self._board(step, at, scope)
        if step.kind == "comment":
            return JobSpec(kind="comment", text=expand(step.comment or "", scope), on_fail=on_fail)
        if step.kind == "sleep":
            return JobSpec(kind="sleep", sleep_s=self._pause(step, at, scope), on_fail=on_fail)
        return BARRIER

    def _guarded(self, spec: JobSpec, step: Step, at: At) -> JobSpec:
        """Add the conditions on samples that let a job start or end it."""
        guards = {"when": step.when, "until": step.until, "abort": step.abort}
        made: dict[str, CompiledCriterion] = {}
        known = [info for load in self._loads.values() for info in load.manifest.metrics]
        for name, guard in guards.items():
            if guard:
                try:
                    made[name] = compile_criterion(name, guard, known)
                except Invalid as invalid:
                    for problem in invalid.problems:
                        self._findings.add(problem.code, (*at, name), problem.what, problem.fix)
        return msgspec.structs.replace(spec, **made) if made else spec

    def _load(self, step: Step, at: At, scope: Scope) -> JobSpec:
        if self._inline(step):
            return self._command(step, at, scope)
        resolved = self._loads.get(step.load or "")
        if resolved is None:
            what = f"{shown(step.load or '')} is not resolved"
            self._findings.add("unknown_load", (*at, "load"), what)
            return BARRIER
        manifest = resolved.manifest
        given = params_of(step, scope)
        params = fill(manifest.params, given, (*at, "params"), self._findings)
        return msgspec.structs.replace(
            self._placed("load", step, scope, params),
            load=resolved.ref,
            namespace=manifest.namespace,
            metrics=manifest.metrics,
            results=manifest.results,
            scrape=manifest.scrape,
        )

    def _command(self, step: Step, at: At, scope: Scope) -> JobSpec:
        params = params_of(step, scope)
        argv = self._argv(step, at, scope, params)
        return msgspec.structs.replace(self._placed("command", step, scope, params), argv=argv)

    def _board(self, step: Step, at: At, scope: Scope) -> JobSpec:
        action = action_of(step)
        if action is None:
            return BARRIER
        try:
            action = expanded(action, scope)
        except msgspec.ValidationError as error:
            self._findings.add("value", (*at, step.kind), str(error))
        resolved = self._loads.get(action.load)
        if action.load and (resolved is None or resolved.ref.builtin):
            what = f"load {shown(action.load)} is no tree of files"
            self._findings.add("unknown_load", (*at, step.kind, "load"), what)
        return msgspec.structs.replace(
            self._placed("board", step, scope, {}),
            board=action,
            load=resolved.ref if resolved and action.load else None,
        )

    def _placed(
        self, kind: JobKind, step: Step, scope: Scope, params: dict[str, object]
    ) -> JobSpec:
        core, need = scope.core, self._needs[id(step)]
        freeze = self._profile.freeze if need.wants_dut else UNSET
        return JobSpec(
            freeze_s=freeze.for_s if freeze else 0.0,
            capture=freeze.capture if freeze else (),
            kind=kind,
            params=params,
            level=step.level,
            env=dict(core.env),
            cwd=core.cwd,
            need=need,
            setup=self._setup if need.group is not None and kind != "board" else None,
            timeout_s=core.timeout_s,
            attempts=core.attempts,
            on_fail=core.on_fail,
            output_bytes=int(self._profile.limits.output),
            disconnect_s=core.disconnect_s,
            on_crash=core.on_crash,
            expect_reboot=core.expect_reboot,
            retry_on=core.retry_on,
            retry_elsewhere=core.retry_elsewhere,
            preemptible=core.preemptible,
        )

    def _inline(self, step: Step) -> str | tuple[str, ...]:
        source = self._profile.loads.get(step.load) if step.load else None
        return (source.command or ()) if source else ()

    def _argv(
        self, step: Step, at: At, scope: Scope, params: Mapping[str, object]
    ) -> tuple[str, ...]:
        """Split first, then put variables in: a value with a space stays one word."""
        own = id(step)
        if own not in self._words:
            line = step.command or self._inline(step)
            self._words[own] = tuple(shlex.split(line)) if isinstance(line, str) else line
        words = tuple(expand(word, scope, params) for word in self._words[own])
        if not words or not words[0] or any("\0" in word for word in words):
            self._findings.add("command", (*at, step.kind), "is empty or holds a NUL")
        return words

    def _pause(self, step: Step, at: At, scope: Scope) -> float:
        given = step.sleep or 0.0
        try:
            return sleep_s(expand(given, scope)) if isinstance(given, str) else given
        except BadQuantity as bad:
            self._findings.add(bad.code, (*at, "sleep"), bad.what, bad.fix)
            return 0.0


def params_of(step: Step, scope: Scope) -> dict[str, object]:
    """Return the params of a step; they see the variables around them, not each other."""
    return {name: expand_value(each, scope) for name, each in step.params.items()}


def what_it_does(spec: JobSpec) -> str:
    """Return one line for people: what a job does."""
    match spec.kind:
        case "load":
            params = " ".join(f"{name}={value}" for name, value in spec.params.items())
            return f"{spec.load.name if spec.load else ''} {params}".strip()[:200]
        case "command":
            return " ".join(spec.argv)[:200]
        case "board" if spec.board:
            return spec.board.said[:200]
        case "sleep":
            return f"sleep {spec.sleep_s:g} s"
        case _:
            return spec.text[:200]
