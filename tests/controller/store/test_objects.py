import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support import s3
from tests.support.kept import KeptStore
from tshrag_controller.store import segments, tend
from tshrag_controller.store.keep import Rules
from tshrag_controller.store.objects import BadColdUrl, ColdFault, ColdStore
from tshrag_controller.store.parquet import SegmentDamaged
from tshrag_controller.store.segments import CACHE


@pytest.fixture(params=["moto", "rclone", "folder"])
async def cold(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """An empty cold store of each kind: its URL and options."""
    if request.param == "folder":
        yield f"file://{tmp_path / 'objects'}", {}
        return
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.SECRET)
    server = s3.moto if request.param == "moto" else s3.rclone
    with server(tmp_path) as options:
        if request.param == "moto":
            make_bucket(options["endpoint"])
        yield "s3://lab/some/prefix", dict(options)


def make_bucket(endpoint: str) -> None:
    import urllib.request

    request = urllib.request.Request(f"{endpoint}/lab", method="PUT")  # moto asks for no signature
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


@pytest.mark.slow
async def test_samples_go_to_the_cold_store_and_are_read_from_there(
    tmp_path: Path, cold: tuple[str, dict[str, str]]
) -> None:
    kept = KeptStore(tmp_path, Rules(hot_days=0, cold_days=30))
    kept.url, kept.options = cold
    await kept.begin()
    await kept.arrive()
    await kept.keeper.round(everything=True)
    kept.pass_days(1)
    assert (await kept.keeper.round()).uploaded == 1
    kept.pass_days(1)
    await kept.keeper.round()
    assert await kept.read() == kept.told
    assert await tend.verify(kept.store, kept.keeper) == (1, [])
    ((name, size),) = await kept.keeper.cold.names()
    (known,) = await kept.store.query(segments.segments)
    assert (name, size, known.place) == (known.name, known.bytes, "cold")
    kept.pass_days(31)
    await kept.keeper.round()
    kept.pass_days(1)
    await kept.keeper.round()
    assert await kept.keeper.cold.names() == []
    await kept.keeper.cold.delete(name)  # what is gone is gone
    await kept.store.close()


async def test_a_lost_hot_store_is_made_again_from_the_cold_one(tmp_path: Path) -> None:
    kept = KeptStore(tmp_path, Rules(hot_days=0))
    await kept.begin()
    await kept.arrive()
    await kept.keeper.round(everything=True)
    kept.pass_days(1)
    await kept.keeper.round()
    await kept.store.close()
    for path in (tmp_path / "store").glob("hot.db*"):
        path.unlink()
    await kept.open()
    assert not await kept.read()
    assert await tend.take_up(kept.store, kept.keeper) == (1, 200, [])
    assert await kept.read() == kept.told
    assert await tend.take_up(kept.store, kept.keeper) == (0, 0, [])
    await kept.store.close()


async def test_sealed_files_of_a_lost_hot_store_are_taken_up_too(tmp_path: Path) -> None:
    kept = KeptStore(tmp_path)
    await kept.begin()
    await kept.arrive()
    await kept.keeper.round(everything=True)
    await kept.store.close()
    for path in (tmp_path / "store").glob("hot.db*"):
        path.unlink()
    await kept.open()
    assert await tend.take_up(kept.store, kept.keeper) == (1, 200, [])
    assert await kept.read() == kept.told
    kept.pass_days(9)
    await kept.keeper.round()
    assert await tend.take_up(kept.store, kept.keeper) == (0, 0, [])
    assert await kept.read() == kept.told
    await kept.store.close()


async def test_verify_names_what_is_damaged_and_what_is_gone(tmp_path: Path) -> None:
    kept = KeptStore(tmp_path, Rules(hot_days=0))
    await kept.begin()
    for _ in range(2):
        await kept.arrive()
        await kept.keeper.round(everything=True)
    first, second = sorted((tmp_path / "store" / "sealed").rglob("*.parquet"))
    first.write_bytes(first.read_bytes()[:-1] + b"x")
    second.unlink()
    whole, problems = await tend.verify(kept.store, kept.keeper)
    assert whole == 0
    assert "not what was stored" in problems[0]
    assert first.name in problems[0]
    assert second.name in problems[1]
    await kept.store.close()


async def test_a_cold_store_that_is_away_keeps_samples_here_and_says_so(tmp_path: Path) -> None:
    kept = KeptStore(tmp_path, Rules(hot_days=0))
    blocked = tmp_path / "objects"
    blocked.write_text("a file, no folder")
    await kept.begin()
    await kept.arrive()
    await kept.keeper.round(everything=True)
    kept.pass_days(1)
    with pytest.raises((ColdFault, BadColdUrl)):
        await kept.keeper.round()
    assert await kept.read() == kept.told
    blocked.unlink()
    assert (await kept.keeper.round()).uploaded == 1
    assert await kept.read() == kept.told
    await kept.store.close()


@pytest.mark.slow
async def test_wrong_credentials_are_told_as_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    said = "see that s3://lab is there and may be used"
    with s3.rclone(tmp_path) as options, pytest.raises(ColdFault, match=said):
        await ColdStore("s3://lab", options).names()


@pytest.mark.parametrize("name", ["aws_secret_access_key", "access_key_id", "session_token"])
def test_secrets_are_refused_in_a_settings_file(name: str) -> None:
    with pytest.raises(BadColdUrl, match="environment"):
        ColdStore("s3://lab", {name: "x"})


@pytest.mark.parametrize("url", ["", "lab", "gopher://lab", "s3://"])
def test_a_url_that_is_none_is_refused_with_what_it_should_be(url: str) -> None:
    with pytest.raises(BadColdUrl):
        ColdStore(url, {})


async def test_an_object_is_fetched_whole_or_not_at_all(tmp_path: Path) -> None:
    cold = ColdStore(f"file://{tmp_path / 'objects'}", {})
    source = tmp_path / "x"
    source.write_bytes(os.urandom(3 << 20))
    await cold.put("a/b/c.parquet", source)
    with pytest.raises(SegmentDamaged):
        await cold.get("a/b/c.parquet", tmp_path / CACHE / "c", "0" * 64)
    assert not list((tmp_path / CACHE).iterdir())
    with pytest.raises(ColdFault):
        await cold.get("a/b/none.parquet", tmp_path / CACHE / "none", "")
