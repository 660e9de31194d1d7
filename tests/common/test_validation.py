import json

import pytest

from tshrag_common.schedule import Step
from tshrag_common.validation import manifest_schema, profile_schema, validate_document


def test_a_file_is_judged_by_its_name() -> None:
    assert validate_document(b'{"name": "x", "schedule": {"nop": true}}', "a.json") == []
    found = validate_document(b'name = "x"\n', "loads/iperf/load.toml")
    assert [problem.code for problem in found] == ["missing"]
    assert found[0].file == "loads/iperf/load.toml"
    assert validate_document(b"", "load.toml")[0].code == "manifest_empty"


def test_problems_come_with_the_line_that_an_editor_can_jump_to() -> None:
    found = validate_document(b"name: x\nschedule:\n  lod: y\n", "lab.yaml")
    assert [str(problem) for problem in found] == [
        "unknown_field: lab.yaml:3: schedule.lod; did you mean 'load'?"
    ]


@pytest.mark.parametrize("make", [profile_schema, manifest_schema])
def test_the_schema_refuses_what_is_unknown(make: type) -> None:
    schema = make()
    json.dumps(schema)
    for name, part in schema["$defs"].items():
        if "properties" in part:
            assert part["additionalProperties"] is False, name


def test_the_schema_has_every_word_of_the_schedule_and_one_kind_a_step() -> None:
    step = profile_schema()["$defs"]["Step"]
    assert {"seq", "sequence", "par", "cmd", "needs"} <= step["properties"].keys()
    kinds = [each["required"][0] for each in step["allOf"][0]["oneOf"]]
    assert set(kinds) == {*Step.KINDS, *Step.WORDS}
    assert step["properties"]["timeout"]["type"] == ["number", "string"]
