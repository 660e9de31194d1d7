from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from tshrag_common.errors import Invalid
from tshrag_common.jobs import JobSpec, LoadRef, Plan, PlannedJob
from tshrag_common.manifest import Manifest, ResolvedLoad, read_manifest
from tshrag_common.reading import profile_of
from tshrag_common.schedule import count_jobs
from tshrag_controller.core.dag import is_ordered
from tshrag_controller.core.plan import plan

LOAD = b"""
name = "iperf"
version = "3.1"
namespace = "network"
[[platforms]]
entry = "run"
[params.duration]
type = "integer"
default = 60
min = 1
[params.target]
type = "text"
[[metrics]]
key = "network::latency"
unit = "ms"
"""

leaves = st.sampled_from(
    [{"cmd": "true"}, {"cmd": "echo ${TSHRAG_REPEAT} ${A}"}, {"nop": None}, {"sleep": "1s"}]
)
extras = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["a", "b"]),
        "needs": st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=1),
        "env": st.sampled_from([{"A": "1"}, {"A": "${A}${TSHRAG_REPEAT}"}]),
    },
)
trees = st.recursive(
    st.builds(lambda leaf, more: {**leaf, **more}, leaves, extras),
    lambda below: st.builds(
        lambda kind, more: {**kind, **more},
        st.builds(lambda of: {"seq": of}, st.lists(below, min_size=1, max_size=3))
        | st.builds(lambda of: {"par": of}, st.lists(below, min_size=1, max_size=4))
        | st.builds(
            lambda of, times, lanes: {"repeat": {"times": times, "of": of, "parallel": lanes}},
            below, st.integers(1, 4), st.sampled_from([True, False, 2]),
        )
        | st.builds(
            lambda of, axis: {"matrix": {"axes": {"A": axis, "B": [1, 2]}, "of": of}},
            below, st.lists(st.integers(0, 3), min_size=1, max_size=2),
        ),
        extras,
    ),
    max_leaves=12,
)  # fmt: skip


def a_load(manifest: Manifest | None = None) -> ResolvedLoad:
    ref = LoadRef(name="iperf", digest="0" * 64, source="git@repo:x.git#v1")
    return ResolvedLoad(ref=ref, manifest=manifest or read_manifest(LOAD))


def plan_of(schedule: object, **more: object) -> Plan:
    loads = {"iperf": {"path": "git@repo:x.git#v1"}, **more.pop("loads", {})}  # type: ignore[dict-item]  # of a test
    profile = profile_of({"name": "x", "schedule": schedule, "loads": loads, **more})
    return plan(profile, {"iperf": a_load()})


def refusal(schedule: object, **more: object) -> list[str]:
    with pytest.raises(Invalid) as refused:
        plan_of(schedule, **more)
    return [str(problem) for problem in refused.value.problems]


def after(made: Plan) -> dict[str, list[str]]:
    names = {job.serial: job.name for job in made.jobs}
    return {job.name: [names[each] for each in job.after] for job in made.jobs}


def spec(made: Plan, name: str) -> JobSpec:
    return next(made.specs[job.spec] for job in made.jobs if job.name == name)


def job(made: Plan, name: str) -> PlannedJob:
    return next(each for each in made.jobs if each.name == name)


def test_a_sequence_is_a_chain() -> None:
    made = plan_of({"seq": [{"name": "a", "cmd": "x"}, {"comment": "y"}, {"cmd": "z"}]})
    assert after(made) == {
        "*seq.a": [], "*seq.*comment": ["*seq.a"], "*seq.*cmd": ["*seq.*comment"],
    }  # fmt: skip


def test_a_parallel_is_joined_by_what_follows() -> None:
    made = plan_of({"name": "s", "seq": [{"par": [{"cmd": "x"}, {"cmd": "y"}]}, {"cmd": "z"}]})
    assert after(made) == {
        "s.*par.*cmd": [], "s.*par.*cmd#2": [], "s.*cmd": ["s.*par.*cmd", "s.*par.*cmd#2"],
    }  # fmt: skip


def test_many_after_many_meet_in_a_barrier() -> None:
    many = {"repeat": {"times": 100, "parallel": True, "of": {"cmd": "x"}}}
    made = plan_of({"seq": [many, many]})
    assert len(made.jobs) == 201
    assert sum(len(each.after) for each in made.jobs) == 200
    barrier = job(made, "*seq.*repeat#2.*join")
    assert made.specs[barrier.spec] == JobSpec(kind="nop")


def test_lanes_bound_how_many_copies_run_side_by_side() -> None:
    made = plan_of({"repeat": {"times": 5, "parallel": 2, "of": {"cmd": "x"}}})
    assert [each.after for each in made.jobs] == [(), (), (1,), (2,), (3,)]


def test_a_step_comes_after_all_of_what_it_needs_even_if_that_stands_later() -> None:
    made = plan_of({"par": [
        {"name": "a", "cmd": "x", "needs": ["b"]},
        {"name": "b", "par": [{"cmd": "y"}, {"cmd": "z"}]},
    ]})  # fmt: skip
    assert after(made)["*par.a"] == ["*par.b.*cmd", "*par.b.*cmd#2"]
    assert [each.serial for each in made.jobs] == [1, 2, 3]


def test_in_a_copy_the_step_of_the_same_copy_is_needed() -> None:
    body = {"par": [{"name": "a", "cmd": "x"}, {"name": "b", "cmd": "y", "needs": ["a"]}]}
    made = plan_of({"name": "r", "repeat": {"times": 2, "parallel": True, "of": body}})
    assert after(made)["r[1].b"] == ["r[1].a"]
    assert after(made)["r[2].b"] == ["r[2].a"]


def test_distribution_comes_before_all_of_the_schedule() -> None:
    made = plan_of({"par": [{"cmd": "x"}, {"cmd": "y"}]}, distribution={"cmd": "flash"})
    assert after(made)["*par.*cmd#2"] == ["distribution.*cmd"]


def test_an_env_sees_what_is_around_it_and_not_itself() -> None:
    made = plan_of(
        {"env": {"A": "1", "B": "${A}${OUT}"}, "seq": [
            {"cmd": "echo ${A} ${B} ${NONE}", "env": {"A": "2", "C": "${A}-${TSHRAG_JOB_ID}"}},
            {"comment": "${A} ${C}"},
        ]},
        env={"OUT": "o"},
    )  # fmt: skip
    command = spec(made, "*seq.*cmd")
    assert command.env == {"OUT": "o", "A": "2", "B": "${A}o", "C": "1-${TSHRAG_JOB_ID}"}
    assert command.argv == ("echo", "2", "${A}o", "${NONE}")
    assert spec(made, "*seq.*comment").text == "1 ${C}"


def test_a_value_with_spaces_stays_one_word() -> None:
    made = plan_of({"cmd": "echo ${A} '${A} b'", "env": {"A": "x; rm -rf y"}})
    assert made.specs[0].argv == ("echo", "x; rm -rf y", "x; rm -rf y b")


def test_directories_are_joined_and_an_absolute_one_replaces() -> None:
    made = plan_of({"cwd": "a", "seq": [
        {"name": "b", "cwd": "b/c", "cmd": "x"}, {"name": "d", "cwd": "/d", "cmd": "x"},
        {"name": "e", "cmd": "x"},
    ]})  # fmt: skip
    assert [spec(made, f"*seq.{name}").cwd for name in "bde"] == ["a/b/c", "/d", "a"]


def test_what_a_container_says_holds_for_its_steps() -> None:
    made = plan_of(
        {"timeout": "5m", "on_fail": "continue", "seq": [
            {"name": "a", "cmd": "x"},
            {"name": "b", "cmd": "x", "timeout": 7, "attempts": 1, "on_fail": "stop"},
        ]},
        limits={"attempts": 2, "timeout": "1h", "output": "1MiB"},
    )  # fmt: skip
    first, second = spec(made, "*seq.a"), spec(made, "*seq.b")
    assert (first.timeout_s, first.attempts, first.on_fail) == (300.0, 2, "continue")
    assert (second.timeout_s, second.attempts, second.on_fail) == (7.0, 1, "stop")
    assert first.output_bytes == 1 << 20
    assert plan_of({"cmd": "x"}, tolerant=True).specs[0].on_fail == "continue"


def test_equal_jobs_share_a_spec_and_keep_what_differs() -> None:
    made = plan_of({"repeat": {"times": 3, "of": {"cmd": "x"}}})
    assert len(made.specs) == 1
    assert [each.env for each in made.jobs] == [{"TSHRAG_REPEAT": str(n)} for n in (1, 2, 3)]
    assert [each.name for each in made.jobs] == ["*repeat[1]", "*repeat[2]", "*repeat[3]"]
    named = plan_of({"repeat": {"times": 2, "of": {"cmd": "echo ${TSHRAG_REPEAT}"}}})
    assert [each.argv for each in named.specs] == [("echo", "1"), ("echo", "2")]


def test_axes_keep_their_types_in_params() -> None:
    step = {"load": "iperf", "params": {"duration": "${size}", "target": "${size}-${way}"}}
    made = plan_of({"matrix": {"axes": {"size": [1, 2], "way": ["up"]}, "of": step}})
    assert [each.params for each in made.specs] == [
        {"duration": 1, "target": "1-up"}, {"duration": 2, "target": "2-up"},
    ]  # fmt: skip
    assert made.jobs[0].name == "*matrix[1,up]"
    assert made.jobs[1].env == {"TSHRAG_REPEAT": "2", "size": "2", "way": "up"}


def test_what_a_step_sets_itself_is_not_set_again_by_its_copy() -> None:
    body = {"cmd": "echo ${A}", "env": {"A": "own-${A}"}}
    made = plan_of({"matrix": {"axes": {"A": ["axis"]}, "of": body}})
    assert made.specs[0].env == {"A": "own-axis"}
    assert made.specs[0].argv == ("echo", "own-axis")
    assert "A" not in job(made, "*matrix[axis]").env


def test_a_sleep_takes_seconds_text_durations_and_variables() -> None:
    for written, wanted in ((5, 5.0), ("0.5", 0.5), ("1m30s", 90.0), ("${PAUSE}", 2.0)):
        made = plan_of({"sleep": written}, env={"PAUSE": "2"})
        assert made.specs[0].sleep_s == wanted
    assert refusal({"sleep": "${NONE}"})[0].startswith("type: schedule.sleep: expected a duration")


def test_a_load_gets_defaults_metrics_and_namespace_from_its_manifest() -> None:
    made = plan_of({"load": "iperf", "params": {"target": "a"}, "level": 3})
    found = made.specs[0]
    assert found.kind == "load"
    assert found.load is not None and found.load.digest == "0" * 64
    assert found.params == {"target": "a", "duration": 60}
    assert (found.level, found.namespace) == (3, "network")
    assert [info.key for info in found.metrics] == ["network.latency"]


def test_params_are_checked_against_the_manifest_all_at_once() -> None:
    assert refusal({"seq": [
        {"load": "iperf", "params": {"duration": 0}}, {"load": "iperf", "params": {"durati": 1}},
    ]}) == [
        "range: schedule.sequence[0].params.duration: at least 1, got 0",
        "unknown_param: schedule.sequence[1].params.durati; did you mean 'duration'?",
    ]  # fmt: skip


def test_a_command_that_stands_for_a_load_sees_its_params() -> None:
    loads = {"ping": {"command": "ping -c ${count} ${PEER}"}}
    step = {"load": "ping", "params": {"count": 3}}
    made = plan_of(step, loads=loads, env={"PEER": "a b"})
    assert made.specs[0].kind == "command"
    assert made.specs[0].argv == ("ping", "-c", "3", "a b")
    assert made.specs[0].params == {"count": 3}


def test_a_command_that_becomes_empty_is_refused() -> None:
    assert refusal({"seq": [{"cmd": "${A}"}]}, env={"A": ""}) == [
        "command: schedule.sequence[0].command: is empty or holds a NUL"
    ]


def test_without_a_target_a_job_goes_to_any_host() -> None:
    need = plan_of({"cmd": "x"}).specs[0].need
    assert (need.role, need.target.runtime, need.slots) == ("", "host", 1)


def test_a_target_holds_for_all_below_it() -> None:
    targets = {"board": {"kind": "rpi4", "labels": {"rack": "b"}}, "pc": {"hosts": ["lab1"]}}
    made = plan_of(
        {"target": "board", "seq": [{"name": "a", "cmd": "x"},
                                    {"name": "b", "cmd": "x", "target": "pc"}]},
        targets=targets,
    )  # fmt: skip
    first, second = spec(made, "*seq.a").need, spec(made, "*seq.b").need
    assert (first.role, first.target.runtime, first.target.kind) == ("board", "dut", "rpi4")
    assert (second.role, second.target.runtime, second.target.hosts) == ("pc", "host", ("lab1",))


def manifest(**fields: object) -> ResolvedLoad:
    base = msgspec.to_builtins(read_manifest(LOAD))
    return a_load(msgspec.convert({**base, **fields}, Manifest))


def test_a_load_for_duts_implies_a_role() -> None:
    profile = profile_of({"name": "x", "schedule": {"load": "a"}, "loads": {"a": {"path": "./a"}}})
    need = plan(profile, {"a": manifest(runs="dut", needs={"kind": "rpi4"})}).specs[0].need
    assert (need.role, need.target.runtime, need.target.kind) == ("dut-rpi4", "dut", "rpi4")


def test_all_jobs_of_a_kept_role_ask_for_the_same() -> None:
    profile = profile_of({
        "name": "x",
        "loads": {"a": {"path": "./a"}, "b": {"path": "./b"}},
        "targets": {"board": {"runtime": "ssh"}},
        "schedule": {"target": "board", "seq": [{"load": "a"}, {"load": "b"}, {"cmd": "c"}]},
    })  # fmt: skip
    loads = {
        "a": manifest(needs={"kind": "rpi4", "tools": ["x"]}),
        "b": manifest(needs={"tools": ["y"]}, platforms=[{"entry": "run", "arch": "aarch64"}]),
    }
    needs = [each.need for each in plan(profile, loads).specs]
    assert all(need == needs[0] for need in needs)
    assert needs[0].target.kind == "rpi4"
    assert needs[0].tools == ("x", "y")
    assert needs[0].platforms == (("linux", "aarch64"),)


@pytest.mark.parametrize(
    ("runs", "needs", "said"),
    [
        ("host", {}, "load 'iperf' runs on the host, target 'board' does not"),
        ("dut", {"kind": "rpi5"}, "load 'iperf' needs kind 'rpi5', target 'board' is 'rpi4'"),
    ],
)
def test_a_load_on_a_target_that_it_cannot_use_is_refused(
    runs: str, needs: dict[str, object], said: str
) -> None:
    profile = profile_of({
        "name": "x", "loads": {"a": {"path": "./a"}}, "targets": {"board": {"kind": "rpi4"}},
        "schedule": {"load": "a", "target": "board"},
    })  # fmt: skip
    with pytest.raises(Invalid, match=said):
        plan(profile, {"a": manifest(runs=runs, needs=needs)})


def test_a_plan_too_large_for_one_frame_is_refused() -> None:
    step = {"cmd": "x", "name": "n" * 190}
    said = refusal({"repeat": {"times": 4000, "of": step}})[0]
    assert said.startswith("limit: schedule: its plan is ")


def test_ten_thousand_repeats_fit() -> None:
    made = plan_of({"repeat": {"times": 10_000, "of": {"cmd": "/bin/true"}}})
    assert len(made.jobs) == 10_000
    assert len(made.specs) == 1


@given(trees)
@settings(max_examples=300)
def test_a_plan_is_a_graph_in_order_with_unique_names(schedule: dict[str, object]) -> None:
    try:
        profile = profile_of({"name": "x", "schedule": schedule})
        made = plan(profile, {})
    except Invalid as refused:
        assert {each.code for each in refused.problems} <= {
            "cycle", "unknown_dependency", "ambiguous_dependency",
        }  # fmt: skip
        return
    assert [each.serial for each in made.jobs] == list(range(1, len(made.jobs) + 1))
    assert is_ordered({each.serial: each.after for each in made.jobs})
    assert all(each.after == tuple(sorted(set(each.after))) for each in made.jobs)
    assert max(Counter(each.name for each in made.jobs).values()) == 1
    assert len({msgspec.msgpack.encode(each) for each in made.specs}) == len(made.specs)
    barriers = sum(1 for each in made.jobs if each.name.rpartition(".")[2] == "*join")
    assert len(made.jobs) - barriers == count_jobs(profile.schedule)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=Plan) == made


@given(trees)
def test_the_same_profile_has_the_same_plan(schedule: dict[str, object]) -> None:
    try:
        profile = profile_of({"name": "x", "schedule": schedule})
    except Invalid:
        return
    assert plan(profile, {}) == plan(profile, {})
