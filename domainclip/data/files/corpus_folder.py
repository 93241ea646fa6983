"""Files of a corpus: every path of a table is resolved inside the corpus folder, or refused."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from domainclip.data.files import locations
from domainclip.errors import DataError


def path_inside(root: Path, name: str, where: str) -> Path:
    """The location in the corpus folder `root` that a table names; its fragment is preserved.

    A name may have the separators of Windows, or letters in another form (NFC, NFD) than the disk has.

    Raises: DataError, beginning with `where`, if the file lies outside the folder, by `..`, an absolute path
        or a link: a table may come from anyone, and must not reach other files of this machine.
    """
    if not name.isascii() or "\\" in name:
        name = _name_on_disk(root, name)
    file, fragment = locations.split_location(str(root / name))  # "link.dcm#frame=1" may be a link as well
    try:
        path = Path(file).resolve()
    except (OSError, RuntimeError, ValueError):  # a circle of links, a NUL byte
        path = Path("/")
    if not path.is_relative_to(root):
        raise DataError(f"{where}: the file lies outside the corpus folder {root}: move or copy it inside")
    return Path(locations.join_location(str(path), fragment))


def find_table(root: Path, name: str) -> Path:
    """The table that a recipe or the user names: in the corpus folder, in the working folder, or anywhere."""
    path = Path(name).expanduser()
    inside = root / path
    return inside if inside.exists() or not path.exists() else path


def _name_on_disk(root: Path, name: str) -> str:
    """The name in the form in which the file exists; unchanged when there is no such file."""
    file, fragment = locations.split_location(str(root / name))
    if os.path.exists(file) or "\0" in name:
        return name
    file, fragment = locations.split_location(name.replace("\\", "/"))
    path = Path()
    for part in Path(file).parts:
        forms = (part, *(unicodedata.normalize(form, part) for form in ("NFC", "NFD")))
        path /= next((form for form in forms if os.path.lexists(root / path / form)), part)
    return locations.join_location(str(path), fragment) if os.path.exists(root / path) else name


def read_text(file: Path, encoding: str, place: str) -> str:
    """The content of an image's caption file; "" if there is no such file.

    Raises: DataError, beginning with `place`, if the text has another encoding.
    """
    try:
        return file.read_text(encoding=encoding) if file.is_file() else ""
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        raise DataError(
            f"{place}: byte {error.start} of its .txt is not {name}: set corpus.options.encoding"
        ) from None
    except LookupError:
        raise DataError(f'corpus.options.encoding: unknown encoding "{encoding}"') from None


def walk_files(root: Path, skipped: list[Path] | None = None) -> Iterator[Path]:
    """Every file below a folder, in sorted order; hidden files and links to folders are skipped.

    A link without a target counts as a file, which is missing. Skipped links and pipes go into `skipped`.

    Raises: DataError for a folder that cannot be read.
    """
    skipped = [] if skipped is None else skipped
    for folder, subfolders, names in os.walk(root, onerror=_refuse_unreadable):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        skipped += [path for path in map(Path(folder).joinpath, subfolders) if path.is_symlink()]
        for file in (Path(folder) / name for name in sorted(names) if not name.startswith(".")):
            if file.is_file() or (file.is_symlink() and not file.exists()):
                yield file
            else:  # a pipe, which would never end
                skipped.append(file)


def walk_folders(root: Path) -> Iterator[Path]:
    """Every folder whose files `walk_files` yields; its times change with the names of what is in it.

    Raises: DataError for a folder that cannot be read.
    """
    for folder, subfolders, _ in os.walk(root, onerror=_refuse_unreadable):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield Path(folder)


def _refuse_unreadable(error: OSError) -> None:
    raise DataError(f"corpus.path: a folder in it cannot be read ({error.strerror}): check its permissions")
