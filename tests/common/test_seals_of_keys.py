"""Keys between controllers: only who has the secret reads them, each answer is to one question."""

import pytest

from tshrag_common.seals import BadSeal, closed, opened

SECRET, OTHER = "11" * 32, "22" * 32


def test_what_is_closed_is_opened_by_who_has_the_secret() -> None:
    data = closed(SECRET, b"question", b"keys of the lab")
    assert b"keys" not in data
    assert opened(SECRET, b"question", data) == b"keys of the lab"


@pytest.mark.parametrize(
    ("secret", "nonce", "cut"),
    [(OTHER, b"question", 0), (SECRET, b"an earlier one", 0), (SECRET, b"question", 1)],
)
def test_of_others_to_another_question_or_cut_it_is_nothing(
    secret: str, nonce: bytes, cut: int
) -> None:
    data = closed(SECRET, b"question", b"keys of the lab")
    with pytest.raises(BadSeal):
        opened(secret, nonce, data[: len(data) - cut])


def test_no_bytes_are_nothing() -> None:
    with pytest.raises(BadSeal):
        opened(SECRET, b"question", b"")
