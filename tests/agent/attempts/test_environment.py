from tshrag_agent.attempts.environment import Places, environment, expanded, working_directory
from tshrag_common import ids
from tshrag_common.commands import StartAttempt
from tshrag_common.ids import DEFAULT_ORG, AgentId, DutId, Fence
from tshrag_common.jobs import JobSpec

RUN = ids.new_run(1, 1)
START = StartAttempt(
    fence=Fence(1), org=DEFAULT_ORG, run=RUN, job=ids.job_of(RUN, 1), attempt=2, name="job",
    spec=0, env={"TSHRAG_REPEAT": "3", "WHERE": "${TSHRAG_JOB_DIR}/x"}, dut=DutId("board"),
    run_hosts=("a1", "a2"), run_duts=("board", "other"),
)  # fmt: skip
PLACES = Places(home="/j", run_dir="/r", job_dir="/j", params="/j/p.json", store="/s")
SPEC = JobSpec(kind="command", level=7, env={"WHERE": "below", "LANG": "de", "X": "${HOME} $$"})
ENV = environment(START, SPEC, AgentId("a1"), PLACES)


def test_every_name_of_the_lab_is_there() -> None:
    expected = {
        "TSHRAG_STORE": "/s", "TSHRAG_TEST_ID": RUN, "TSHRAG_RUN_ID": RUN,
        "TSHRAG_TEST_DIR": "/r", "TSHRAG_TEST_MACHINE": "a1;a2",
        "TSHRAG_TEST_DEVICE": "board;other", "TSHRAG_JOB_ID": START.job, "TSHRAG_JOB_DIR": "/j",
        "TSHRAG_JOB_MACHINE": "a1", "TSHRAG_JOB_DEVICE": "board", "TSHRAG_ATTEMPT": "2",
        "TSHRAG_LEVEL": "7", "TSHRAG_PARAMS": "/j/p.json", "SIM_SEED": "4242",
        "CHAOS_SEED": "4242",
    }  # fmt: skip
    assert {name: ENV[name] for name in expected} == expected


def test_the_profile_overrides_the_base_but_not_the_lab() -> None:
    assert ENV["LANG"] == "de"
    spec = JobSpec(kind="command", env={"TSHRAG_ATTEMPT": "9"})
    assert environment(START, spec, AgentId("a1"), PLACES)["TSHRAG_ATTEMPT"] == "2"


def test_only_names_of_the_lab_are_replaced_and_the_planned_job_goes_before_its_spec() -> None:
    assert ENV["WHERE"] == "/j/x"
    assert ENV["X"] == "${HOME} $$"
    assert expanded("${TSHRAG_NOT_THERE}", ENV) == "${TSHRAG_NOT_THERE}"


def test_a_relative_directory_is_below_that_of_the_job() -> None:
    for cwd, expected in (("", "/j"), ("a/b", "/j/a/b"), ("/etc", "/etc"),
                          ("${TSHRAG_JOB_DIR}/c", "/j/c")):  # fmt: skip
        spec = JobSpec(kind="command", cwd=cwd)
        assert working_directory(spec, ENV, "/j") == expected
