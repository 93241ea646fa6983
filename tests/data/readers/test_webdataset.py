"""Tar shards, local and streamed; fault 31: what a hostile or broken one holds is counted, and never runs."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import pickle
import tarfile
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domainclip.data.cards import Card
from domainclip.data.corpus import Corpus, load_corpus
from domainclip.data.files import locations, remote
from domainclip.data.images.decode import decode_image
from domainclip.data.quarantine import ReadLog
from domainclip.data.streaming import EpochReader, windows
from domainclip.errors import DataError
from tests.data.made_shards import pair, png, shards, special, tar


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))


def _card(**more: Any) -> Card:
    return Card.model_validate(
        {
            "name": "test",
            "reader": "webdataset",
            "privacy": {"identifiers": "none"},
            "max_unusable": 0.9,
            **more,
        }
    )


def _load(path: Path | str, **more: Any) -> Corpus:
    return load_corpus(_card(**more), str(path))


def _rows(corpus: Corpus) -> dict[str, list[str]]:
    return {
        split: [text for own in rows["texts"][:] for text in own] for split, rows in corpus.splits.items()
    }


def test_shards_of_a_folder_in_order(tmp_path: Path) -> None:
    corpus = _load(shards(tmp_path / "s", [2, 3]))
    assert corpus.splits["train"]["id"][:] == [
        "train-000.tar/0-0",
        "train-000.tar/0-1",
        "train-001.tar/1-0",
        "train-001.tar/1-1",
        "train-001.tar/1-2",
    ]
    assert _rows(corpus)["train"] == [
        "caption 0-0",
        "caption 0-1",
        "caption 1-0",
        "caption 1-1",
        "caption 1-2",
    ]
    for row, value in zip(corpus.splits["train"], (0, 1, 100, 101, 102), strict=True):
        assert row["image"]["bytes"] is None  # pixels stay where they are until they are needed
        assert locations.read_location(row["image"]["path"]) == png(value)
        assert np.asarray(decode_image(row["image"]))[0, 0].tolist() == [value, 0, 7]
    assert len(set(corpus.digests.values())) == 5
    assert corpus.unusable == []


def test_a_pattern_names_its_shards(tmp_path: Path) -> None:
    shards(tmp_path, [1] * 12, "part-{:02d}.tar")
    corpus = _load(tmp_path / "part-{09..11}.tar", splits={"train": 1, "validation": 0, "test": 0})
    assert corpus.splits["train"]["id"][:] == ["part-09.tar/9-0", "part-10.tar/10-0", "part-11.tar/11-0"]
    with pytest.raises(DataError) as error:
        _load(tmp_path / "part-{10..14}.tar")
    assert str(error.value) == (
        f"{tmp_path}/part-12.tar: no such shard (3 of 5 are missing): check corpus.path"
    )


def test_splits_stand_in_names_folders_columns_or_shares(tmp_path: Path) -> None:
    tar(tmp_path / "a" / "train-0.tar", pair("x"))
    tar(tmp_path / "a" / "my_val_0.tar", pair("x"))
    tar(tmp_path / "a" / "test" / "0.tar", pair("x"))
    corpus = _load(tmp_path / "a")
    assert {split: rows["id"][:] for split, rows in corpus.splits.items()} == {
        "train": ["train-0.tar/x"],
        "validation": ["my_val_0.tar/x"],
        "test": ["test/0.tar/x"],
    }
    members = [
        m
        for i, said in enumerate(("train", "dev", "test"))
        for m in pair(f"k{i}", i, text=f"t{i}", part=said)
    ]
    tar(tmp_path / "b" / "0.tar", members)
    by_column = _load(tmp_path / "b", columns={"split": "part"})
    assert _rows(by_column) == {"train": ["t0"], "validation": ["t1"], "test": ["t2"]}
    shared = _load(tmp_path / "b", columns={"group": "part"}, splits={"train": 0, "validation": 0, "test": 1})
    assert _rows(shared) == {"train": [], "validation": [], "test": ["t0", "t1", "t2"]}


def test_json_keys_are_columns_and_cls_is_a_class(tmp_path: Path) -> None:
    members = [*pair("a", 1, caption=["one", "two"], patient=7, sex="F", age=3), ("a.cls", b"1\n")]
    tar(tmp_path / "train.tar", members)
    columns = {"texts": "caption", "group": "patient", "meta": ["sex"]}
    corpus = _load(tmp_path, columns=columns, options={"class_names": ["cat", "dog"]})
    row = corpus.splits["train"][0]
    assert (row["texts"], row["labels"], row["group"], json.loads(row["meta"])) == (
        ["one", "two"],
        ["dog"],
        "7",
        {"sex": "F"},
    )
    with pytest.raises(DataError) as error:
        _load(tmp_path, columns={**columns, "group": "patent"})
    assert (
        str(error.value)
        == f'{tmp_path}: no column "patent" (corpus.columns.group): did you mean "patient"? there are: caption, patient, sex, age, label, key, shard.'
    )


def test_views_of_a_sample(tmp_path: Path) -> None:
    members = [*pair("a", 1), *((f"a.view{i}.png", png(i)) for i in (10, 2))]
    tar(tmp_path / "train.tar", members)
    (row,) = _load(tmp_path).splits["train"]
    assert [locations.read_location(view["path"]) for view in row["views"]] == [png(2), png(10)]


def test_an_index_is_read_once_and_again_when_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shards(tmp_path / "s", [3])
    before = _rows(_load(folder))
    opened: list[Any] = []
    real = tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda *a, **k: opened.append(a) or real(*a, **k))
    assert _rows(_load(folder)) == before
    assert opened == []
    tar(folder / "train-000.tar", pair("new"))
    opened.clear()
    assert _rows(_load(folder))["train"] == ["caption new"]
    assert len(opened) == 1


class _Bomb:
    """Whoever unpickles it makes a file."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch /tmp/domainclip-was-here",)


HOSTILE = {
    "missing image": [("b.txt", b"no picture")],
    "missing text": [("b.png", png(1))],
    "duplicate key": [*pair("b"), ("b.txt", b"again")],
    "link in tar": [("b.png", special(tarfile.SYMTYPE, "/etc/passwd")), ("b.txt", b"x")],
    "member name leads out of the tar": [("../b.png", png(1))],
    "device or other special member in tar": [("b.png", special(tarfile.CHRTYPE)), ("b.txt", b"x")],
    "broken .json": [("b.png", png(1)), ("b.json", b"{")],
    "its .json is not a mapping": [("b.png", png(1)), ("b.json", b"[1]")],
    "its text is not UTF-8": [("b.png", png(1)), ("b.txt", b"\xff\xfe\xfa")],
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("reason", HOSTILE)
def test_fault_31_what_is_broken_is_counted_and_the_rest_is_read(
    tmp_path: Path, reason: str, streaming: bool
) -> None:
    tar(tmp_path / "s" / "train.tar", [*pair("a", 5), *HOSTILE[reason], *pair("c", 6)])
    corpus = _load(tmp_path / "s", options={"streaming": streaming})
    texts = _rows(corpus)["train"]
    assert texts[0] == "caption a"
    assert texts[-1] == "caption c"
    counted = {item.reason for item in corpus.unusable}
    assert reason in counted
    (bad,) = (item for item in corpus.unusable if item.reason == reason)
    assert bad.location.startswith("shard 1 ")
    assert bad.source.startswith("train.tar")
    assert "b" in bad.source


@pytest.mark.parametrize(
    ("name", "header", "reason"),
    [
        ("/abs.png", None, "member name leads out of the tar"),
        ("x/../../b.png", None, "member name leads out of the tar"),
        ("c:\\b.png", None, "member name leads out of the tar"),
        ("b.png", special(tarfile.LNKTYPE, "a.png"), "link in tar"),
        ("b.png", special(tarfile.FIFOTYPE), "device or other special member in tar"),
        ("b.png", special(tarfile.BLKTYPE), "device or other special member in tar"),
        ("b.png", special(b"Z"), "device or other special member in tar"),
    ],
)
def test_fault_31_members_that_are_no_files(tmp_path: Path, name: str, header: Any, reason: str) -> None:
    tar(tmp_path / "train.tar", [*pair("a"), (name, header or png(3)), *pair("c")])
    corpus = _load(tmp_path)
    assert [(item.location, item.reason) for item in corpus.unusable] == [("shard 1 member 3", reason)]
    assert _rows(corpus)["train"] == ["caption a", "caption c"]


@pytest.mark.parametrize("streaming", [False, True])
def test_fault_31_pickles_are_never_loaded(tmp_path: Path, streaming: bool) -> None:
    flag = Path("/tmp/domainclip-was-here")
    flag.unlink(missing_ok=True)
    bomb = pickle.dumps(_Bomb())
    kinds = ("pkl", "pickle", "pyd", "pth", "pt", "npy")
    tar(tmp_path / "s" / "train.tar", [*pair("a"), *((f"a.{kind}", bomb) for kind in kinds), *pair("b")])
    corpus = _load(tmp_path / "s", options={"streaming": streaming})
    assert _rows(corpus)["train"] == ["caption a", "caption b"]
    assert not flag.exists()
    said = [note for note in corpus.notes if "members" in note]
    assert said == [
        "1 tar members .npy are not read",
        *(
            f"1 tar members .{kind} are never read, because they can run code"
            for kind in sorted(kinds)
            if kind != "npy"
        ),
    ]


@pytest.mark.parametrize("streaming", [False, True])
def test_fault_34_a_suffix_may_be_a_name(tmp_path: Path, streaming: bool) -> None:
    others = ("scan1.DOE_JANE_19561103", "doe/jane", "b.mp4", "scan2.x.Doe")
    tar(tmp_path / "s" / "train.tar", [*pair("a"), *((name, b"x") for name in others)])
    corpus = _load(tmp_path / "s", options={"streaming": streaming})
    assert [note for note in corpus.notes if "members" in note] == [
        "1 tar members .mp4 are not read",
        "3 tar members of other kinds are not read",
    ]


@pytest.mark.parametrize("cut", [700, 1536, 2100, -1030])
def test_fault_31_a_cut_tar_gives_what_is_whole(tmp_path: Path, cut: int) -> None:
    file = tar(
        tmp_path / "train.tar", [m for i in range(4) for m in pair(f"k{i}")], format=tarfile.USTAR_FORMAT
    )
    data = file.read_bytes()
    whole = 4 * 4 * 512  # four samples of two members, a header and a block each
    file.write_bytes(data[:cut] if cut > 0 else data[: whole + cut])
    if cut in (700, 1536):  # within the text of the first sample: in its header, and behind it
        with pytest.raises(DataError) as error:
            _load(tmp_path)
        assert str(error.value) == (
            f"{tmp_path}: no KEY.jpg with a KEY.txt, .json or .cls in 1 shard: 1 cut tar, 1 missing text"
        )
        return
    corpus = _load(tmp_path)
    reasons = [item.reason for item in corpus.unusable]
    assert "cut tar" in reasons
    assert _rows(corpus)["train"] == [f"caption k{i}" for i in range({2100: 1, -1030: 3}[cut])]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "1 not a tar file, or an empty one"),
        (b"\0" * 10240, ""),
        (b"not a tar at all" * 100, "1 not a tar file, or an empty one"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_fault_31_no_pair_at_all_is_an_error_and_no_hang(
    tmp_path: Path, content: bytes, found: str, streaming: bool
) -> None:
    (tmp_path / "train-0.tar").write_bytes(content)
    with pytest.raises(DataError) as error:
        _load(tmp_path, options={"streaming": streaming})
    more = f": {found}" if found else ""
    assert str(error.value) == f"{tmp_path}: no KEY.jpg with a KEY.txt, .json or .cls in 1 shard{more}"


@pytest.mark.parametrize("size", [-512, -1024])
def test_fault_31_a_negative_size_leads_nowhere(tmp_path: Path, size: int) -> None:
    file = tar(
        tmp_path / "train.tar", [*pair("a"), ("b.png", png(1)), *pair("c")], format=tarfile.USTAR_FORMAT
    )
    data = bytearray(file.read_bytes())
    at = data.index(b"b.png")
    data[at + 124 : at + 136] = (2**96 + size).to_bytes(12, "big", signed=False)  # base 256, below zero
    data[at + 124] = 0xFF
    data[at + 148 : at + 156] = b" " * 8
    total = sum(data[at : at + 512])
    data[at + 148 : at + 156] = f"{total:06o}\0 ".encode()
    file.write_bytes(data)
    corpus = _load(tmp_path)
    assert _rows(corpus)["train"] == ["caption a"]
    assert [item.reason for item in corpus.unusable] == ["broken tar"]


@pytest.mark.parametrize("scheme", ["pipe", "file", "ftp", "http"])
def test_fault_31_other_addresses_are_refused(tmp_path: Path, scheme: str) -> None:
    flag = tmp_path / "ran"
    with pytest.raises(DataError) as error:
        _load(f"{scheme}:touch {flag}; cat x.tar", options={"streaming": True})
    assert str(error.value) == (
        f"corpus.path: {scheme}: is not read, and no command is ever run: name a folder of .tar files, or a "
        "pattern such as shard-{000..099}.tar; it may begin with https://, hf://, s3://, gs:// or az://"
    )
    assert not flag.exists()


def test_nothing_is_written_beside_the_shards(tmp_path: Path) -> None:
    folder = shards(tmp_path / "s", [2])
    _load(folder)
    assert [file.name for file in folder.rglob("*")] == ["train-000.tar"]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    asked: list[str] = []

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
            return
        super().do_GET()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server of tmp_path/s; it knows no ranges, as many do not."""
    _Quiet.asked.clear()
    handler = functools.partial(_Quiet, directory=str(tmp_path / "s"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_remote_shards_are_streamed(tmp_path: Path, server: str) -> None:
    shards(tmp_path / "s", [3, 2])
    shards(tmp_path / "s", [4], "test-{:03d}.tar")
    path = server + "/{train-000,train-001,test-000}.tar"
    corpus = _load(path, options={"streaming": True, "held_out": 3})
    assert corpus.stream is not None
    assert corpus.stream.shard_sizes == (3, 2)
    assert len(corpus.splits["train"]) == 5
    assert len(corpus.splits["test"]) == 3
    assert corpus.splits["train"][0]["image"]["bytes"] == png(0)
    assert "test: the first 3 items of a stream are used (corpus.options.held_out)" in corpus.notes
    assert "2 shards were read once to be counted: put a sizes.json beside them" in corpus.notes
    with pytest.raises(DataError) as error:
        _load(path)
    assert str(error.value) == (
        "corpus.path: shards on another machine are streamed: set corpus.options.streaming=true"
    )


def test_sizes_beside_remote_shards_spare_the_counting(tmp_path: Path, server: str) -> None:
    shards(tmp_path / "s", [3, 2])
    (tmp_path / "s" / "sizes.json").write_text('{"train-000.tar": 3, "train-001.tar": 2}')
    corpus = _load(server + "/train-{000..001}.tar", options={"streaming": True})
    assert corpus.stream is not None
    assert corpus.stream.shard_sizes == (3, 2)
    assert not [note for note in corpus.notes if "counted" in note]


@pytest.mark.parametrize(("held", "said_to_hold"), [(40, 25), (25, 40)])
def test_sizes_that_are_wrong_lose_and_repeat_nothing(
    tmp_path: Path, server: str, held: int, said_to_hold: int
) -> None:
    shards(tmp_path / "s", [held])
    (tmp_path / "s" / "sizes.json").write_text(json.dumps({"train-000.tar": said_to_hold}))
    corpus = _load(server + "/train-000.tar", options={"streaming": True, "lanes": 1, "buffer": 8})
    assert corpus.stream is not None
    said = (
        f"shard train-000.tar: holds {held} samples and not {said_to_hold}: mend or remove the sizes.json or "
        "manifest.json beside it; where there is none, it was changed: start again"
    )
    with pytest.raises(DataError) as error:
        list(corpus.stream.rows(ReadLog()))
    assert str(error.value) == said
    reader = EpochReader(corpus.stream, seed=0)
    epoch = [window for window, _ in islice(windows(said_to_hold, 0, 1, 0, 8), -(-said_to_hold // 8))]
    assert {window.epoch for window in epoch} == {0}  # the line's end is looked at within its epoch
    with pytest.raises(DataError) as error:
        [reader.rows(window) for window in epoch]
    assert str(error.value) == said


def test_sizes_are_those_of_the_folder(tmp_path: Path, server: str) -> None:
    for folder, size in (("a", 3), ("b", 5)):
        shards(tmp_path / "s" / folder, [size])
        (tmp_path / "s" / folder / "sizes.json").write_text(json.dumps({"train-000.tar": size}))
    corpus = _load(server + "/{a,b}/train-000.tar", options={"streaming": True})
    assert corpus.stream is not None
    assert corpus.stream.shard_sizes == (3, 5)
    assert corpus.stream.shard_names == ("a/train-000.tar", "b/train-000.tar")
    assert len(list(corpus.stream.rows(ReadLog()))) == 8


def test_a_cut_remote_shard_is_counted_as_it_is_read(tmp_path: Path, server: str) -> None:
    file = tar(tmp_path / "s" / "train.tar", [*pair("a"), *pair("b"), ("c.png", png(3, 400))])
    file.write_bytes(file.read_bytes()[: 8 * 512 + 700])
    corpus = _load(server + "/train.tar", options={"streaming": True})
    assert corpus.stream is not None
    assert corpus.stream.shard_sizes == (2,)
    assert len(list(corpus.stream.rows(ReadLog()))) == 2


def test_folders_of_remote_shards_say_their_splits(tmp_path: Path, server: str) -> None:
    for folder, size in (("train", 4), ("val", 3), ("test", 2)):
        shards(tmp_path / "s" / folder, [size], "{:03d}.tar")
    corpus = _load(server + "/{train,val,test}/000.tar", options={"streaming": True})
    assert {split: len(rows) for split, rows in corpus.splits.items()} == {
        "train": 4,
        "validation": 3,
        "test": 2,
    }
    assert corpus.stream is not None
    assert corpus.stream.shard_names == ("train/000.tar",)


@pytest.mark.parametrize("streaming", [False, True])
def test_the_name_of_a_shard_goes_before_its_folder(tmp_path: Path, streaming: bool) -> None:
    shards(tmp_path / "s" / "dev-kit", [3])
    shards(tmp_path / "s" / "dev-kit", [2], "test-{:03d}.tar")
    shards(tmp_path / "s" / "dev-kit", [1], "more/{:03d}.tar")  # of which only the folder speaks
    corpus = _load(tmp_path / "s", options={"streaming": streaming})
    assert {split: len(rows) for split, rows in corpus.splits.items()} == {
        "train": 3,
        "validation": 1,
        "test": 2,
    }


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["cc-train-val-0.tar", "test-0.tar"],
            "shard cc-train-val-0.tar: names train and validation: name one split in its name and folder",
        ),
        (
            ["test/train-0.tar", "val-0.tar"],
            "shard test/train-0.tar: names test and train: name one split in its name and folder",
        ),
        (
            ["a-0.tar", "b-0.tar", "test-0.tar"],
            "{path}: 2 of 3 shards name no split, as a-0.tar, but the others do: name one in the name or folder "
            "of each, as in train-000.tar or val/000.tar",
        ),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_shards_that_do_not_say_clearly_what_is_trained_on(
    tmp_path: Path, names: list[str], said: str, streaming: bool
) -> None:
    for name in names:
        tar(tmp_path / "s" / name, pair("a", 1, text="x", part="train"))
    with pytest.raises(DataError) as error:
        _load(tmp_path / "s", options={"streaming": streaming})
    assert str(error.value) == said.format(path=tmp_path / "s")
    # Where a column says the split, names say nothing.
    assert len(_load(tmp_path / "s", columns={"split": "part"}).splits["train"]) == len(names)


def test_a_remote_shard_that_is_not_there(tmp_path: Path, server: str) -> None:
    (tmp_path / "s").mkdir()
    with pytest.raises(DataError) as error:
        _load(server + "/train-0.tar", options={"streaming": True})
    assert str(error.value) == "shard train-0.tar: cannot be opened: the server answered 404 File not found"


@pytest.mark.parametrize("scheme", ["http", "ftp"])
def test_a_redirection_stays_on_https(tmp_path: Path, server: str, scheme: str) -> None:
    (tmp_path / "s").mkdir()
    with pytest.raises(DataError) as error:
        _load(f"{server}/to?{scheme}://host.invalid/train-0.tar", options={"streaming": True})
    reason = "it leads to an address that is not https://"
    assert str(error.value) == f"shard train-0.tar: cannot be opened: {reason}"


def test_a_redirection_on_this_machine_is_followed(tmp_path: Path, server: str) -> None:
    shards(tmp_path / "s", [3])
    (tmp_path / "s" / "sizes.json").write_text('{"train-000.tar": 3}')
    with contextlib.closing(remote.open_stream(f"{server}/to?{server}/sizes.json")) as data:
        assert json.loads(data.read()) == {"train-000.tar": 3}


def test_a_stream_says_its_splits_by_its_shards(tmp_path: Path) -> None:
    tar(tmp_path / "0.tar", pair("a", 1, text="x", part="test"))
    with pytest.raises(DataError) as error:
        _load(tmp_path, options={"streaming": True}, columns={"split": "part"})
    assert str(error.value) == (
        "corpus.columns.split: the splits of a stream are in the names or folders of its shards, as in "
        "train-000.tar: leave it out"
    )


@pytest.mark.parametrize("streaming", [False, True])
def test_keys_with_dots_are_read_and_the_rest_is_counted(tmp_path: Path, streaming: bool) -> None:
    members = [m for i in range(9) for m in pair(f"{i:03}" if i % 3 else f"1.2.840.{i}", i)]
    members += [("1.2.9.png", png(20)), ("1.3.txt", b"alone"), ("008.seg.png", png(21)), ("x.5", b"")]
    tar(tmp_path / "s" / "train.tar", members)
    corpus = _load(tmp_path / "s", options={"streaming": streaming})
    assert len(_rows(corpus)["train"]) == 9
    assert sorted(item.reason for item in corpus.unusable) == [
        "missing image",
        "missing text",
        "missing text",
    ]
    assert "1 tar members of other kinds are not read" in corpus.notes
