"""Lookup tables at their edges: sizes, depths, signs of the first input, bytes and words."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from pydicom.dataset import Dataset

from domainclip.data.dicom.lookup_tables import LookupTable, read_lookup_table


def _item(descriptor: list[int], data: bytes) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS", descriptor)
    item.add_new("LUTData", "OW", data)
    return item


def _dataset(little_endian: bool = True, **attributes: object) -> Dataset:
    dataset = Dataset()
    dataset.set_original_encoding(False, little_endian, "latin1")
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def _read(
    descriptor: list[int], data: bytes, little_endian: bool = True, **attributes: object
) -> LookupTable | None:
    return read_lookup_table(_item(descriptor, data), _dataset(little_endian, **attributes))


def test_values_outside_a_table_have_its_first_or_last_entry() -> None:
    table = LookupTable(np.array([7, 30, 90]), 10, 255)
    found = table.look_up(np.array([[-5.0, 10, 10.9, 11, 12, 13, 999, np.nan]]))
    assert found.tolist() == [[7, 7, 7, 30, 90, 90, 90, 7]]
    assert found.dtype == np.float64


@pytest.mark.parametrize(("depth", "maximum"), [(1, 1), (8, 255), (12, 4095), (16, 65535)])
def test_the_maximum_is_that_of_the_depth(depth: int, maximum: int) -> None:
    table = _read([2, 0, depth], struct.pack("<2H", 0, 1))
    assert table is not None
    assert (table.maximum, table.first, table.entries.tolist()) == (maximum, 0, [0, 1])


@pytest.mark.parametrize("depth", [0, -1, 17])
def test_a_depth_that_no_table_has(depth: int) -> None:
    assert _read([2, 0, depth], struct.pack("<2H", 0, 1)) is None


def test_a_table_of_65536_entries_is_stored_with_the_number_0() -> None:
    entries = np.arange(65536, dtype="<u2")
    table = _read([0, 0, 16], entries.tobytes())
    assert table is not None
    assert (len(table.entries), table.entries[-1]) == (65536, 65535)
    assert _read([0, 0, 16], entries[:-1].tobytes()) is None  # one is missing
    negative = _read([-2, 0, 16], entries.tobytes())  # 65534, read as a signed number
    assert negative is not None
    assert len(negative.entries) == 65534


def test_entries_are_words_where_there_are_enough_bytes_for_them() -> None:
    words, single = _read([3, 0, 8], bytes([1, 0, 2, 0, 3, 0])), _read([3, 0, 8], bytes([1, 2, 3, 0]))
    assert words is not None
    assert single is not None
    assert words.entries.tolist() == single.entries.tolist() == [1, 2, 3]
    assert _read([3, 0, 8], bytes([1, 2])) is None
    longer = _read([2, 0, 16], struct.pack("<3H", 5, 6, 7) + b"\0")  # further words, and half of one
    assert longer is not None
    assert longer.entries.tolist() == [5, 6]
    big_endian = _read([2, 0, 16], struct.pack(">2H", 256, 513), little_endian=False)
    assert big_endian is not None
    assert big_endian.entries.tolist() == [256, 513]


@pytest.mark.parametrize(
    ("attributes", "first"),
    [
        ({}, 65000),
        ({"PixelRepresentation": 0, "RescaleIntercept": 0}, 65000),
        ({"PixelRepresentation": 1}, 65000 - 65536),  # signed inputs
        ({"PixelRepresentation": 0, "RescaleIntercept": -1024}, 65000 - 65536),
        ({"RescaleIntercept": 10}, 65000),
    ],
)
def test_the_first_input_is_signed_where_inputs_may_be_negative(
    attributes: dict[str, int], first: int
) -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [2, 65000, 16])
    item.add_new("LUTData", "OW", struct.pack("<2H", 0, 1))
    table = read_lookup_table(item, _dataset(**attributes))
    assert table is not None
    assert table.first == first


@pytest.mark.parametrize(("first", "expected"), [(32767, 32767), (32768, -32768)])
def test_the_sign_of_the_first_input_is_its_highest_bit(first: int, expected: int) -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [2, first, 16])
    item.add_new("LUTData", "OW", struct.pack("<2H", 0, 1))
    table = read_lookup_table(item, _dataset(PixelRepresentation=1))
    assert table is not None
    assert table.first == expected


def test_an_item_without_its_parts_is_no_table() -> None:
    assert _read([2, 0], struct.pack("<2H", 0, 1)) is None
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [2, 0, 16])
    assert read_lookup_table(item, _dataset()) is None


def test_a_table_of_words_that_is_cut_off_is_not_read_as_bytes() -> None:
    assert _read([3, 0, 16], struct.pack("<2H", 1, 2)) is None
    assert _read([3, 0, 9], struct.pack("<2H", 1, 2)) is None
