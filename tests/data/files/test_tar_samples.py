"""Keys with dots: what is one sample, what is another one, and what is counted; local and as a stream."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest

from domainclip.data.files import tar
from domainclip.data.files.tar_samples import Sample, split_name
from tests.data.made_shards import tar as write_tar

Keys = dict[str, set[str]]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))


def _scan(folder: Path, names: list[str]) -> tuple[Keys, list[str], int]:
    """The samples by key, the ignored members, and the number of faults: the same of a file and a stream."""
    file = write_tar(folder / "s.tar", [(name, f"of {name}".encode()) for name in names])
    results = []
    for size in (file.stat().st_size, None):
        with file.open("rb") as stream:
            index = tar.TarIndex.from_entries(tar.scan_tar(stream, size=size))
        samples = {sample.key: set(sample.members) for sample in index.samples}
        ignored = sorted(f"{suffix} {count}" for suffix, count in index.ignored.items())
        results.append((samples, ignored, len(index.faults)))
    assert results[0] == results[1]
    return results[0]


@pytest.mark.parametrize(
    ("file", "parts"),
    [
        ("a.png", ("a", "png")),
        ("1.2.840.7.PNG", ("1.2.840.7", "png")),
        ("fig. 3.txt", ("fig. 3", "txt")),
        ("v1.2.json", ("v1.2", "json")),
        ("1.2.view0.png", ("1.2", "view0.png")),
        ("a..png", ("a.", "png")),
        ("png.png", ("png", "png")),
        (".png", ("", "")),
        ("._1.2.png", ("", "")),
        ("a.npy", ("", "")),
        ("1.2.840.7", ("", "")),
        ("a.DOE_JANE", ("", "")),
    ],
)
def test_a_name_is_cut_before_its_last_known_suffix(file: str, parts: tuple[str, str]) -> None:
    assert split_name(file) == parts


@pytest.mark.parametrize("key", ["1.2.840.{}", "fig. {}", "v1.{}", "a/b.c/1.{}", "{}.5", "x.jpg.{}"])
def test_keys_with_dots_are_samples(tmp_path: Path, key: str) -> None:
    keys = [key.format(number) for number in range(20)]
    samples, ignored, faults = _scan(tmp_path, [f"{k}.{s}" for k in keys for s in ("png", "txt")])
    assert samples == {name: {"png", "txt"} for name in keys}
    assert (ignored, faults) == ([], 0)


def test_keys_that_extend_each_other(tmp_path: Path) -> None:
    names = ["v1.png", "v1.txt", "v1.2.png", "v1.2.txt", "v1.2.3.png", "v1.2.3.txt", "v2.png", "v2.txt"]
    for order in (names, sorted(names)):
        samples, ignored, faults = _scan(tmp_path, order)
        assert samples == {key: {"png", "txt"} for key in ["v1", "v1.2", "v1.2.3", "v2"]}
        assert (ignored, faults) == ([], 0)


@pytest.mark.parametrize("order", list(permutations(["jpg", "depth.png", "seg.png", "txt"])))
def test_further_members_of_a_sample_are_counted_in_any_order(tmp_path: Path, order: tuple[str, ...]) -> None:
    names = [f"{key}.{part}" for key in ("000", "001") for part in order]
    assert _scan(tmp_path, names) == ({"000": {"jpg", "txt"}, "001": {"jpg", "txt"}}, ["*.png 4"], 0)


def test_the_text_of_a_whole_file_name(tmp_path: Path) -> None:
    assert _scan(tmp_path, ["cat.png", "cat.png.txt"]) == ({"cat": {"png", "txt"}}, [], 0)


def test_members_that_are_not_adjacent_are_counted(tmp_path: Path) -> None:
    names = [f"1.2.{n}.{suffix}" for suffix in ("png", "txt") for n in range(30)]
    samples, ignored, faults = _scan(tmp_path, names)
    assert sum(map(len, samples.values())) + len(ignored) + faults == 60
    assert faults > 0


def test_every_member_is_read_or_counted(tmp_path: Path) -> None:
    """Whatever the names and their order: members of samples, ignored members and faults add up."""
    stems, suffixes = ["a", "a.b", "a.b.c", "b", "b.a"], ["png", "txt", "json", "npy", "view0.png", "Doe"]
    names = [f"{stem}.{suffix}" for stem in stems for suffix in suffixes]
    for step in (1, 7, 11, 13, 17, 19, 23, 29):
        order = [names[i * step % len(names)] for i in range(len(names))]
        order = list(dict.fromkeys(order))
        samples, ignored, faults = _scan(tmp_path, order)
        counted = sum(int(line.split()[1]) for line in ignored) + faults
        assert sum(map(len, samples.values())) + counted == len(order)


def test_a_stream_skips_samples_of_keys_with_dots(tmp_path: Path) -> None:
    """The bytes of a sample do not depend on where the reading starts."""
    keys = ["1.2", "1.2.3", "1.2.3.4", "x", "1.5", "1.6"]
    names = [f"{key}.{suffix}" for key in keys for suffix in ("png", "txt", "seg.png")]
    file = write_tar(tmp_path / "s.tar", [(name, f"of {name}".encode()) for name in names])

    def samples(skip: int) -> list[Sample]:
        with file.open("rb") as stream:
            return [entry for entry in tar.scan_tar(stream, skip=skip) if isinstance(entry, Sample)]

    whole = samples(0)
    assert [sample.key for sample in whole] == keys
    for skip in range(len(whole)):
        assert samples(skip)[skip:] == whole[skip:]
