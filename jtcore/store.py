"""Files on disk, found again by everything that shaped them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from shutil import copyfile

from attrs import frozen

from jtcore.cache import Key, canonical, digest, told_where
from jtcore.claims import claimed
from jtcore.files import sha256, write_atomically, write_text


@frozen
class Store:
    """A folder of files, of each key some that were made together.

    Processes may share it, as they do a `Cache`. Whoever asks gets copies: what is done to these
    leaves what is kept as it was, and the other way round. Raises JtError where the folder cannot
    be written to.
    """

    folder: Path
    waiting: Callable[[], None]  # called while another makes what is wanted here; may raise

    def get_or_make(
        self, key: Key, files: Sequence[Path], make: Callable[[], None], wait: bool = True
    ) -> bool:
        """Put the files of a key in their places. Where they are not kept whole `make` does, and
        they are kept. False where another is making them, and is not waited for."""
        if self._put(key, files):
            return True
        with claimed(self.folder / f".{digest(key)}.lock", self.waiting if wait else None) as mine:
            if not mine:
                return False
            if not self._put(key, files):
                make()
                self._keep(key, files)
            return True

    def _put(self, key: Key, files: Sequence[Path]) -> bool:
        """Nothing is put where not all are there."""
        if (contents := self._read(key, files)) is None:
            return False
        for file, content in zip(files, contents, strict=True):
            with write_atomically(file) as aside:
                aside.write_bytes(content)
        return True

    def _read(self, key: Key, files: Sequence[Path]) -> list[bytes] | None:
        """What was kept, or None where it is absent or not whole."""
        try:
            entry = json.loads(self._entry(key).read_bytes())
            contents = [kept.read_bytes() for kept in self._kept(key, files)]
        except (OSError, ValueError):
            return None
        found = [hashlib.sha256(content).hexdigest() for content in contents]
        return contents if entry == {"key": canonical(key), "sha256": found} else None

    def _keep(self, key: Key, files: Sequence[Path]) -> None:
        with told_where(self.folder):
            for file, kept in zip(files, self._kept(key, files), strict=True):
                with write_atomically(kept) as aside:
                    copyfile(file, aside)
            entry = {"key": canonical(key), "sha256": [sha256(file) for file in files]}
            write_text(self._entry(key), json.dumps(entry))

    def _entry(self, key: Key) -> Path:
        return self.folder / f"{digest(key)}.json"

    def _kept(self, key: Key, files: Sequence[Path]) -> Iterator[Path]:
        name = digest(key)
        return (self.folder / f"{name}-{n}{file.suffix}" for n, file in enumerate(files))
