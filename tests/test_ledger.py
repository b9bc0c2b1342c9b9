"""Values on disk outlive a writer that is killed, and belong to one identity."""

import json

import pytest

from jtcore.errors import Interrupted, JtError
from jtcore.evaluation.ledger import Ledger, key_of


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JT_CACHE", str(tmp_path / "cache"))


def test_what_was_put_is_there_for_whoever_comes_next():
    Ledger("identity", "code").put("a", {"x": 0.1 + 0.2, "y": -1e-300})

    assert Ledger("identity", "code").get("a") == {"x": 0.1 + 0.2, "y": -1e-300}
    assert Ledger("identity", "code").get("b") is None


def test_another_identity_or_other_code_has_values_of_its_own():
    Ledger("identity", "code").put("a", {"x": 1.0})

    assert Ledger("another", "code").get("a") is None
    assert Ledger("identity", "changed").get("a") is None


def test_a_video_without_a_value_was_measured_all_the_same():
    Ledger("identity", "code").put("a", {})
    assert Ledger("identity", "code").get("a") == {}


@pytest.mark.parametrize("lost", range(1, 25))
def test_a_torn_line_is_passed_over_and_the_next_one_is_whole(lost):
    first = Ledger("identity", "code")
    first.put("a", {"x": 1.0})
    first.put("b", {"x": 2.0})
    content = first.path.read_bytes()
    first.path.write_bytes(content[:-lost])

    second = Ledger("identity", "code")
    assert second.get("a") == {"x": 1.0}
    assert second.get("b") in (None, {"x": 2.0})  # whole where the line's end alone is lost
    second.put("c", {"x": 3.0})

    third = Ledger("identity", "code")
    assert (third.get("a"), third.get("c")) == ({"x": 1.0}, {"x": 3.0})


@pytest.mark.parametrize("line", ["[]", "7", '{"key": 1}', '{"key": "a", "values": [1]}', "\0\0"])
def test_a_line_of_something_else_is_passed_over(line):
    ledger = Ledger("identity", "code")
    ledger.put("b", {"x": 1.0})
    with ledger.path.open("a") as file:
        file.write(f"{line}\n")

    assert Ledger("identity", "code").get("a") is None
    assert Ledger("identity", "code").get("b") == {"x": 1.0}


def test_a_line_is_json_that_anyone_can_read():
    ledger = Ledger("identity", "code")
    ledger.put("a", {"x": 1.0})
    assert json.loads(ledger.path.read_text()) == {"key": "a", "values": {"x": 1.0}}


def test_a_cache_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(JtError, match=r"name another folder with \$JT_CACHE$"):
        Ledger("identity", "code").put("a", {})


def test_videos_prompts_and_seeds_have_keys_of_their_own():
    keys = [
        key_of("one", "a cat", 0),
        key_of("two", "a cat", 0),
        key_of("one", "a dog", 0),
        key_of("one", "a cat", 1),
    ]
    assert len(set(keys)) == 4


def test_what_another_process_has_measured_meanwhile_is_not_asked_again():
    mine, other = Ledger("identity", "code"), Ledger("identity", "code")
    assert other.measure("a", lambda: {"x": 1.0})
    assert other.measure("b", lambda: {"x": 2.0})

    assert mine.measure("b", pytest.fail)
    assert (mine.get("a"), mine.get("b")) == ({"x": 1.0}, {"x": 2.0})


def test_what_another_process_measures_now_is_left_or_waited_for():
    mine, other, waits = Ledger("identity", "code"), Ledger("identity", "code"), []

    def ask() -> dict[str, float]:
        assert not mine.measure("a", pytest.fail)
        assert mine.measure("b", lambda: {"x": 2.0})
        with pytest.raises(Interrupted):
            mine.measure("a", pytest.fail, wait)
        return {"x": 1.0}

    def wait() -> None:
        waits.append(None)
        if len(waits) == 2:
            raise Interrupted

    assert other.measure("a", ask)
    assert mine.measure("a", pytest.fail)
    assert mine.get("a") == {"x": 1.0}
    assert [path.suffix for path in mine.path.parent.iterdir()] == [".jsonl"]


def test_a_line_that_was_read_before_its_end_was_written_is_read_again():
    writer = Ledger("identity", "code")
    writer.put("a", {"x": 1.0})
    writer.put("b", {"x": 2.0})
    whole = writer.path.read_bytes()
    writer.path.write_bytes(whole[:-9])
    reader = Ledger("identity", "code")
    assert (reader.get("a"), reader.get("b")) == ({"x": 1.0}, None)

    writer.path.write_bytes(whole)
    assert reader.measure("b", pytest.fail)
    assert reader.get("b") == {"x": 2.0}
