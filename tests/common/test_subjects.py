from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from tshrag_common import subjects
from tshrag_common.errors import InvalidId
from tshrag_common.ids import AgentId, OrgId

names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True)
hostile = st.text(max_size=300).filter(lambda text: not subjects_would_take(text))


def subjects_would_take(text: str) -> bool:
    try:
        subjects.command(AgentId(text))
    except InvalidId:
        return False
    return True


@given(names, st.sampled_from(subjects.AGENT_SAYS))
def test_what_an_agent_says_names_agent_and_kind(agent: str, kind: subjects.AgentSays) -> None:
    assert subjects.agent_of(subjects.said(AgentId(agent), kind)) == (agent, kind)


@given(names, names)
def test_a_request_as_a_controller_sees_it_names_org_and_verb(org: str, verb: str) -> None:
    assert subjects.req_of(subjects.req(OrgId(org), verb)) == (org, verb)


@given(names, st.lists(names, min_size=1, max_size=3))
def test_news_come_back_as_their_parts_in_both_modes(org: str, parts: list[str]) -> None:
    for scope in (OrgId(org), None):
        assert subjects.ui_of(subjects.ui(scope, *parts), scope) == tuple(parts)


@given(hostile)
def test_no_hostile_text_reaches_a_subject(text: str) -> None:
    builders: tuple[Callable[[], str], ...] = (
        lambda: subjects.command(AgentId(text)),
        lambda: subjects.said(AgentId(text), "ev"),
        lambda: subjects.req(OrgId(text), "submit"),
        lambda: subjects.req(None, text),
        lambda: subjects.ui(None, text),
        lambda: subjects.any_ui(OrgId(text)),
    )
    for build in builders:
        with pytest.raises(InvalidId):
            build()


@given(st.text(max_size=80))
def test_parsing_any_text_refuses_or_gives_names(text: str) -> None:
    for parse in (subjects.agent_of, subjects.req_of):
        for subject in (text, f"lab.v1.agent.{text}", f"lab.v1.req.{text}"):
            try:
                name, _ = parse(subject)
            except InvalidId:
                continue
            assert name and "." not in name


def test_an_org_named_behind_the_one_that_the_server_added_is_no_request() -> None:
    with pytest.raises(InvalidId, match="no request"):
        subjects.req_of("lab.v1.req.bolt.acme.submit")


def test_stored_samples_name_their_agent() -> None:
    assert subjects.agent_of("lab.v1.met.3.rack7") == ("rack7", "met")
    assert subjects.samples(3) == "lab.v1.met.3.*"


def test_a_subject_without_the_root_is_nobody_s() -> None:
    with pytest.raises(InvalidId):
        subjects.agent_of("agent.a1.ev")
