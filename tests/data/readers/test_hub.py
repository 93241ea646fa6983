from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from PIL import Image

from domainclip.data.corpus import load_corpus
from domainclip.data.files.locations import read_location, split_location
from domainclip.data.images.decode import decode_image
from domainclip.data.quarantine import ReadLog
from domainclip.data.readers import hub
from domainclip.data.readers.hub import Hub
from domainclip.data.readers.sources import arrow_images
from domainclip.errors import DataError, ExitCode, HubError
from tests.data.made_corpora import card, encoded


@pytest.fixture(autouse=True)
def _no_bars() -> None:
    datasets.disable_progress_bars()


FEATURES = Features(
    {"image": datasets.Image(), "caption": List(Value("string")), "label": ClassLabel(names=["cat", "dog"])}
)


def _data(n: int, first: int = 0) -> Dataset:
    rows = range(first, first + n)
    return Dataset.from_dict(
        {
            "image": [{"bytes": encoded(Image.new("RGB", (4, 4), (i, 0, 0))), "path": None} for i in rows],
            "caption": [[f"picture {i}"] for i in rows],
            "label": [i % 2 for i in rows],
        },
        features=FEATURES,
    )


def _read(path: Path | str, **options: Any) -> tuple[DatasetDict, ReadLog]:
    log = ReadLog()
    return Hub(**options).read(card(), path, log), log


def test_a_saved_data_set_keeps_its_splits(tmp_path: Path) -> None:
    DatasetDict(train=_data(3), dev=_data(2, 3), test=_data(1, 5)).save_to_disk(tmp_path)
    splits, log = _read(tmp_path)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 3, "validation": 2, "test": 1}
    row = splits["validation"][1]
    assert (row["texts"], row["labels"], row["group"]) == (["picture 4"], ["cat"], "dev row 2")
    assert decode_image(row["image"]).getpixel((0, 0)) == (4, 0, 0)
    assert log.locations["dev row 2"] == "dev row 2"
    assert log.guessed["image"] == "image"


def test_a_lone_split_is_divided(tmp_path: Path) -> None:
    _data(60).save_to_disk(tmp_path)
    splits, _ = _read(tmp_path)
    sizes = {name: len(rows) for name, rows in splits.items()}
    assert sum(sizes.values()) == 60
    assert min(sizes.values()) > 0


def test_the_first_rows_only(tmp_path: Path) -> None:
    DatasetDict(train=_data(5), test=_data(5, 5)).save_to_disk(tmp_path)
    splits, _ = _read(tmp_path, limit=2)
    assert splits["train"]["texts"][:] == [["picture 0"], ["picture 1"]]
    assert len(splits["test"]) == 2


def test_a_data_set_of_the_hub_streams_at_a_noted_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Info:
        sha = "a" * 40

    def load(path: str, config: str | None, revision: str, streaming: bool) -> datasets.IterableDatasetDict:
        asked.append((path, config, revision, streaming))
        return datasets.IterableDatasetDict(train=_data(9).to_iterable_dataset())

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda self, path, revision: Info)
    monkeypatch.setattr("datasets.load_dataset", load)
    splits, log = _read("lab/birds", streaming=True, limit=4)
    assert asked == [("lab/birds", None, "a" * 40, True)]
    assert sum(map(len, splits.values())) == 4
    assert log.notes[0] == f"data set lab/birds at commit {'a' * 40}"


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("no route\nand more")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", fail)
    with pytest.raises(HubError) as caught:
        _read("lab/birds")
    assert str(caught.value) == "data set lab/birds: cannot be fetched: no route and more: try again"
    assert caught.value.code == ExitCode.HUB


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        _read(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: not a data set of save_to_disk: set corpus.reader=table or =folder"
    )
    DatasetDict(train=_data(1), odd=_data(1)).save_to_disk(tmp_path / "d")
    with pytest.raises(DataError) as caught:
        _read(tmp_path / "d")
    assert str(caught.value) == (
        "split odd: not the name of a split: use train, validation (val, valid, dev) or test"
    )


def test_a_row_may_not_reach_for_other_files(tmp_path: Path) -> None:
    features = Features(
        {"image": {"bytes": Value("binary"), "path": Value("string")}, "caption": Value("string")}
    )
    rows = {"image": [{"bytes": None, "path": "/etc/passwd"}], "caption": ["x"]}
    Dataset.from_dict(rows, features=features).save_to_disk(tmp_path)
    with pytest.raises(DataError) as caught:
        _read(tmp_path)
    assert str(caught.value) == (
        f"data set {tmp_path}: train row 1, column image: the file lies outside the corpus folder {tmp_path}: "
        "move or copy it inside"
    )


def test_a_row_without_a_image_is_counted(tmp_path: Path) -> None:
    data = _data(2)
    data = Dataset.from_dict(
        {**data.to_dict(), "image": [None, data.to_dict()["image"][1]]}, features=FEATURES
    )
    data.save_to_disk(tmp_path)
    loaded = load_corpus(card(reader="hub", max_unusable=0.5), str(tmp_path))
    assert [(bad.location, bad.reason) for bad in loaded.unusable] == [("train row 1", "missing file")]


def _builder(monkeypatch: pytest.MonkeyPatch, name: str, **files: list[str]) -> None:
    """The Hub knows one data set, whose files lie here."""
    made = datasets.load_dataset_builder(name, data_files=files)
    monkeypatch.setattr(hub, "_builder", lambda path, config, revision: made)
    monkeypatch.setattr(Hub, "_commit", lambda self, path: None)


def _parquet(folder: Path, sizes: tuple[int, ...]) -> list[str]:
    files, first = [], 0
    for shard, n in enumerate(sizes):
        files.append(str(folder / f"train-{shard}.parquet"))
        _data(n, first).to_parquet(files[-1], batch_size=4)
        first += n
    return files


def test_parquet_is_streamed_from_any_row_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = _parquet(tmp_path, (10, 3))
    _builder(monkeypatch, "parquet", train=files, test=files)
    stream = Hub(streaming=True).open_stream(card(), "lab/birds", ReadLog())
    assert stream is not None
    assert (stream.shard_sizes, stream.shard_names) == ((10, 3), ("train-0.parquet", "train-1.parquet"))
    log = ReadLog()
    for shard, start, numbers in ((0, 0, range(10)), (0, 7, range(7, 10)), (1, 2, [12])):
        rows = [row for row in stream.open_shard(shard, start, log) if row is not None]
        assert [row.values["caption"] for row in rows] == [[f"picture {i}"] for i in numbers]
        assert [row.values["label"] for row in rows] == [("cat", "dog")[i % 2] for i in numbers]
        assert [decode_image(row.image).getpixel((0, 0)) for row in rows] == [(i, 0, 0) for i in numbers]
    items = stream.to_items(stream.open_shard(0, 8, log), log)
    assert items["id"][:] == ["train-0.parquet/8", "train-0.parquet/9"]
    assert items["labels"][:] == [["cat"], ["dog"]]
    assert log.unusable == []


def test_what_cannot_be_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = _parquet(tmp_path, (2,))
    (tmp_path / "a.csv").write_text("image,caption\n")
    way_out = "read some rows with corpus.options.limit, or set corpus.options.streaming=false"
    for name, given, text in (
        ("parquet", {"train": files}, f"a stream cannot be divided, and this has one split: {way_out}"),
        ("csv", {"train": [str(tmp_path / "a.csv")]}, f"only Parquet can be streamed, not csv: {way_out}"),
        (
            "webdataset",
            {"train": files},
            "holds tar shards: read them with corpus.reader=webdataset "
            "corpus.path=hf://datasets/lab/birds/NAME-{000..099}.tar",
        ),
    ):
        _builder(monkeypatch, name, **given)
        with pytest.raises(DataError) as caught:
            Hub(streaming=True).open_stream(card(), "lab/birds", ReadLog())
        assert str(caught.value) == f"data set lab/birds: {text}"
    assert Hub(streaming=True, limit=3).open_stream(card(), "lab/birds", ReadLog()) is None


def test_saved_sets_that_are_none(tmp_path: Path) -> None:
    Dataset.from_dict({"image": [1, 2], "text": ["a", "b"]}).save_to_disk(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "dataset_info.json").write_text("{}")
    with pytest.raises(DataError) as error:
        load_corpus(card(reader="hub"), str(tmp_path / "a"))
    assert str(error.value) == (
        f'{tmp_path}/a: column "image" holds no images (int64): set corpus.columns.image'
    )
    with pytest.raises(DataError) as error:
        load_corpus(card(reader="hub"), str(tmp_path / "b"))
    assert str(error.value) == f"{tmp_path}/b: incomplete (FileNotFoundError): save the data set again"


def test_plain_bytes_in_a_streamed_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    from domainclip.data.readers.sources.parquet import ParquetShards

    data, file = encoded(Image.new("RGB", (4, 4))), str(tmp_path / "a.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"image": [data, None, b""], "text": ["a", "b", "c"]}), file)
    log = ReadLog()
    rows = list(ParquetShards((file,), "image")(0, 0, log))
    assert [row and row.image for row in rows] == [{"path": None, "bytes": data}, None, None]
    assert [(bad.location, bad.reason) for bad in log.unusable] == [
        ("shard 1 row 2", "missing image"),
        ("shard 1 row 3", "missing image"),
    ]


def test_broken_parquet_in_a_stream(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    from domainclip.data.readers.sources.parquet import ParquetShards, read_features

    file = tmp_path / "a.parquet"
    columns = {"image": [b"x"], "struct": pyarrow.array([{"inner": 1}])}
    pyarrow.parquet.write_table(pyarrow.table(columns), file, store_schema=False)
    whole, shards = file.read_bytes(), ParquetShards((str(file),), "image")
    name = "shard a.parquet: the name of a column or field is not UTF-8"
    for data, message in (
        (whole.replace(b"inner", b"\xff" * 5), name),
        (whole.replace(b"struct", b"\xff" * 6), name),
        (whole[:-1], "shard a.parquet: not a Parquet file: Parquet magic bytes not found in footer"),
        (b"", "shard a.parquet: not a Parquet file: Parquet file size is 0 bytes"),
    ):
        file.write_bytes(data)
        for read in (
            lambda: read_features(str(file)),
            shards.counts,
            lambda: list(shards(0, 0, ReadLog())),
        ):
            with pytest.raises(DataError) as error:
                read()
            assert str(error.value).startswith(message)


def test_class_numbers_without_a_name_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow
    import pyarrow.parquet

    (file,) = _parquet(tmp_path, (3,))
    rows = pyarrow.parquet.read_table(file)
    at = rows.schema.get_field_index("label")
    rows = rows.set_column(at, rows.schema.field(at), pyarrow.array([0, 1, 7]))
    pyarrow.parquet.write_table(rows, file)
    _builder(monkeypatch, "parquet", train=[file], test=[file])
    stream = Hub(streaming=True).open_stream(card(), "lab/birds", ReadLog())
    assert stream is not None
    log = ReadLog()
    assert len(list(stream.rows(log))) == 2
    fault = "column label: a class number without a name"
    assert [(bad.location, bad.reason) for bad in log.unusable] == [("shard 1 row 3", fault)]


def test_columns_that_are_not_used_are_not_read(tmp_path: Path) -> None:
    """A second image column that is broken costs nothing."""
    data = _data(2)
    broken = [{"bytes": b"no image", "path": None}] * 2
    data = data.add_column("mask", broken).cast_column("mask", datasets.Image())
    data.save_to_disk(tmp_path)
    splits, log = _read(tmp_path)
    assert (sum(map(len, splits.values())), log.unusable) == (2, [])


def _held(splits: DatasetDict) -> list[bytes | None]:
    return [row["image"]["bytes"] for items in splits.values() for row in items]


def test_images_stay_in_the_files_of_the_data_set(tmp_path: Path) -> None:
    """Their bytes are a range of a file, the same as of the cell, and none is in memory."""
    DatasetDict(train=_data(5), test=_data(2, 5)).save_to_disk(
        tmp_path / "d", num_shards={"train": 2, "test": 1}
    )
    splits, _ = _read(tmp_path / "d")
    assert _held(splits) == [None] * 7
    expected = [encoded(Image.new("RGB", (4, 4), (i, 0, 0))) for i in range(7)]
    rows = [row for name in ("train", "test") for row in splits[name]]
    assert [read_location(row["image"]["path"]) for row in rows] == expected
    files = {split_location(row["image"]["path"])[0] for row in rows}
    assert sorted(Path(file).name for file in files) == [
        *("data-00000-of-00001.arrow", "data-00000-of-00002.arrow", "data-00001-of-00002.arrow")
    ]


def test_the_corpus_is_the_same_as_with_images_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    DatasetDict(train=_data(3), test=_data(2, 3)).save_to_disk(tmp_path / "d")
    in_files = load_corpus(card(reader="hub"), str(tmp_path / "d"))
    monkeypatch.setattr(arrow_images, "image_ranges", lambda *given: None)
    in_memory = load_corpus(card(reader="hub"), str(tmp_path / "d"))
    assert in_files.fingerprint == in_memory.fingerprint
    assert in_files.digests == in_memory.digests
    assert _held(in_files.splits) == [None] * 5
    assert None not in _held(in_memory.splits)  # control


def test_rows_whose_bytes_are_in_no_file_are_read(tmp_path: Path) -> None:
    """An image that is missing, or whose inner name selects a part of it; rows in memory, or in another order."""
    features = Features(
        {"image": {"bytes": Value("binary"), "path": Value("string")}, "caption": Value("string")}
    )
    data = encoded(Image.new("RGB", (4, 4)))
    cells = [
        {"bytes": data, "path": "a.png"},
        {"bytes": None, "path": None},
        {"bytes": data, "path": "scan.dcm#frame=2"},
    ]
    rows = Dataset.from_dict({"image": cells, "caption": ["a", "b", "c"]}, features=features)
    assert arrow_images.image_ranges(rows, "image") is None
    rows.save_to_disk(tmp_path)
    saved = Dataset.load_from_disk(str(tmp_path))
    ranges = arrow_images.image_ranges(saved, "image")
    assert ranges is not None
    first, missing, part = ranges
    assert (missing, part) == (None, None)
    assert first is not None
    assert read_location(first) == data
    assert arrow_images.image_ranges(saved.select([2, 0]), "image") is None
    assert arrow_images.image_ranges(saved, "caption") is None
