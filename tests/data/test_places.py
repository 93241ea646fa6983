"""A place inside a file survives a path; names that only look like one stay names."""

from __future__ import annotations

from pathlib import Path

import pytest

from domainclip.data import places


def test_a_place_is_what_join_wrote():
    keys = {"frame": 12, "window": "a & b#c=d é", "empty": ""}
    assert places.split(places.join("/data/a.dcm", keys)) == (
        "/data/a.dcm",
        {"frame": "12", "window": "a & b#c=d é", "empty": ""},
    )


def test_without_keys_the_path_stays_as_it_is():
    assert places.join("/data/a.dcm", {}) == "/data/a.dcm"
    assert places.split("/data/a.dcm") == ("/data/a.dcm", {})


@pytest.mark.parametrize(
    "name", ["mass #3.png", "a#b.png", "#frame=1", "a#", "a#=1", "a.dcm#Frame=1", "a#frame"]
)
def test_other_names_with_a_number_sign_are_names(name: str):
    assert places.split(name) == (name, {})


def test_a_real_file_whose_name_looks_like_a_place_wins(tmp_path: Path):
    file = tmp_path / "a.dcm#frame=1"
    assert places.split(str(file)) == (str(tmp_path / "a.dcm"), {"frame": "1"})
    file.write_bytes(b"x")
    assert places.split(str(file)) == (str(file), {})


def test_a_file_with_a_number_sign_can_hold_a_place():
    assert places.split("a#1.dcm#frame=2") == ("a#1.dcm", {"frame": "2"})


@pytest.mark.parametrize("name", ["a\0.dcm#frame=2", "x" * 5000 + "#frame=2"])
def test_names_that_no_file_can_have_are_no_crash(name: str):
    assert places.split(name)[1] == {"frame": "2"}


def test_the_beginning_of_a_place_and_the_file_that_it_means(tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    file.write_bytes(b"0123456789")
    path = places.join(str(file), {"offset": 2, "size": 5, "frame": 3})
    assert places.content(path, 3) == b"234"
    assert places.content(path, 50) == b"23456"
    assert places.content(str(file), 4) == b"0123"
    assert places.whole(path) == f"{file}#offset=2&size=5"
    assert places.whole(f"{file}#frame=3") == str(file)
