from hypothesis import given, strategies as st

from tshrag_common.findings import Findings
from tshrag_common.schedule import AxisValue, Matrix, Step, cells, count_jobs, walk
from tshrag_common.strict import convert

axes = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple),
    min_size=1,
)


def tree(schedule: object) -> Step:
    return convert(schedule, Step, Findings())


def test_short_words_mean_the_long_ones() -> None:
    short = tree({"seq": [{"cmd": "a"}, {"par": [{"nop": None}]}]})
    long = tree({"sequence": [{"command": "a"}, {"parallel": [{"nop": None}]}]})
    assert short == long
    assert [step.label for _, step in walk(short, ())] == ["*seq", "*cmd", "*par", "*nop"]


def test_steps_are_walked_in_the_order_of_the_document() -> None:
    found = tree({"seq": [{"repeat": {"times": 2, "of": {"cmd": "a"}}}, {"cmd": "b"}]})
    assert [at for at, _ in walk(found, ("schedule",))] == [
        ("schedule",),
        ("schedule", "sequence", 0),
        ("schedule", "sequence", 0, "repeat", "of"),
        ("schedule", "sequence", 1),
    ]


def test_the_last_axis_goes_fastest_and_what_is_excluded_is_left_out() -> None:
    matrix = Matrix(
        axes={"size": (64, 1500), "way": ("up", "down")},
        of=Step(nop=None),
        exclude=({"size": 64, "way": "down"},),
    )
    assert list(cells(matrix)) == [
        {"size": 64, "way": "up"}, {"size": 1500, "way": "up"}, {"size": 1500, "way": "down"},
    ]  # fmt: skip


@given(axes, st.integers(1, 5))
def test_as_many_jobs_are_counted_as_there_are_cells(
    given: dict[str, tuple[AxisValue, ...]], times: int
) -> None:
    matrix = Matrix(axes=given, of=tree({"repeat": {"times": times, "of": {"nop": None}}}))
    assert count_jobs(Step(matrix=matrix)) == times * len(list(cells(matrix)))
