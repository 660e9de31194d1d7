"""Where places exist for all of a small gang, they are found; held against trying everything."""

from itertools import product

import hypothesis.strategies as st
from hypothesis import given, settings

from tests.support.builders import TestLab, a_dut, a_spec, board
from tshrag_common.ids import AgentId, DutId
from tshrag_common.jobs import Need, Plan, PlannedJob
from tshrag_controller.core.packing import Ask, Option, pack

HOSTS = [AgentId(name) for name in ("h1", "h2", "h3")]
OPTIONS = [Option(host) for host in HOSTS]
OPTIONS += [Option(host, DutId(f"{host}-{n}")) for host in HOSTS for n in (1, 2)]

amounts = st.fixed_dictionaries({"slots": st.integers(0, 3), "gpu": st.integers(0, 2)})
options = st.lists(st.sampled_from(OPTIONS), max_size=5, unique=True)
asks = st.lists(st.tuples(amounts, options), min_size=1, max_size=4)
hosts = st.fixed_dictionaries(dict.fromkeys(HOSTS, amounts))


def holds(chosen: tuple[Option, ...], made: list[Ask], free: dict[AgentId, dict[str, int]]) -> bool:
    duts = [option.dut for option in chosen if option.dut is not None]
    if len(set(duts)) < len(duts):
        return False
    for host, left in free.items():
        there = [ask for ask, option in zip(made, chosen, strict=True) if option.agent == host]
        if any(sum(ask.uses[name] for ask in there) > most for name, most in left.items()):
            return False
    return True


@settings(max_examples=300, deadline=None)
@given(asks, hosts)
def test_a_solution_is_found_exactly_where_trying_everything_finds_one(
    asked: list[tuple[dict[str, int], list[Option]]], free: dict[AgentId, dict[str, int]]
) -> None:
    made = [Ask(f"job{n}", dict(uses), choices) for n, (uses, choices) in enumerate(asked)]
    all_ways = product(*(ask.options for ask in made))
    exists = any(holds(chosen, made, free) for chosen in all_ways)
    found = pack(made, free, most_steps=1_000_000)
    assert (found is not None) == exists
    if found is not None:
        assert holds(tuple(found[ask.name] for ask in made), made, free)
        assert all(found[ask.name] in ask.options for ask in made)


def test_the_search_gives_up_when_it_has_looked_at_enough() -> None:
    many = [Ask(f"job{n}", {"slots": 1}, OPTIONS[:3]) for n in range(16)]
    free = {host: {"slots": 5} for host in HOSTS}
    assert pack(many, free) is None


def a_gang(*needs: Need) -> Plan:
    jobs = tuple(PlannedJob(n, f"m{n}", n - 1, gang=1) for n in range(1, len(needs) + 1))
    return Plan(specs=tuple(a_spec(need=need) for need in needs), jobs=jobs)


def test_hosts_that_the_largest_first_would_fill_badly_are_filled_well() -> None:
    lab = TestLab()
    lab.hello("a1", slots=4)
    lab.hello("a2", slots=6)
    needs = [Need(slots=slots, role=f"r{n}") for n, slots in enumerate((3, 3, 2, 2))]
    run = lab.submit(a_gang(*needs))
    assert [lab.state(run, n) for n in range(1, 5)] == ["assigned"] * 4
    assert {agent.free_slots for agent in lab.lab.agents.values()} == {0}


def test_boards_are_chosen_by_what_their_hosts_have() -> None:
    lab = TestLab()
    lab.hello("a1", slots=9, duts=[a_dut("b0"), a_dut("b1"), a_dut("b2")])
    lab.hello("a2", slots=9, duts=[a_dut("b3", agent="a2")])
    core = {"cpus": 1.0}
    needs = [
        Need(role=role, target=board("pi", role, "job").target, resources=core) for role in "xy"
    ]
    run = lab.submit(a_gang(*needs))
    duts = {lab.lab.attempts[lab.fence(run, n)].dut for n in (1, 2)}
    assert "b3" in duts, "each host has one core: two boards of one of them do not do"
