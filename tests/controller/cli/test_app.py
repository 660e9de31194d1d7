"""The tree of commands: light, teaching, and one line for whatever a person did wrong."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from tests.support.command_line import run_cli
from tshrag_controller.cli import app as tree
from tshrag_controller.cli.options import Command, Moment, Priority, Seconds, Variable

HEAVY = ("nats", "rich", "msgspec", "nacl", "asyncio", "junitparser", "ruamel", "sqlite3")
MOST_MODULES = 190


def modules_of(*words: str) -> set[str]:
    """Return what a command line has imported, beside what Python itself does."""
    code = (
        "import sys; before = set(sys.modules); from tshrag_controller.cli import app; "
        f"app.invoke({list(words)!r}); "
        "sys.stderr.write('\\n'.join(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("words", [("version",), ("--help",), ("--version",)])
def test_what_needs_no_lab_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    found = modules_of(*words)
    assert not {name for name in found if name.partition(".")[0] in HEAVY}
    assert len(found) < MOST_MODULES, len(found)


def test_a_command_that_asks_nothing_of_a_lab_imports_no_bus() -> None:
    assert not {name for name in modules_of("schema", "profile") if name.startswith("nats")}


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Yield every command below `group` by the words that call it."""
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None, f"the table of commands names {name}, which is not there"
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


EVERY = dict(commands(tree.app))


@pytest.mark.parametrize("name", EVERY)
def test_every_command_teaches(name: str) -> None:
    command = EVERY[name]
    assert command.help
    if isinstance(command, Command):
        assert command.examples
        assert any(example.startswith("tshrag") for example in command.examples)
        for option in command.params:
            assert not isinstance(option, click.Option) or option.help or option.name == "limit"


@pytest.mark.parametrize("name", EVERY)
def test_every_command_has_help(name: str) -> None:
    done = invoked(*name.split(), "--help")
    assert done.exit_code == 0
    assert done.output.startswith("Usage:")


def test_the_examples_are_commands_that_exist() -> None:
    for command in EVERY.values():
        for example in getattr(command, "examples", ()):
            words = example.split()
            if words[0] == "tshrag" and words[1:]:
                assert words[1] in tree.COMMANDS, example


def test_the_short_help_of_the_table_ends_with_a_full_stop_and_fits_a_line() -> None:
    for about in (about for _, about in tree.COMMANDS.values()):
        assert about.endswith(".")
        assert len(about) < 66


def invoked(*words: str) -> Result:
    return CliRunner().invoke(tree.app, list(words))


def test_a_file_that_cannot_be_written_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def writes() -> None:
        Path("/proc/nowhere/a.png").write_text("")

    group = click.Group(commands={"writes": writes})
    assert tree.invoke_group(group, "tshrag", ["writes"]) == 2
    said = capsys.readouterr().err
    assert said == "file: /proc/nowhere/a.png: no such file or directory; name another file\n"


def test_an_unknown_command_names_the_nearest() -> None:
    done = run_cli("sumbit")
    assert done.returncode == 2
    assert "no command 'sumbit'; did you mean 'submit'?" in done.stderr
    assert done.stdout == ""


def test_no_command_at_all_prints_help_and_is_a_usage_error() -> None:
    done = run_cli()
    assert done.returncode == 2
    assert "Run a test:" in done.stderr


def test_no_lab_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    done = run_cli("list", state=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("no_lab: no lab is known on this machine; start one with")
    assert done.stderr.count("\n") == 1


def test_a_broker_that_is_down_is_one_line_and_unavailable(tmp_path: Path) -> None:
    done = run_cli("list", "--url", "nats://127.0.0.1:1", state=tmp_path)
    assert done.returncode == 3
    assert done.stderr.startswith("nats: cannot reach nats://127.0.0.1:1 (refused); start the lab")
    assert done.stderr.count("\n") == 1


def test_no_controller_is_found_out_within_seconds(nats_url: str, tmp_path: Path) -> None:
    done = run_cli("stats", "--url", nats_url, state=tmp_path)
    assert done.returncode == 3
    assert done.stderr.startswith("no_controller: no controller answers; start one with")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("list", "--url", "lab:4222"), "config: nats.url: "),
        (("list", "--url", "nats://h:99999"), "has a port outside"),
        (("list", "--creds", "/nowhere/x.json"), "unknown_creds"),
        (("submit", "/nowhere.yaml"), "does not exist"),
        (("submit", "x", "--priority", "101"), "neither 0..100 nor one of low"),
        (("list", "--limit", "0"), "1<=x<=1000"),
        (("list", "--state", "pasing"), "is not one of"),
        (("metrics", "last", "--stat", "p999", "--url", "nats://x:1"), "is no statistic"),
    ],
)
def test_what_a_person_mistyped_is_refused_with_two(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    done = run_cli(*words, state=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "number"), [("low", 25), ("NORMAL", 50), ("high", 75), ("urgent", 100), ("0", 0)]
)
def test_priorities_are_words_or_numbers(text: str, number: int) -> None:
    assert Priority().convert(text, None, None) == number


@pytest.mark.parametrize("text", ["101", "-1", "soon", "5.5", ""])
def test_other_priorities_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Priority().convert(text, None, None)


def test_a_duration_without_a_unit_is_seconds() -> None:
    assert Seconds().convert("90", None, None) == 90
    assert Seconds().convert("1.5m", None, None) == 90


def test_a_variable_may_hold_further_equals_signs() -> None:
    assert Variable().convert("A=b=c", None, None) == ("A", "b=c")
    with pytest.raises(click.BadParameter):
        Variable().convert("A", None, None)


def test_an_instant_is_read_as_people_write_it() -> None:
    assert Moment().convert("2026-01-31T12:00:00Z", None, None) == 1_769_860_800_000_000
    with pytest.raises(click.BadParameter):
        Moment().convert("tomorrow", None, None)


def test_the_shell_takes_commands_until_exit() -> None:
    done = run_cli("shell", stdin="version\ntshrag version\nnope\n'\nexit\nversion\n")
    assert done.returncode == 0
    assert done.stdout.count("tshrag 0.") == 2
    assert "no command 'nope'" in done.stderr
    assert "No closing quotation" in done.stderr


def test_completion_knows_the_commands() -> None:
    done = run_cli(
        environment={
            "_TSHRAG_COMPLETE": "bash_complete",
            "COMP_WORDS": "tshrag sub",
            "COMP_CWORD": "1",
        }
    )
    assert "submit" in done.stdout
