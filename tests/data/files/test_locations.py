"""Locations: a fragment survives a round trip; names that only resemble a location have no fragment."""

from __future__ import annotations

from pathlib import Path

import pytest

from domainclip.data.files import locations


def test_split_location_reverses_join_location():
    keys = {"frame": 12, "window": "a & b#c=d é", "empty": ""}
    assert locations.split_location(locations.join_location("/data/a.dcm", keys)) == (
        "/data/a.dcm",
        {"frame": "12", "window": "a & b#c=d é", "empty": ""},
    )


def test_without_keys_the_path_is_unchanged():
    assert locations.join_location("/data/a.dcm", {}) == "/data/a.dcm"
    assert locations.split_location("/data/a.dcm") == ("/data/a.dcm", {})


@pytest.mark.parametrize(
    "name", ["mass #3.png", "a#b.png", "#frame=1", "a#", "a#=1", "a.dcm#Frame=1", "a#frame"]
)
def test_other_names_with_a_number_sign_have_no_fragment(name: str):
    assert locations.split_location(name) == (name, {})


def test_an_existing_file_named_like_a_location_has_no_fragment(tmp_path: Path):
    file = tmp_path / "a.dcm#frame=1"
    assert locations.split_location(str(file)) == (str(tmp_path / "a.dcm"), {"frame": "1"})
    file.write_bytes(b"x")
    assert locations.split_location(str(file)) == (str(file), {})


def test_the_name_before_a_fragment_may_contain_a_number_sign():
    assert locations.split_location("a#1.dcm#frame=2") == ("a#1.dcm", {"frame": "2"})


@pytest.mark.parametrize("name", ["a\0.dcm#frame=2", "x" * 5000 + "#frame=2"])
def test_names_that_no_file_can_have_raise_nothing(name: str):
    assert locations.split_location(name)[1] == {"frame": "2"}


def test_reading_the_beginning_of_a_tar_member(tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    file.write_bytes(b"0123456789")
    path = locations.join_location(str(file), {"offset": 2, "size": 5, "frame": 3})
    assert locations.read_location(path, 3) == b"234"
    assert locations.read_location(path, 50) == b"23456"
    assert locations.read_location(str(file), 4) == b"0123"
    assert locations.resolve_location(path) == f"{file}#offset=2&size=5"
    assert locations.resolve_location(f"{file}#frame=3") == str(file)


def test_reading_the_heads_of_members_and_files(tmp_path: Path) -> None:
    file, other, odd = tmp_path / "a.tar", tmp_path / "b.dcm", tmp_path / "a#offset=1&size=2"
    file.write_bytes(b"0123456789")
    other.write_bytes(b"other")
    odd.write_bytes(b"odd")
    paths = [
        *(f"{file}#offset=2&size=5", f"{file}#offset=7&size=2", str(other), str(tmp_path / "none")),
        *(f"{file}#offset=8&size=9", str(odd), f"{other}#frame=3"),
    ]
    assert list(locations.read_heads(paths, 3)) == [b"234", b"78", b"oth", None, b"89", b"odd", b"oth"]


def test_the_location_of_a_member_is_that_of_its_keys() -> None:
    for file in ("/data/a.tar", "sky #3/b c.tar", "ü.tar"):
        expected = locations.join_location(file, {"offset": 512, "size": 70})
        assert locations.member_location(file, 512, 70) == expected
        assert locations.split_location(expected) == (file, {"offset": "512", "size": "70"})
