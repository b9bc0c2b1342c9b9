"""Files that are kept are copied out whole, or made again."""

import pytest

from jtcore.claims import claimed
from jtcore.errors import JtError
from jtcore.store import Store

KEY = {"prompt": "a wug", "seed": 3}
CONTENTS = (b"first" * 99, b"second" * 77)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store", lambda: None)


@pytest.fixture
def ask(store, tmp_path):
    """Ask for two files in a folder; returns whether they had to be made."""

    def get(folder: str, key=KEY, contents=CONTENTS, store=store) -> bool:
        files, made = [tmp_path / folder / name for name in ("one.mp4", "two.mp4")], []

        def make() -> None:
            made.append(None)
            files[0].parent.mkdir(exist_ok=True)
            for file, content in zip(files, contents, strict=True):
                file.write_bytes(content)

        assert store.get_or_make(key, files, make)
        assert tuple(file.read_bytes() for file in files) == contents
        return bool(made)

    return get


def test_what_was_made_once_is_copied(ask):
    assert ask("a")
    assert not ask("b")


def test_another_key_is_another_entry(ask):
    ask("a")
    assert ask("b", key=KEY | {"seed": 4}, contents=(b"other", b"ones"))
    assert not ask("c")


def test_what_is_done_to_a_copy_leaves_what_is_kept_as_it_was(ask, tmp_path):
    ask("a")
    ask("b")
    for folder in ("a", "b"):
        (tmp_path / folder / "one.mp4").write_bytes(b"changed in place")
    assert not ask("c")


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "emptied"])
def test_a_damaged_entry_is_made_again_and_is_then_whole(ask, store, which, damage):
    ask("a")
    kept = sorted(store.folder.iterdir())[which]
    whole = kept.read_bytes()
    if damage == "gone":
        kept.unlink()
    else:
        damaged = {"cut": whole[:-1], "changed": b"{" + whole[1:-1] + b"~", "emptied": b""}
        kept.write_bytes(damaged[damage])

    assert ask("b")
    assert kept.read_bytes() == whole
    assert not ask("c")


def test_an_entry_under_anothers_name_is_not_believed(ask, store):
    ask("a")
    ask("b", key=KEY | {"seed": 4}, contents=(b"other", b"ones"))
    one, other = sorted({path.name[:64] for path in store.folder.iterdir()})
    for path in store.folder.glob(f"{one}*"):
        path.rename(store.folder / path.name.replace(one, other))
    assert ask("c") or ask("d", key=KEY | {"seed": 4}, contents=(b"other", b"ones"))


def test_an_error_while_making_keeps_nothing(store, tmp_path):
    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get_or_make(KEY, [tmp_path / "one.mp4"], fail)
    assert list(store.folder.iterdir()) == []


def test_what_another_is_making_is_waited_for_or_left(ask, tmp_path):
    held = []

    def waiting() -> None:
        held.pop().__exit__(None, None, None)

    store = Store(tmp_path / "store", waiting)
    ask("a", key={"a": 1}, store=store)
    (entry,) = tmp_path.glob("store/*.json")
    name = entry.name.replace("json", "lock")
    for path in tmp_path.glob("store/*"):
        path.unlink()
    held.append(claimed(tmp_path / "store" / f".{name}"))
    held[0].__enter__()

    assert not store.get_or_make({"a": 1}, [tmp_path / "x.mp4"], pytest.fail, wait=False)
    assert not (tmp_path / "x.mp4").exists()
    assert ask("b", key={"a": 1}, store=store)
    assert held == []


def test_a_folder_that_cannot_be_written_to_is_named_with_the_cure(ask, tmp_path):
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" / "store"
    with pytest.raises(JtError) as error:
        ask("a", store=Store(folder, lambda: None))
    assert str(error.value) == (
        f"cache {folder}: Not a directory; name another folder with $JT_CACHE"
    )
