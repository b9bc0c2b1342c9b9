"""A run directory is there whole or not at all, and belongs to one."""

from pathlib import Path

import pytest

from jtcore.run import FolderExistsError, free_folder, new_folder


def exists(folder: Path) -> str:
    """What is told of a folder that is there."""
    return f"{folder} exists; name another with --out, or continue it with --resume {folder}"


def test_a_folder_is_there_when_all_that_belongs_in_it_is(tmp_path):
    folder = tmp_path / "runs/mine"

    with new_folder(folder) as aside:
        (aside / "recipe.toml").write_text("title = 1")
        assert not folder.exists()

    assert list(folder.parent.iterdir()) == [folder]
    assert (folder / "recipe.toml").read_text() == "title = 1"
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_block_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "mine") as aside:
        (aside / "recipe.toml").touch()
        raise KeyboardInterrupt

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [[], ["theirs"]])
def test_a_folder_of_another_who_was_faster_is_left_alone(tmp_path, content):
    folder = tmp_path / "mine"

    with pytest.raises(FolderExistsError) as caught, new_folder(folder) as aside:
        (aside / "ours").touch()
        folder.mkdir()
        for name in content:
            (folder / name).touch()

    assert str(caught.value) == exists(folder)
    assert list(tmp_path.iterdir()) == [folder]
    assert [path.name for path in folder.iterdir()] == content


@pytest.mark.parametrize("stem", ["mine", "mine[1]", "*"])
def test_the_first_number_that_is_free_is_taken(tmp_path, stem):
    for taken in ("mine-003", f"{stem}-001", f"{stem}-1000"):
        (tmp_path / taken).mkdir()
    assert free_folder(tmp_path, stem) == tmp_path / f"{stem}-002"

    (tmp_path / f"{stem}-002").touch()
    (tmp_path / f"{stem}-003").mkdir(exist_ok=True)
    assert free_folder(tmp_path, stem) == tmp_path / f"{stem}-004"


def test_nothing_is_taken_where_nothing_is(tmp_path):
    assert free_folder(tmp_path / "runs", "mine") == tmp_path / "runs/mine-001"
