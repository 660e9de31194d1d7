import pytest
from hypothesis import given, strategies as st

from tshrag_agent.boards.strategy import Means, graph, moves_of, route, states
from tshrag_agent.transport.boot_way import Act, BootloaderWay, BootWay, Move
from tshrag_common.errors import Refused

ALL = Means(power=True, console=True, shell=True)
names = st.sampled_from(("off", "a", "b", "c", "d", "e"))
moves = st.lists(
    st.builds(lambda s, t: Move(source=s, to=t, acts=(Act(wait_s=1.0),)), names, names), max_size=12
)


def way_to(goal: str, way: BootWay, means: Means = ALL, start: str = "off") -> list[str]:
    return [move.to for move in route(graph(moves_of(way, means)), start, goal, "b1")]


def test_a_board_with_power_and_login_is_booted_in_one_move() -> None:
    assert way_to("shell", BootWay()) == ["shell"]
    assert way_to("shell", BootWay(), start="shell") == []
    assert way_to("shell", BootWay(), start="unknown") == ["off", "shell"]


def test_an_environment_of_the_bootloader_is_never_gone_past() -> None:
    loader = BootloaderWay(environment={"a": "b"})
    assert way_to("shell", BootWay(bootloader=loader)) == ["bootloader", "shell"]
    assert way_to("shell", BootWay(bootloader=BootloaderWay())) == ["shell"]


def test_without_a_switch_a_shell_leads_to_the_bootloader_by_a_reboot() -> None:
    way = BootWay(bootloader=BootloaderWay(), reboot="reboot -f")
    no_switch = Means(console=True, shell=True)
    (to_shell, again) = route(graph(moves_of(way, no_switch)), "unknown", "bootloader", "b1")
    assert (to_shell.to, again.acts[0].send) == ("shell", "reboot -f\r")


def test_a_move_of_the_operator_replaces_one_that_is_known() -> None:
    own = Move(source="off", to="shell", acts=(Act(command=("strap",)), Act(power="on")))
    (taken,) = route(graph(moves_of(BootWay(move=(own,)), ALL)), "off", "shell", "b1")
    assert taken == own


@pytest.mark.parametrize(
    ("goal", "means", "said"),
    [
        ("shel", ALL, "unknown_state: b1: it has no state 'shel'; did you mean 'shell'?"),
        ("off", Means(), "unknown_state: b1: it has no state 'off'; its states: none"),
    ],
)
def test_a_state_that_there_is_not_is_refused_with_those_that_there_are(
    goal: str, means: Means, said: str
) -> None:
    with pytest.raises(Refused) as caught:
        way_to(goal, BootWay(), means, start="unknown")
    assert caught.value.line.startswith(said)


@given(moves, names, names)
def test_a_route_is_a_chain_of_moves_and_no_shorter_one_is_there(
    given_moves: list[Move], start: str, goal: str
) -> None:
    made = graph(given_moves)
    distance, ring = {start: 0}, [start]
    while ring:
        ring = [to for here in ring for to in made.get(here, {}) if to not in distance]
        distance.update({to: len(set(distance.values())) for to in ring})
    if goal not in distance:
        with pytest.raises(Refused) as caught:
            route(made, start, goal, "b1")
        assert caught.value.code in ("no_way", "unknown_state")
        return
    found = route(made, start, goal, "b1")
    assert len(found) == distance[goal]
    here = start
    for move in found:
        assert move.source == here and move.to in states(made)
        here = move.to
    assert here == goal
