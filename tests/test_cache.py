import subprocess
import sys
from collections.abc import Callable, Iterator
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

def make(number):
    print(f"made {number}", flush=True)
    if sys.argv[2] == "stuck":
        sys.stdin.readline()
    return {"x": torch.full((999,), number)}

print("ready", flush=True)
sys.stdin.readline()
cache = Cache(Path(sys.argv[1]), lambda: print("waiting", flush=True))
for number in range(30):
    found = cache.get_or_make({"n": number}, lambda: make(number))
    assert (found["x"] == number).all()
"""


@pytest.fixture
def fill(tmp_path) -> Iterator[Callable[..., list[subprocess.Popen]]]:
    """Start processes that fill one cache alike: "free", or "stuck" in the first that they make."""
    started = []

    def start(*ways: str) -> list[subprocess.Popen]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        for way in ways:
            command = [sys.executable, "-c", FILLER, str(tmp_path), way]
            started.append(subprocess.Popen(command, **pipes))
        for each in started:
            assert each.stdout.readline() == "ready\n"
        return started

    yield start
    for each in started:
        each.kill()
        each.communicate()


def begin(process: subprocess.Popen) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


def all_is_there(folder: Path) -> bool:
    assert len(list(folder.iterdir())) == 30
    found = [Cache(folder).get_or_make({"n": number}, refuse) for number in range(30)]
    return all((each["x"] == number).all() for number, each in enumerate(found))


def test_what_two_processes_want_at_once_is_made_by_one(tmp_path, fill):
    fillers = fill("free", "free")
    for each in fillers:
        begin(each)
    told = [line for each in fillers for line in each.communicate()[0].splitlines()]

    assert [each.returncode for each in fillers] == [0, 0]
    made = [line for line in told if line != "waiting"]
    assert sorted(made) == sorted(f"made {number}" for number in range(30))
    assert all_is_there(tmp_path)


def test_what_a_killed_process_was_making_is_made_by_the_one_that_waits(tmp_path, fill):
    stuck, free = fill("stuck", "free")
    begin(stuck)
    assert stuck.stdout.readline() == "made 0\n"
    begin(free)
    assert free.stdout.readline() == "waiting\n"
    stuck.kill()
    told, _ = free.communicate()

    assert free.returncode == 0
    made = [line for line in told.splitlines() if line != "waiting"]
    assert made == [f"made {number}" for number in range(30)]
    assert all_is_there(tmp_path)


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
