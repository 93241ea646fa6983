"""What `data prepare` writes: equal pixels, nothing that identifies, the same bytes however it was made."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from domainclip.data import prepared_format
from domainclip.data.cards import Card, load_card
from domainclip.data.corpus import load_corpus
from domainclip.data.images.decode import decode_image
from domainclip.data.images.reencode import Reencoder
from domainclip.errors import DataError
from domainclip.pipelines.data_prepare import write_prepared_corpus
from domainclip.pipelines.prepared_shards import PrepareRequest
from tests.data.made_corpora import dicom_file, noise_image, table
from tests.data.made_shards import pair, tar

COLUMNS = {"image": "file_name", "texts": "text", "group": "patient", "labels": "label", "split": "split"}


def _card(**more: object) -> Card:
    return load_card(None, {"columns": COLUMNS, "max_unusable": 0.2, **more})


def _corpus(
    folder: Path, n: int = 22, size: tuple[int, int] = (24, 20), broken: tuple[int, ...] = ()
) -> Path:
    rows = [
        {
            "file_name": f"Smith_John_{i}.png",
            "text": f"a picture {i}",
            "patient": f"MRN{i // 2}",
            "label": "cat" if i % 2 else "dog",
            "split": ("train", "train", "val", "test")[i % 4],
            "sex": "F",
        }
        for i in range(n)
    ]
    made = table(folder, rows)
    for i, row in enumerate(rows):
        noise_image(folder / row["file_name"], i, size)
        if i in broken:
            (folder / row["file_name"]).write_bytes(b"not a picture")
    return made


def _said(lines: list[str]) -> Callable[[str], None]:
    return lines.append


def _bytes(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def _prepared(
    path: Path, out: Path, wanted: PrepareRequest | None = None, workers: int = 1, **card: object
) -> Path:
    return write_prepared_corpus(
        _card(**card),
        str(path),
        out,
        wanted or PrepareRequest(Reencoder(256), items=5),
        workers,
        lambda line: None,
    )


def _pixels(card: Card, path: Path) -> dict[tuple[str, str], np.ndarray]:
    """By split and caption."""
    corpus = load_corpus(card, str(path))
    return {
        (split, row["texts"][0]): np.asarray(decode_image(row["image"]))
        for split, rows in corpus.splits.items()
        for row in rows
    }


@pytest.mark.parametrize("form", ["tar", "arrow"])
def test_pixels_are_those_of_the_source(tmp_path: Path, form: prepared_format.ShardFormat) -> None:
    source = _corpus(tmp_path / "source")
    _prepared(source, tmp_path / "out", PrepareRequest(Reencoder(256), form, 5))
    before, after = _pixels(_card(), source), _pixels(_card(), tmp_path / "out")
    assert len(before) == 22
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("form", ["tar", "arrow"])
def test_captions_classes_groups_and_meta_are_kept(tmp_path: Path, form: prepared_format.ShardFormat) -> None:
    card = _card(
        columns={**COLUMNS, "truth": "label", "meta": ["sex"]}, captions={"template": "{label}: {text}"}
    )
    source = _corpus(tmp_path / "source")
    wanted = PrepareRequest(Reencoder(256), form, 5)
    write_prepared_corpus(card, str(source), tmp_path / "out", wanted, 1, lambda line: None)
    before, after = load_corpus(card, str(source)), load_corpus(card, str(tmp_path / "out"))
    for split in ("train", "validation", "test"):
        for column in ("texts", "language", "labels", "meta"):
            assert before.splits[split][column][:] == after.splits[split][column][:]
        for column in ("group", "truth"):
            keys = [corpus.splits[split][column][:] for corpus in (before, after)]
            # Other names for the same groups and truth keys.
            assert len(set(zip(*keys, strict=True))) == len(set(keys[0])) == len(set(keys[1]))
    assert after.splits["train"]["texts"][0] == ["dog: a picture 0"]


def test_the_short_side_is_shrunk_and_nothing_is_enlarged(tmp_path: Path) -> None:
    source = _corpus(tmp_path / "source", size=(40, 20))
    _prepared(source, tmp_path / "out", PrepareRequest(Reencoder(10), items=50))
    _prepared(source, tmp_path / "same", PrepareRequest(Reencoder(20), items=50))
    before, small = _pixels(_card(), source), _pixels(_card(), tmp_path / "out")
    for key, pixels in before.items():
        expected = Image.fromarray(pixels).resize((20, 10), Image.Resampling.BICUBIC)
        assert np.array_equal(small[key], np.asarray(expected))
    assert all(np.array_equal(one, before[key]) for key, one in _pixels(_card(), tmp_path / "same").items())


def test_a_long_side_is_cut_to_a_whole_number() -> None:
    # 33 * 10 / 20 = 16.5, and the processors of the checkpoints cut.
    assert Reencoder(10).resize(Image.new("RGB", (33, 20))).size == (16, 10)
    assert Reencoder(10).resize(Image.new("RGB", (20, 33))).size == (10, 16)


@pytest.mark.parametrize(("format", "suffix"), [("png", "png"), ("webp", "webp"), ("jpeg", "jpg")])
def test_formats(format: str, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    shrink = Reencoder(256, format)  # type: ignore[arg-type]
    data = shrink.encode(Image.fromarray(noise))
    again = np.asarray(decode_image({"path": None, "bytes": data}))
    assert shrink.suffix == suffix
    assert Image.open(io.BytesIO(data)).format == format.upper()
    if format == "jpeg":
        assert 0 < np.abs(again.astype(int) - noise).mean() < 8
    else:
        assert np.array_equal(again, noise)


def test_grey_is_stored_as_grey_and_read_as_it_was() -> None:
    grey = np.repeat(np.arange(60, dtype=np.uint8).reshape(6, 10, 1), 3, axis=2)
    data = Reencoder(256).encode(Image.fromarray(grey))
    assert Image.open(io.BytesIO(data)).mode == "L"
    assert np.array_equal(np.asarray(decode_image({"path": None, "bytes": data})), grey)


def test_workers_change_no_byte(tmp_path: Path) -> None:
    source = _corpus(tmp_path / "source", broken=(3, 9))
    _prepared(source, tmp_path / "one", workers=1)
    _prepared(source, tmp_path / "two", workers=2)
    assert _bytes(tmp_path / "one") == _bytes(tmp_path / "two")
    assert len(_bytes(tmp_path / "one")) == 6  # shards of 12, 4 and 4 items, at most 5 each, and the manifest


def test_the_manifest_says_all(tmp_path: Path) -> None:
    source = _corpus(tmp_path / "source", broken=(3,))  # row 4 is of the test split
    file = _prepared(source, tmp_path / "out")
    manifest = json.loads(file.read_text())
    assert {
        key: manifest[key] for key in ("format", "version", "form", "settings", "counts", "left_out")
    } == {
        "format": "domainclip-prepared",
        "version": 2,
        "form": "tar",
        "settings": {
            "short_side": 256,
            "format": "png",
            "resample": 3,
            "items_a_shard": 5,
            "identifiers": "refuse",
        },
        "counts": {"train": 12, "validation": 5, "test": 4},
        "left_out": {"not an image": 1},
    }
    shards = manifest["shards"]
    assert [(one["file"], one["split"], one["items"]) for one in shards] == [
        ("train-00000.tar", "train", 5),
        ("train-00001.tar", "train", 5),
        ("train-00002.tar", "train", 2),
        ("validation-00000.tar", "validation", 5),
        ("test-00000.tar", "test", 4),
    ]
    for one in shards:
        data = (tmp_path / "out" / one["file"]).read_bytes()
        assert (one["bytes"], one["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert sorted(os.listdir(tmp_path / "out")) == sorted([*(one["file"] for one in shards), "manifest.json"])


@pytest.mark.parametrize("form", ["tar", "arrow"])
@pytest.mark.parametrize("kind", ["dcm", "jpg"])
def test_nothing_that_identifies_is_written(
    tmp_path: Path, form: prepared_format.ShardFormat, kind: str
) -> None:
    names = [f"DOE_JANE_{i}.{kind}" for i in range(4)]
    rows = [
        {"file_name": name, "text": "clear lungs", "patient": "MRN-77", "split": "train"} for name in names
    ]
    source = table(tmp_path / "SECRETWARD", rows, images=False).parent
    for name in names:
        if kind == "dcm":
            stored = np.arange(72, dtype=np.uint16).reshape(9, 8)
            dicom_file(
                source / name,
                stored,
                PatientName="DOE^JANE",
                PatientID="MRN-77",
                StudyDate="19991231",
                StudyInstanceUID="1.2.3.777.5",
            )
        else:
            exif = Image.Exif()
            exif[0x010E] = "DOE JANE 19991231"
            profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
            Image.new("RGB", (9, 8), (9, 99, 200)).save(
                source / name, exif=exif, comment=b"MRN-77", icc_profile=profile
            )
    reader = {"reader": "dicom", "options": {"reports": "metadata.csv"}} if kind == "dcm" else {}
    card = load_card(None, {"columns": {**COLUMNS, "labels": ""}, **reader})
    write_prepared_corpus(
        card, str(source), tmp_path / "out", PrepareRequest(Reencoder(256), form), 1, lambda line: None
    )
    written = b"".join(file.read_bytes() + file.name.encode() for file in (tmp_path / "out").iterdir())
    assert written.count(b"clear lungs") >= 4
    planted = (
        b"DOE",
        b"JANE",
        b"MRN",
        b"19991231",
        b"1.2.3.777.5",
        b"SECRETWARD",
        b"." + kind.encode(),
        b"sRGB",
    )
    assert [one for one in planted if one in written and (one, kind) != (b".jpg", "jpg")] == []


def test_a_run_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    source = _corpus(tmp_path / "source")
    _prepared(source, tmp_path / "whole")
    out, lines = tmp_path / "out", list[str]()

    def stop(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_prepared_corpus(_card(), str(source), out, PrepareRequest(Reencoder(256), items=5), 1, stop)
    assert not (out / "manifest.json").exists()
    first = (out / "train-00000.tar").stat().st_mtime_ns
    data = bytearray((out / "train-00001.tar").read_bytes())
    data[-2000] ^= 1  # a shard that a disk spoiled is made again
    (out / "train-00001.tar").write_bytes(data)
    again: list[str] = []
    write_prepared_corpus(_card(), str(source), out, PrepareRequest(Reencoder(256), items=5), 1, again.append)
    assert again[0].startswith("train-00001.tar")
    assert (out / "train-00000.tar").stat().st_mtime_ns == first
    assert _bytes(out) == _bytes(tmp_path / "whole")
    (out / ".progress").mkdir()  # killed before this was removed
    write_prepared_corpus(_card(), str(source), out, PrepareRequest(Reencoder(256), items=5), 1, lines.append)
    assert lines[-1] == f"{out} is prepared already"
    assert _bytes(out) == _bytes(tmp_path / "whole")


def test_a_shard_that_is_lost_or_changed_is_made_again(tmp_path: Path) -> None:
    source = _corpus(tmp_path / "source", broken=(3, 4))
    _prepared(source, tmp_path / "whole")
    out = tmp_path / "out"
    _prepared(source, out)
    kept = (out / "train-00000.tar").stat().st_mtime_ns
    (out / "train-00001.tar").unlink()
    data = bytearray((out / "test-00000.tar").read_bytes())
    data[-2000] ^= 1
    (out / "test-00000.tar").write_bytes(data)
    lines: list[str] = []
    write_prepared_corpus(_card(), str(source), out, PrepareRequest(Reencoder(256), items=5), 1, lines.append)
    assert lines == [
        f"{out}: 2 of 5 shards are lost or changed, and made again: train-00001.tar, test-00000.tar",
        "train-00001.tar: 5 items",
        "test-00000.tar: 4 items",
        "11 train, 5 validation, 4 test in 5 shards; 2 left out: 2 not an image",
    ]
    assert _bytes(out) == _bytes(tmp_path / "whole")  # with the manifest, and what it says was left out
    assert (out / "train-00000.tar").stat().st_mtime_ns == kept


KILLED = """
import sys
from pathlib import Path
from domainclip.data.cards import load_card
from domainclip.data.images.reencode import Reencoder
from domainclip.pipelines.data_prepare import write_prepared_corpus
from domainclip.pipelines.prepared_shards import PrepareRequest
if __name__ == "__main__":
    card = load_card(None, {"columns": %r, "max_unusable": 0.2})
    request = PrepareRequest(Reencoder(256), items=5)
    write_prepared_corpus(card, sys.argv[1], Path(sys.argv[2]), request, 2, print)
"""


def test_kill_9_at_any_moment_loses_no_more_than_time(tmp_path: Path) -> None:
    source = _corpus(tmp_path / "source", n=80, size=(120, 100))
    _prepared(source, tmp_path / "whole")
    script = tmp_path / "killed.py"
    script.write_text(KILLED % COLUMNS)
    out, kept = tmp_path / "out", []
    draw = random.Random(3)
    for lines in (2, 1, 0):
        run = subprocess.Popen([sys.executable, str(script), str(source), str(out)], stdout=subprocess.PIPE)
        assert run.stdout is not None
        for _ in range(lines):  # let it write so many shards more
            run.stdout.readline()
        time.sleep(draw.random() / 5)
        run.send_signal(signal.SIGKILL)
        run.wait()
        run.stdout.close()
        kept.append(len(list(out.glob("*.tar"))) if out.exists() else 0)
    assert kept == sorted(kept)
    assert kept[-1] > 0
    (out / ".train-00000.tar.4711").write_bytes(b"half")  # killed while it wrote a file
    _prepared(source, out)
    assert _bytes(out) == _bytes(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"reencoder": Reencoder(128)}, "short_side"),
        ({"shard_format": "arrow"}, "form"),
        ({"reencoder": Reencoder(128, "webp"), "items": 7}, "short_side and format and items_a_shard"),
    ],
)
def test_other_settings_do_not_go_into_the_same_folder(
    tmp_path: Path, change: dict[str, object], text: str
) -> None:
    source, out = _corpus(tmp_path / "source", n=4), tmp_path / "out"
    _prepared(source, out)
    wanted = PrepareRequest(**{"reencoder": Reencoder(256), "items": 5, **change})  # type: ignore[arg-type]
    with pytest.raises(DataError) as error:
        _prepared(source, out, wanted)
    assert str(error.value) == f"{out}: was prepared from another {text}: remove it, or name a new folder"


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    source, out = _corpus(tmp_path / "source", n=4), tmp_path / "out"
    out.mkdir()
    (out / "thesis.doc").write_text("mine")
    with pytest.raises(DataError) as error:
        _prepared(source, out)
    assert str(error.value) == f"{out}: holds other files: name a new folder"


def test_too_many_bad_pictures_stop_it_and_what_is_made_is_kept(tmp_path: Path) -> None:
    source, out = _corpus(tmp_path / "source", broken=(0, 4, 8)), tmp_path / "out"
    with pytest.raises(DataError) as error:
        _prepared(source, out, max_unusable=0.1)
    assert str(error.value).startswith(
        "corpus unnamed: 3 of 22 items are unusable (13.6%, limit 10.0%): 3 not an image; first: row 1 (not an "
        "image), row 5 (not an image), row 9 (not an image); repair them or raise corpus.max_unusable to 0.137"
    )
    assert not (out / "manifest.json").exists()
    file = _prepared(source, out, max_unusable=0.2)
    assert json.loads(file.read_text())["left_out"] == {"not an image": 3}


def test_other_programs_can_read_the_tar_shards(tmp_path: Path) -> None:
    _prepared(_corpus(tmp_path / "source", n=4), tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "train-00000.tar") as archive:
        members = archive.getmembers()
        texts = [archive.extractfile(one).read() for one in members if one.name.endswith(".txt")]  # type: ignore[union-attr]
    assert texts == [b"a picture 0", b"a picture 1"]
    assert [one.name.split(".")[1] for one in members] == ["png", "json", "txt"] * 2
    assert {(one.mtime, one.uid, one.uname, one.mode) for one in members} == {(0, 0, "", 0o644)}


@pytest.mark.parametrize(("format", "edge"), [("webp", 16_384), ("jpeg", 65_501)])
def test_a_picture_that_is_too_long_for_its_format(tmp_path: Path, format: str, edge: int) -> None:
    made = _corpus(tmp_path / "in")
    Image.new("RGB", (2, edge)).save(tmp_path / "in" / "Smith_John_4.png")
    out = _prepared(made, tmp_path / "out", PrepareRequest(Reencoder(256, format)))  # type: ignore[arg-type]
    assert json.loads(out.read_text())["left_out"] == {f"too long for {format}": 1}
    Reencoder(256, format).encode(Image.new("RGB", (2, edge - 1)))  # type: ignore[arg-type]  # the control


def test_faults_of_a_stream_are_counted_once(tmp_path: Path) -> None:
    members = [m for i in range(40) for m in pair(f"k{i:02d}", i)]
    members[14:16] = members[15:16]  # a text without its picture
    tar(tmp_path / "in" / "train-0.tar", members)
    streamed = {"reader": "webdataset", "options": {"streaming": True}, "max_unusable": 0.2}
    out = write_prepared_corpus(
        Card.model_validate({"name": "test", **streamed}),
        str(tmp_path / "in"),
        tmp_path / "out",
        PrepareRequest(Reencoder(256)),
        1,
        lambda line: None,
    )
    told = json.loads(out.read_text())
    assert told["left_out"] == {"missing image": 1}
    assert told["counts"]["train"] == 39
