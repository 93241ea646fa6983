"""Plain headers are read as `tarfile` reads them, and all others are left to it."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from domainclip.data.files import tar, tar_headers
from tests.data.made_shards import pair, special
from tests.data.made_shards import tar as write_tar

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
NAMES = ["a.txt", "é.txt", f"{'long/' * 30}b.txt", f"{'x' * 96}.txt", "c d#1.txt", "../up.txt"]


def _index(file: Path) -> tar.TarIndex:
    with file.open("rb") as stream:
        return tar.TarIndex.from_entries(tar.scan_tar(stream, size=file.stat().st_size))


@pytest.fixture
def plainly_read(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each header, whether it was read without `tarfile`."""
    calls: list[bool] = []

    def recorded(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
        calls.append((info := tar_headers.plain_member(archive)) is not None)
        return info

    monkeypatch.setattr(tar, "plain_member", recorded)
    return calls


def _by_tarfile(file: Path, monkeypatch: pytest.MonkeyPatch) -> tar.TarIndex:
    with monkeypatch.context() as patch:
        patch.setattr(tar, "plain_member", lambda archive: None)
        return _index(file)


@pytest.mark.parametrize("form", FORMATS)
def test_any_names_and_forms(tmp_path: Path, form: int, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [
        *pair("0"),
        *((name, name.encode()) for name in NAMES),
        ("l.txt", special(tarfile.SYMTYPE, "a")),
    ]
    file = write_tar(tmp_path / "s.tar", [*members, *pair("1"), *pair("2")], format=form)
    index = _index(file)
    assert index == _by_tarfile(file, monkeypatch)
    assert {"0", "1", "2", "c d#1", "é"} <= {sample.key for sample in index.samples}
    assert [fault.reason for fault in index.faults] == ["member name leads out of the tar", "link in tar"]


def test_plain_headers_are_read_without_tarfile(tmp_path: Path, plainly_read: list[bool]) -> None:
    file = write_tar(
        tmp_path / "s.tar", [m for n in range(5) for m in pair(str(n))], format=tarfile.USTAR_FORMAT
    )
    assert len(_index(file).samples) == 5
    # Nine members behind the first, and the zeros at the end.
    assert plainly_read == [True] * 9 + [False]


@pytest.mark.parametrize("form", FORMATS)
def test_a_broken_file_has_the_same_faults(
    tmp_path: Path, form: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write_tar(
        tmp_path / "s.tar", [m for n in range(4) for m in pair(str(n))], format=form
    ).read_bytes()
    file = tmp_path / "broken.tar"
    for size in range(256, len(whole), 512):
        file.write_bytes(whole[:size])
        assert _index(file) == _by_tarfile(file, monkeypatch), size
    for at in range(0, min(len(whole), 8192), 131):  # headers, contents and sizes with another byte
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 5]) + whole[at + 1 :])
        assert _index(file) == _by_tarfile(file, monkeypatch), at
