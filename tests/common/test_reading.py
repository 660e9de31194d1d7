import json
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from tshrag_common.errors import Invalid
from tshrag_common.profile import Profile, canonical, decoded, digest
from tshrag_common.reading import profile_of, read_profile

EXAMPLES = Path(__file__).parents[2] / "configs" / "profiles"

words = st.sampled_from(
    ["name", "schedule", "execution", "loads", "criteria", "report", "targets", "seq", "sequence",
     "par", "cmd", "load", "sleep", "nop", "repeat", "matrix", "times", "of", "axes", "needs",
     "env", "path", "metric", "max", "a", "x", "duration", "limits", "timeout", "version"]
)  # fmt: skip
leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["10m", "a", "x", "${a}", "150ms", "net::lat::avg", "git@h:x.git#v1", 1, 2])
)  # fmt: skip
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=5),
    max_leaves=25,
)


def steps(depth: int = 3) -> st.SearchStrategy[dict[str, object]]:
    """Draw steps that are right, so that the rooms behind the model are reached too."""
    name = {"name": st.sampled_from(["a", "b", "c"])}
    needs = {"needs": st.lists(st.sampled_from(["a", "b", "c"]), max_size=2)}
    leaf = st.sampled_from([{"cmd": "true"}, {"nop": None}, {"sleep": "1s"}, {"comment": "x"}])
    some = st.fixed_dictionaries({}, optional={**name, **needs})
    if not depth:
        return st.builds(lambda kind, more: {**kind, **more}, leaf, some)
    below = st.lists(steps(depth - 1), min_size=1, max_size=3)
    kind = (
        leaf
        | st.builds(lambda of: {"seq": of}, below)
        | st.builds(lambda of: {"par": of}, below)
        | st.builds(lambda of, n: {"repeat": {"times": n, "of": of[0]}}, below, st.integers(1, 3))
    )
    return st.builds(lambda kind, more: {**kind, **more}, kind, some)


def refusal(profile: object, name: str = "") -> list[str]:
    with pytest.raises(Invalid) as refused:
        read_profile(json.dumps(profile).encode(), name)
    return [str(problem) for problem in refused.value.problems]


def a_step(**fields: object) -> dict[str, object]:
    return {"name": "x", "schedule": {"sequence": [{"cmd": "true", **fields}]}}


def refused_step(**fields: object) -> str:
    with pytest.raises(Invalid) as refused:
        profile_of(a_step(**fields))
    return str(refused.value)


def test_the_example_of_the_document_is_accepted_as_it_stands() -> None:
    profile = read_profile((EXAMPLES / "network_stress.json").read_bytes(), "network_stress.json")
    assert profile.name == "network_stress_test"
    assert profile.loads["traffic_gen"].path == "git@repo:tools/iperf-module.git#v3.1"
    assert profile.schedule.steps[0].params == {"duration": 600}
    assert profile.criteria["latency"].max == "150ms"


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_every_example_is_a_profile_and_keeps_its_digest(path: Path) -> None:
    profile = read_profile(path.read_bytes(), path.name)
    again = read_profile(canonical(profile))
    assert again == decoded(canonical(profile)) == profile
    assert digest(again) == digest(profile)


def test_one_profile_in_three_formats_has_one_digest() -> None:
    texts = {
        "a.json": '{"name": "x", "schedule": {"seq": [{"cmd": "true", "timeout": "1m"}]}}',
        "a.yaml": "name: x\nexecution:\n  sequence:\n    - command: 'true'\n      timeout: 60\n",
        "a.toml": 'name = "x"\n[[schedule.seq]]\ncmd = "true"\ntimeout = "60s"\n',
    }
    profiles = [read_profile(text.encode(), name) for name, text in texts.items()]
    assert len({digest(profile) for profile in profiles}) == 1


def test_row_8_a_misspelt_field_is_named_with_its_path_and_the_nearest_word() -> None:
    assert refused_step(timout="10m") == (
        "unknown_field: schedule.sequence[0].timout; did you mean 'timeout'?"
    )


def test_a_problem_says_file_line_and_the_words_of_its_author() -> None:
    text = b"name: x\nexecution:\n  seq:\n    - cmd: 'true'\n      timout: 1m\n"
    with pytest.raises(Invalid) as refused:
        read_profile(text, "lab.yaml")
    assert str(refused.value) == (
        "unknown_field: lab.yaml:5: execution.seq[0].timout; did you mean 'timeout'?"
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("no", "expected a duration like '10m', got 'no'"),
        (True, "expected a duration like '10m', got a boolean"),
        ("1:30", "expected a duration like '10m', got '1:30'; write '90s'"),
        ("012", "expected a duration like '10m', got '012'; write '12s'"),
    ],
)
def test_rows_9_and_10_what_is_no_duration_is_said(given: object, said: str) -> None:
    assert refused_step(timeout=given) == f"type: schedule.sequence[0].timeout: {said}"


@pytest.mark.parametrize("given", [0, -5, 1e999, float("nan"), "8d"])
def test_row_11_a_timeout_has_its_range(given: object) -> None:
    said = refused_step(timeout=given)
    assert said.startswith("range: schedule.sequence[0].timeout: 1s..7d")


def test_row_11_holds_in_every_format() -> None:
    for name, text in (
        ("a.json", '{"name": "x", "schedule": {"cmd": "true", "timeout": NaN}}'),
        ("a.yaml", "name: x\nschedule:\n  cmd: 'true'\n  timeout: .inf"),
        ("a.toml", 'name = "x"\n[schedule]\ncmd = "true"\ntimeout = nan'),
    ):
        with pytest.raises(Invalid, match=r"^range: .*schedule\.timeout: 1s\.\.7d"):
            read_profile(text.encode(), name)


def test_row_12_another_version_is_all_that_is_said() -> None:
    assert refusal({"version": 99, "nme": "x"}) == ["version: profile 99, supported 1"]


@pytest.mark.parametrize("name", ["*", "a>b", "a b", "a/b", "a\0b", "x" * 300, "", "Böard", "a\n"])
def test_row_14_a_name_that_would_become_a_token_is_refused(name: str) -> None:
    found = refusal({**a_step(), "targets": {name: {}}})
    assert len(found) == 1
    assert found[0].startswith("name: targets[") or len(name) == 300
    assert "must match ^[a-z0-9][a-z0-9_-]{0,62}$, got " in found[0]


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 201, "a\nb", "\x1b[31m"])
def test_row_14_a_shown_name_is_printable_and_not_long(name: str) -> None:
    assert refusal({**a_step(), "name": name})[0].startswith("name: name: ")


@pytest.mark.parametrize("name", ["stress * > / test", "Prüfung 3", "a.b.c", "x" * 200])
def test_a_shown_name_is_kept_verbatim(name: str) -> None:
    assert profile_of({**a_step(), "name": name}).name == name


def test_row_17_a_dut_named_twice_is_refused() -> None:
    board = {"board": {"duts": ["rpi4", "rpi5", "rpi4"]}}
    assert refusal({**a_step(), "targets": board}) == ["duplicate_dut: targets.board.duts: rpi4"]
    both = {"a": {"duts": ["rpi4"]}, "b": {"duts": ["rpi4"]}}
    assert refusal({**a_step(), "targets": both}) == [
        "duplicate_dut: targets.b.duts: rpi4, which 'a' has for the whole run"
    ]


def test_row_18_a_gang_has_a_limit() -> None:
    targets = {f"role{number}": {"kind": "rpi4"} for number in range(1000)}
    assert refusal({**a_step(), "targets": targets}) == ["limit: targets: gang <= 64"]


def test_row_19_steps_that_wait_for_each_other_are_named() -> None:
    schedule = {"par": [
        {"name": "a", "cmd": "x", "needs": ["b"]}, {"name": "b", "cmd": "y", "needs": ["a"]},
    ]}  # fmt: skip
    assert refusal({"name": "x", "schedule": schedule}) == ["cycle: a -> b -> a"]


def test_row_20_an_unknown_step_is_named_with_the_nearest() -> None:
    schedule = {"seq": [{"name": "flash", "cmd": "x"}, {"cmd": "y", "needs": ["flsh"]}]}
    assert refusal({"name": "x", "schedule": schedule}) == [
        "unknown_dependency: schedule.seq[1].needs[0]: 'flsh'; did you mean 'flash'?"
    ]


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("a\0b", "holds a NUL"),
        (["a", "b\0"], "holds a NUL"),
        ([], "1..1000 entries, got 0"),
        ("", "is empty"),
        ("''", "is empty"),
        ("a 'b", "no closing quotation"),
    ],
)
def test_row_21_a_command_that_cannot_be_started_is_refused(command: object, what: str) -> None:
    found = refusal({"name": "x", "schedule": {"sequence": [{"command": command}]}})
    assert found[0].startswith("command: schedule.sequence[0].command")
    assert found[0].endswith(f": {what}")


@pytest.mark.parametrize("name", ["TSHRAG_JOB_ID", "TSHRAG_X", "LD_PRELOAD"])
def test_row_22_variables_of_the_lab_are_its_own(name: str) -> None:
    said = f"env.{name}: the lab sets it, no profile may"
    assert refusal({**a_step(), "env": {name: "1"}}) == [f"env_reserved: {said}"]
    assert refused_step(env={name: "1"}) == f"env_reserved: schedule.sequence[0].{said}"


def test_row_22_a_variable_is_a_name() -> None:
    assert refused_step(env={"A=B": "1"}).startswith(
        "env_reserved: schedule.sequence[0].env['A=B']"
    )


@pytest.mark.parametrize("cwd", ["../../etc", "a/../../b", "~", "~root"])
def test_row_24_a_directory_outside_is_refused(cwd: str) -> None:
    assert refused_step(cwd=cwd) == "path: schedule.sequence[0].cwd: outside the job directory"


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("ext::sh -c x", "url_denied: loads.a.path: scheme: "),
        ("http://user:pw@host/x.git#v1", "url_denied: loads.a.path: host: "),
        ("--upload-pack=x", "url_denied: loads.a.path: scheme: "),
        ("git@host:x.git#--help", "ref_invalid: loads.a.path: "),
        ("git@host:x.git#" + "a" * 39, "ref_invalid: loads.a.path: "),
        ("https://host/x.tar.gz", "url_denied: loads.a.path: sha256: "),
    ],
)
def test_rows_25_and_26_a_source_with_a_trap_is_refused(source: str, code: str) -> None:
    profile = {**a_step(), "loads": {"a": {"path": source}}}
    assert refusal(profile)[0].startswith(code)


def test_all_problems_are_named_at_once() -> None:
    found = refusal({
        "name": "x",
        "schedul": {},
        "schedule": {"seq": [
            {"lod": "a"}, {"load": "b", "cmd": "x"}, {"nop": None, "params": {"a": 1}},
            {"load": "gone", "target": "bord", "attempts": 0, "timout": 1}, {"name": "empty"},
        ]},
        "targets": {"board": {"runtime": "shh"}},
        "criteria": {"c": {"metric": "a b", "max": "1 parsec"}},
    })  # fmt: skip
    assert [problem.split(": ")[:2] for problem in found] == [
        ["unknown_field", "schedul; did you mean 'schedule'?"],
        ["unknown_field", "schedule.seq[0].lod; did you mean 'load'?"],
        ["kind", "schedule.seq[1]"],
        ["range", "schedule.seq[3].attempts"],
        ["unknown_field", "schedule.seq[3].timout; did you mean 'timeout'?"],
        ["kind", "schedule.seq[4]"],
        ["choice", "targets.board.runtime"],
        ["kind", "schedule.seq[2].params"],
        ["unknown_load", "schedule.seq[3].load"],
        ["unknown_target", "schedule.seq[3].target"],
        ["metric_key", "criteria.c.metric"],
        ["unit", "criteria.c.max"],
    ]


def test_missing_fields_are_named_together() -> None:
    assert refusal({"description": "x"}) == ["missing: Missing required field(s): name, schedule"]
    assert refusal({"name": "x", "schedule": {"repeat": {}}}) == [
        "missing: schedule.repeat: Missing required field(s): times, of"
    ]


def test_two_words_for_one_section_are_refused() -> None:
    both = {"name": "x", "schedule": {"nop": None}, "execution": {"nop": None}}
    assert refusal(both) == [
        "duplicate_key: 'execution' is another word for 'schedule', which is there too; "
        "keep one of them"
    ]
    criteria = {"c": {"metric": "a.b", "max": 1}}
    twice = {**a_step(), "criteria": criteria, "report": {"criteria": criteria}}
    assert refusal(twice)[0].startswith("duplicate_key: report.criteria: 'report' holds criteria")


def test_criteria_in_the_report_are_the_criteria() -> None:
    report = {"criteria": {"c": {"metric": "a.b", "max": 1}}, "formats": ["md"]}
    profile = profile_of({**a_step(), "report": report})
    assert profile.criteria["c"].metric == "a.b"
    assert profile.report and not profile.report.criteria
    with pytest.raises(Invalid, match=r"^unit: report\.criteria\.c\.max: "):
        profile_of({**a_step(), "report": {"criteria": {"c": {"metric": "a.b", "max": "1 x"}}}})


def test_a_number_where_text_is_wanted_is_to_be_quoted() -> None:
    said = "type: env.PORT: expected text, got 80; write '80' in quotes"
    assert refusal({**a_step(), "env": {"PORT": 80}}) == [said]


def test_problems_beyond_a_hundred_are_counted() -> None:
    found = refusal({**a_step(), **{f"odd{number}": 1 for number in range(150)}})
    assert len(found) == 101
    assert found[-1] == "more: and 50 more problems"


def test_more_jobs_than_a_run_may_have_are_refused_without_being_made() -> None:
    inner = {"repeat": {"times": 10_000, "of": {"nop": None}}}
    found = refusal({"name": "x", "schedule": {"repeat": {"times": 10_000, "of": inner}}})
    assert found == ["limit: schedule: 100000000 jobs > 10000"]


@given(anything)
@settings(max_examples=300)
def test_any_value_is_a_profile_or_a_list_of_problems(value: object) -> None:
    try:
        assert isinstance(profile_of(value), Profile)
    except Invalid as refused:
        assert refused.problems
        assert "\n" not in "".join(map(str, refused.problems))


@given(steps(), st.dictionaries(words, anything, max_size=2))
@settings(max_examples=300)
def test_a_tree_of_steps_is_a_profile_or_a_list_of_problems(
    schedule: dict[str, object], more: dict[str, object]
) -> None:
    try:
        profile = profile_of({**more, "name": "x", "schedule": schedule})
    except Invalid as refused:
        assert refused.problems
        return
    assert read_profile(canonical(profile)) == profile
