import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jtcore.cache import Cache, cache_folder, digest
from jtcore.errors import JtError

KEY = {"file": "abc", "frames": 49, "fps": 8.0, "mask": None}


def made():
    rng = torch.Generator().manual_seed(0)
    return {
        "latents": torch.randn(2, 3, generator=rng),
        "half": torch.randn(5, generator=rng).bfloat16(),
        "share": torch.tensor(0.25),
    }


def refuse():
    raise AssertionError("the cache had it")


def same(one, other):
    return one.keys() == other.keys() and all(
        one[k].dtype == other[k].dtype and torch.equal(one[k], other[k]) for k in one
    )


def test_what_was_made_once_is_found(tmp_path):
    first = Cache(tmp_path).get_or_make(KEY, made)
    assert same(first, made())
    assert same(Cache(tmp_path).get_or_make(KEY, refuse), made())


def test_the_order_of_a_key_does_not_matter(tmp_path):
    Cache(tmp_path).get_or_make(KEY, made)
    assert same(Cache(tmp_path).get_or_make(dict(reversed(KEY.items())), refuse), made())


@pytest.mark.parametrize(
    "change", [{"file": "abd"}, {"frames": 48}, {"fps": 8.5}, {"mask": "m"}, {"more": 1}]
)
def test_another_key_is_another_entry(tmp_path, change):
    Cache(tmp_path).get_or_make(KEY, made)
    other = Cache(tmp_path).get_or_make(KEY | change, lambda: {"latents": torch.ones(1)})
    assert other["latents"].tolist() == [1.0]
    assert same(Cache(tmp_path).get_or_make(KEY, refuse), made())


def test_a_torn_entry_is_made_again(tmp_path):
    Cache(tmp_path).get_or_make(KEY, made)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert same(Cache(tmp_path).get_or_make(KEY, made), made())
        assert len(path.read_bytes()) == len(whole)


def test_any_changed_byte_is_noticed(tmp_path):
    Cache(tmp_path).get_or_make(KEY, made)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert same(Cache(tmp_path).get_or_make(KEY, made), made())


def test_an_entry_under_anothers_name_is_not_believed(tmp_path):
    Cache(tmp_path).get_or_make(KEY, made)
    (path,) = tmp_path.iterdir()
    other = KEY | {"frames": 1}
    path.rename(tmp_path / f"{digest(other)}.safetensors")
    assert list(Cache(tmp_path).get_or_make(other, lambda: {"x": torch.ones(1)})) == ["x"]


def test_an_error_while_making_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path).get_or_make(KEY, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert list(tmp_path.iterdir()) == []


FILLER = """
import sys
from pathlib import Path
import torch
from jtcore.cache import Cache

print("ready", flush=True)
sys.stdin.readline()
cache = Cache(Path(sys.argv[1]))
for number in range(30):
    found = cache.get_or_make({"n": number}, lambda: {"x": torch.full((999,), number)})
    assert (found["x"] == number).all()
"""


def test_two_processes_fill_one_cache(tmp_path):
    command = [sys.executable, "-c", FILLER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    fillers = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for filler in fillers:
        assert filler.stdout.readline() == "ready\n"
    for filler in fillers:
        filler.stdin.write("go\n")
        filler.stdin.flush()
    for filler in fillers:
        filler.communicate()
        assert filler.returncode == 0
    assert len(list(tmp_path.iterdir())) == 30
    for number in range(30):
        found = Cache(tmp_path).get_or_make({"n": number}, refuse)
        assert (found["x"] == number).all()


def test_the_cache_folder_can_be_chosen(monkeypatch):
    monkeypatch.setenv("JT_CACHE", "/some/where")
    assert cache_folder() == Path("/some/where")


def test_the_cache_folder_is_else_the_users(monkeypatch, tmp_path):
    monkeypatch.delenv("JT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "jtcore"


def test_a_folder_that_cannot_be_written_to_is_named_with_the_cure(tmp_path):
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" / "cache"
    with pytest.raises(JtError) as error:
        Cache(folder).get_or_make({"a": 1}, lambda: {"x": torch.zeros(1)})
    assert str(error.value) == (
        f"cache {folder}: Not a directory; name another folder with $JT_CACHE"
    )
