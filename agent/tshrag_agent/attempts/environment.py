"""PURE: the environment of a job: a small clean base, the names of the lab, what the profile adds.

Nothing of the agent's own environment is in it. ``${TSHRAG_…}`` in values of the profile and in
its working directory is replaced by what this attempt has; any other ``${NAME}`` stays as written.
"""

import re
from collections.abc import Mapping, Sequence

import msgspec

from tshrag_common.commands import StartAttempt
from tshrag_common.ids import AgentId
from tshrag_common.jobs import JobSpec

_NAME = re.compile(r"\$\{(TSHRAG_[A-Z_]+|SIM_SEED|CHAOS_SEED)\}")

BASE = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Where an attempt finds things, as paths of the machine on which it is executed."""

    home: str
    run_dir: str
    job_dir: str
    params: str
    store: str
    cache: str = ""
    metrics: str = ""  # the socket for samples; empty where there is none
    http: str = ""


def lab_names(start: StartAttempt, spec: JobSpec, agent: AgentId, places: Places) -> dict[str, str]:
    """Return the variables that the lab itself sets."""
    names = {
        "TSHRAG_STORE": places.store,
        "TSHRAG_CACHE": places.cache,
        "TSHRAG_HOST": places.http,
        "TSHRAG_TEST_ID": start.run,
        "TSHRAG_RUN_ID": start.run,
        "TSHRAG_TEST_DIR": places.run_dir,
        "TSHRAG_TEST_MACHINE": ";".join(start.run_hosts or (agent,)),
        "TSHRAG_TEST_DEVICE": ";".join(start.run_duts or ((start.dut,) if start.dut else ())),
        "TSHRAG_JOB_ID": start.job,
        "TSHRAG_JOB_DIR": places.job_dir,
        "TSHRAG_JOB_MACHINE": agent,
        "TSHRAG_JOB_DEVICE": start.dut or "",
        "TSHRAG_ATTEMPT": str(start.attempt),
        "TSHRAG_LEVEL": str(spec.level),
        "TSHRAG_PARAMS": places.params,
        "TSHRAG_METRICS": places.metrics,
        "SIM_SEED": str(start.seed),
        "CHAOS_SEED": str(start.seed),
    }
    return {name: value for name, value in names.items() if value or name in _ALWAYS}


def environment(
    start: StartAttempt, spec: JobSpec, agent: AgentId, places: Places
) -> dict[str, str]:
    """Return all that a process of the attempt finds in its environment."""
    names = lab_names(start, spec, agent, places)
    added = {**spec.env, **start.env}
    env = {**BASE, "HOME": places.home, "PWD": places.job_dir}
    env |= {name: expanded(value, names) for name, value in added.items()}
    return env | names


def expanded(text: str, names: Mapping[str, str]) -> str:
    """Replace ``${NAME}`` of the lab's own names."""
    if "${" not in text:
        return text
    return _NAME.sub(lambda found: names.get(found[1], found[0]), text)


def main_words(spec: JobSpec, argv: Sequence[str], names: Mapping[str, str]) -> tuple[str, ...]:
    """Return what is executed: in a command of the profile the lab's own names are put in."""
    if spec.kind != "command":
        return tuple(argv)
    return tuple(expanded(word, names) for word in argv)


def working_directory(spec: JobSpec, names: Mapping[str, str], job_dir: str) -> str:
    """Return where the job begins: its directory, or what the profile says below it."""
    cwd = expanded(spec.cwd, names)
    if not cwd or cwd.startswith("/"):
        return cwd or job_dir
    return f"{job_dir}/{cwd}"


_ALWAYS = ("TSHRAG_JOB_DEVICE", "TSHRAG_TEST_DEVICE", "TSHRAG_LEVEL")
