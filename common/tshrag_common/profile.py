"""PURE: what people submit: loads, a schedule, targets, criteria, limits.

A profile is immutable and strict. ``digest`` of its canonical form is its version; names are kept
as they were written.
"""

import hashlib
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tshrag_common.actions import Freeze
from tshrag_common.criteria import Criterion
from tshrag_common.fields import (
    Amount,
    CommandLine,
    CommandWords,
    ConditionText,
    Disconnect,
    EnvName,
    LongTimeout,
    Name,
    OutputSize,
    Sha256,
    Sleep,
    Text,
    Timeout,
    Token,
)
from tshrag_common.jobs import Target, Way
from tshrag_common.schedule import Retries, Step

VERSION = 1
MAX_ROLES = 64

Names = Annotated[tuple[Token, ...], Meta(max_length=64)]
Conditions = Annotated[tuple[ConditionText, ...], Meta(max_length=32)]
Resources = Annotated[dict[Token, Amount], Meta(max_length=16)]
Consumed = Annotated[int, Meta(ge=1, le=10_000)]
Labels = Annotated[dict[Name, Text], Meta(max_length=64)]
ReportFormat = Literal["table", "md", "json", "junit", "html"]


class LoadSource(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a load comes from, or a command that stands for one."""

    KINDS: ClassVar[tuple[str, ...]] = ("path", "command")

    path: Annotated[str, Meta(min_length=1, max_length=2048)] | UnsetType = UNSET
    command: CommandLine | CommandWords | UnsetType = UNSET
    sha256: Sha256 | UnsetType = UNSET  # of the file of an archive


class Role(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A target under the name that steps use. Kind or DUTs without a runtime: any way to a DUT."""

    runtime: Way | UnsetType = UNSET
    kind: Name | Literal[""] = ""
    labels: Labels = {}
    duts: Names = ()
    hosts: Names = ()
    hold: Literal["run", "job"] = "run"
    where: Conditions = ()
    resources: Resources = {}
    consumes: Annotated[dict[Token, Consumed], Meta(max_length=16)] = {}

    @property
    def target(self) -> Target:
        wanted: Way = "dut" if self.kind or self.duts else "host"
        return Target(
            runtime=self.runtime or wanted,
            kind=self.kind,
            labels=self.labels,
            duts=self.duts,
            hosts=self.hosts,
            hold=self.hold,
            where=self.where,
        )


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Bounds of a run and of its jobs; a step may say its own timeout and attempts."""

    duration: LongTimeout | UnsetType = UNSET  # of the run, from its first job
    timeout: Timeout = 1800.0  # of a job, from the start of an attempt
    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    output: OutputSize = 64.0 * 2**20  # bytes of each output stream of a job
    disconnect: Disconnect | UnsetType = UNSET  # of a job, without the bus; unset: by what it holds
    preemptible: bool = False  # jobs may be ended for others of much higher priority


class ReportOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the run report is made; the criteria may stand here too."""

    criteria: dict[Token, Criterion] = {}
    title: Name | UnsetType = UNSET
    formats: tuple[ReportFormat, ...] = ()


class GroupOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which jobs share a setup, and how long they may go on at the cost of others.

    Without a key it is the label ``app_version_id``; without that too, nothing is shared.
    """

    key: Name | Literal[""] = ""
    max_jobs: Annotated[int, Meta(ge=1, le=10_000)] = 50
    max_runtime: LongTimeout | UnsetType = UNSET
    window: Sleep | UnsetType = UNSET
    linger: Sleep | UnsetType = UNSET  # before its teardown, behind its last job; unset: the lab's


class Profile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A test as a document."""

    WORDS: ClassVar[dict[str, str]] = {"execution": "schedule"}

    name: Name
    schedule: Step
    version: int = VERSION
    description: Text = ""
    loads: dict[Token, LoadSource] = {}
    distribution: Step | UnsetType = UNSET  # done before all of the schedule
    criteria: dict[Token, Criterion] = {}
    report: ReportOptions | UnsetType = UNSET
    targets: dict[Token, Role] = {}
    env: dict[EnvName, Text] = {}
    labels: Labels = {}
    limits: Limits = Limits()
    tolerant: bool = False  # a failed step stops nothing
    freeze: Freeze | UnsetType = UNSET
    stop: Literal["at_end", "when_decided"] = "at_end"
    setup: Step | UnsetType = UNSET  # of the DUT, once for all jobs of a group
    teardown: Step | UnsetType = UNSET  # when the group has ended, or before another has the DUT
    group: GroupOptions = GroupOptions()
    retries: Retries = Retries()  # of each job; a step may say its own


def canonical(profile: Profile) -> bytes:
    """Return the one form of `profile` in JSON; `decoded` reads it back."""
    return msgspec.json.encode(profile, order="deterministic")


def decoded(raw: bytes) -> Profile:
    """Return the profile of its canonical form, without asking again whether it is right."""
    return _DECODER.decode(raw)


def digest(profile: Profile) -> str:
    """Return the sha256 of the canonical form: the version of the profile."""
    return hashlib.sha256(canonical(profile)).hexdigest()


_DECODER = msgspec.json.Decoder(Profile)
