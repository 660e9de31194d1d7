"""Documents without a lab."""

import json
from pathlib import Path

from tests.support.command_line import run_cli

BAD = """\
name: x
schedule:
  sequence:
    - {commnd: "true"}
    - {load: iperf}
criteria:
  latency: {metric: "net::latency::avg", max: 150parsec}
"""


def test_all_problems_of_all_files_are_named_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(BAD)
    (tmp_path / "b.json").write_text("{")
    done = run_cli("validate", "a.yaml", "b.json", "nix.toml", cwd=tmp_path)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert any(line.startswith("unknown_field: a.yaml:4") and "command" in line for line in lines)
    assert any("a.yaml:7" in line and "parsec" in line for line in lines)
    assert any("b.json:1" in line for line in lines)
    assert "file: nix.toml: no such file or directory" in lines


def test_a_good_file_is_good(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"name": "a", "schedule": {"command": "true"}}')
    done = run_cli("validate", "a.json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "1 file: no problems\n")


def test_problems_are_records_for_programs(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(BAD)
    done = run_cli("validate", "--json", "a.yaml", cwd=tmp_path)
    assert done.returncode == 2
    problems = json.loads(done.stdout)["problems"]
    assert {problem["line"] for problem in problems} >= {4, 7}


def test_what_stands_in_a_file_does_not_reach_the_terminal_raw(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"name": "a", "schedule": {"\\u001b[2J\\u202e": 1}}')
    done = run_cli("validate", "a.json", cwd=tmp_path)
    assert done.returncode == 2
    assert "\x1b" not in done.stderr
    assert "\u202e" not in done.stderr


def test_schemas_are_json(tmp_path: Path) -> None:
    for kind, title in (("profile", "tshrag profile"), ("load", "tshrag load manifest")):
        assert json.loads(run_cli("schema", kind).stdout)["title"] == title


def test_a_profile_that_is_wrong_is_refused_before_any_lab_is_asked(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(BAD)
    done = run_cli("submit", "a.yaml", "--url", "nats://127.0.0.1:1", cwd=tmp_path)
    assert done.returncode == 2
    assert "a.yaml:4" in done.stderr
    assert "cannot reach" not in done.stderr
