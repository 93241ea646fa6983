"""A folder that `domainclip data prepare` wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from datasets import Dataset, DatasetDict, Features, concatenate_datasets

from domainclip.data import prepared_format
from domainclip.data.cards import Card
from domainclip.data.files import object_stores
from domainclip.data.interfaces import CorpusReader
from domainclip.data.quarantine import ReadLog
from domainclip.data.readers.sources import arrow_images, fetched_corpus
from domainclip.data.rows import to_dataset
from domainclip.data.schema import COLUMNS, PREPARED_MANIFEST, SPLITS, features
from domainclip.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Prepared(CorpusReader):
    """Reads shards of either form, tar or Arrow, by their manifest; pixels are the same from both.

    Splits, captions, classes, groups and truth keys are as they were prepared: the card's columns, shares and
    caption template were applied then. A folder with a manifest is always read by this reader. A corpus at an
    address (s3://, gs://, az://, https://, hf://) is fetched once into the cache, and each shard verified.
    """

    verify: bool = False  # read every shard once more to compare its sha256 with the manifest's

    citation: ClassVar[str] = (
        "domainclip data prepare; WebDataset [github.com/webdataset/webdataset]; Apache Arrow"
    )

    def check_source(self, card: Card, path: Path | str) -> None:
        """Check that the folder exists, or that the library of the store is installed."""
        if not fetched_corpus.is_address(path):
            super().check_source(card, path)
        else:
            object_stores.check_address(str(path))

    def source_files(self, card: Card, path: Path | str) -> list[Path] | None:
        """The manifest and the shards that it names."""
        folder = _folder(path)
        manifest = prepared_format.read_manifest(folder)
        if manifest is None:
            return None
        return [folder / PREPARED_MANIFEST, *(folder / Path(s["file"]).name for s in manifest["shards"])]

    def read(self, card: Card, path: Path | str, log: ReadLog) -> DatasetDict:
        """Splits in the order of the shards.

        Raises: DataError for a folder that is not prepared, or incomplete.
        """
        folder = _folder(path)
        manifest = prepared_format.read_manifest(folder)
        if manifest is None:
            raise DataError(f"{path}: no {PREPARED_MANIFEST} of domainclip data prepare: set corpus.reader")
        parts: dict[str, list[Dataset]] = {split: [] for split in SPLITS}
        for shard in manifest["shards"]:
            file = folder / Path(shard["file"]).name  # the name only, never a path out of the folder
            self._refuse_changed(file, shard)
            rows = self._rows(file, shard["split"], manifest["form"], log)
            if len(rows) != shard.get("items", len(rows)):
                raise DataError(
                    f"{file}: holds {len(rows)} items and not {shard['items']}: prepare the corpus again"
                )
            parts[shard["split"]].append(rows)
        return DatasetDict(
            {
                split: concatenate_datasets(datasets).select_columns(list(COLUMNS))
                if datasets
                else to_dataset([])
                for split, datasets in parts.items()
            }
        )

    def _rows(self, file: Path, split: str, form: str, log: ReadLog) -> Dataset:
        if form == "tar":
            rows = to_dataset(list(prepared_format.read_tar_shard(file, split)))
        else:
            rows = _with_places(Dataset.from_file(str(file)))
        log.locations |= {id: f"{file.name} item {at}" for at, id in enumerate(rows["id"][:], start=1)}
        return rows

    def _refuse_changed(self, file: Path, shard: dict[str, object]) -> None:
        try:
            same = file.stat().st_size == shard["bytes"]
        except OSError:
            same = False
        if not same or (self.verify and prepared_format.file_sha256(file) != shard["sha256"]):
            raise DataError(f"{file}: differs from the manifest: prepare the corpus again")


def _with_places(rows: Dataset) -> Dataset:
    """The rows of an Arrow shard, with its images as ranges of bytes of the file: no copy holds them."""
    places = list(arrow_images.image_ranges(rows, "image") or ())
    if not places or not all(places):
        return _as_standard(rows, features())
    others = {name: kind for name, kind in features().items() if name != "image"}
    rows = _as_standard(rows.remove_columns("image"), Features(others))
    images = [{"path": place, "bytes": None} for place in places]
    return rows.add_column("image", images, feature=features()["image"])


def _as_standard(rows: Dataset, kinds: Features) -> Dataset:
    # A cast that is not in memory writes a copy of the shard beside it.
    return rows if rows.features == kinds else rows.cast(kinds, keep_in_memory=True)


def _folder(path: Path | str) -> Path:
    """The folder on this machine.

    Raises: DataError for a corpus at an address that cannot be fetched.
    """
    return fetched_corpus.fetched_corpus(str(path)) if fetched_corpus.is_address(path) else Path(path)
