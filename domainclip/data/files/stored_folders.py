"""A folder in an object store with a copy on this machine: fetched to be read, uploaded when it changes.

A checkpoint there is complete once its manifest exists, which is uploaded last and removed first.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from domainclip.data.files import object_stores

CHECKPOINTS, MANIFEST = "checkpoints", "MANIFEST.json"


class StoredFolder:
    """A folder in a store, and its copy."""

    def __init__(self, address: str, copy: Path) -> None:
        self.address = address.rstrip("/")
        self.copy = copy
        self._uploaded: dict[str, tuple[int, int]] = {}  # by name: size and time of the file as uploaded
        self._files, self._place = object_stores.file_system(self.address)

    def names(self) -> list[str]:
        """The files in the store, by their names below the folder.

        Raises: OSError when the store cannot be reached.
        """
        start = f"{self._place.rstrip('/')}/"
        return [name.removeprefix(start) for name in object_stores.patiently(partial(self._find, start))]

    def fetch(self, checkpoints: bool) -> None:
        """Fetch the files, and with `checkpoints` the complete checkpoints that this machine lacks.

        Raises: OSError when the store cannot be reached.
        """
        names = self.names()
        complete = {name for name in names if name.endswith(f"/{MANIFEST}")} if checkpoints else set()
        wanted = {name for name in complete if not (self.copy / name).is_file()}  # before any is fetched
        for name in sorted(names, key=lambda name: name.endswith(f"/{MANIFEST}")):
            parts = name.split("/")
            if ".." in parts:  # never a path out of the copy
                continue
            if parts[0] == CHECKPOINTS and "/".join([*parts[:2], MANIFEST]) not in wanted:
                continue
            target = self.copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = target.with_name(f".{target.name}.fetched")
            object_stores.patiently(partial(self._files.get_file, self._at(name), str(draft)))
            draft.rename(target)

    def upload(self) -> None:
        """Upload the files that have changed, and remove the checkpoints that were removed here.

        Raises: OSError when the store cannot be reached.
        """
        present = list(_local_files(self.copy))
        for name in sorted(present, key=lambda name: name.endswith(f"/{MANIFEST}")):
            file = self.copy / name
            try:
                state = (file.stat().st_size, file.stat().st_mtime_ns)
            except OSError:  # removed meanwhile
                continue
            if self._uploaded.get(name) == state:
                continue
            object_stores.patiently(partial(self._files.put_file, str(file), self._at(name)))
            self._uploaded[name] = state
        gone = [name for name in self.names() if name.startswith(f"{CHECKPOINTS}/") and name not in present]
        for name in sorted(gone, key=lambda name: not name.endswith(f"/{MANIFEST}")):
            object_stores.patiently(partial(self._files.rm_file, self._at(name)))

    def _find(self, start: str) -> list[str]:
        self._files.invalidate_cache()
        return [str(name) for name in self._files.find(start)]

    def _at(self, name: str) -> str:
        return f"{self._place.rstrip('/')}/{name}"


def _local_files(folder: Path) -> Iterator[str]:
    """The files of a folder by their names below it, without hidden ones, as locks and drafts are."""
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if file.is_file() and not any(part.startswith(".") for part in name.parts):
            yield name.as_posix()
