"""Which words of ``tshrag ssh`` are for OpenSSH itself."""

import pytest

from tshrag_controller.cli.tunnels import split_options


@pytest.mark.parametrize(
    ("words", "own"),
    [
        ("", 0),
        ("uname -a", 0),
        ("-t top -b", 1),
        ("-i key uname -a", 2),
        ("-ikey uname", 1),
        ("-tti key top", 2),
        ("-o LogLevel=ERROR -t top", 3),
        ("-L 8080:localhost:80", 2),
        ("-N -p", 2),  # ssh says what is missing
    ],
)
def test_options_of_ssh_stand_before_the_board(words: str, own: int) -> None:
    split = words.split()
    assert split_options(split) == (split[:own], split[own:])


def test_a_command_may_begin_with_a_dash() -> None:
    assert split_options(["-t", "--", "-x"]) == (["-t"], ["-x"])
