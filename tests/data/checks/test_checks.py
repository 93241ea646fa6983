from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pydicom.data import get_testdata_file

from domainclip.data.batching.matches import Matches, MatchKeys, caption_numbers
from domainclip.data.checks.captions import right_text_share
from domainclip.data.checks.findings import Finding, leak_messages, refuse_errors
from domainclip.data.checks.run_checks import corpus_findings
from domainclip.data.corpus import load_corpus
from domainclip.errors import DataError, ExitCode
from tests.data.made_corpora import card, noise_image, table


def _rows(n: int = 6) -> list[dict[str, Any]]:
    splits = ["train", "train", "train", "train", "val", "test"]
    return [
        {"file_name": f"{i}.png", "text": f"caption {i}", "group": f"g{i}", "split": splits[i % 6]}
        for i in range(n)
    ]


def _findings(path: Path, rows: list[dict[str, Any]] | None = None, **keys: Any) -> list[Finding]:
    file = table(path, rows, images=True) if rows else path
    return corpus_findings(load_corpus(card(**keys), str(file)), None, 4)


def _texts(findings: list[Finding], level: str) -> list[str]:
    return [finding.text for finding in findings if finding.level == level]


def test_a_sound_corpus_has_no_findings_but_its_sizes(tmp_path: Path) -> None:
    findings = _findings(tmp_path, _rows())
    assert [(finding.level, finding.code, finding.count, finding.text) for finding in findings] == [
        (
            *("info", "sizes", 6),
            "train 4 items of 4 groups; validation 1 items of 1 groups; test 1 items of 1 groups",
        ),
        (
            *("info", "not_compared", 6),
            "6 images with a side below 64 pixels and 0 without any detail are compared byte for byte only",
        ),
        ("info", "image_sizes", 6, "short sides of 6 to 6 pixels, half of them at most 6; stored as 6 RGB"),
        ("info", "burned_in_text", 0, "burned-in text: unknown according to the card"),
    ]
    refuse_errors(findings)
    assert leak_messages(findings) == []


def test_a_patient_in_two_splits(tmp_path: Path) -> None:
    rows = _rows()
    rows[5]["group"] = rows[4]["group"] = "g1"
    findings = _findings(tmp_path, rows)
    with pytest.raises(DataError) as caught:
        refuse_errors(findings)
    assert str(caught.value) == (
        "corpus: patient-level leak: 1 group is in more than one split (1 in train and validation, 1 in "
        "train and test, 1 in validation and test); one of them: row 2, row 5, row 6; mend the split column, "
        'or set corpus.columns.split="" to split by group'
    )
    assert caught.value.code == ExitCode.DATA


def test_a_leak_is_found_when_groups_are_pseudonyms(tmp_path: Path) -> None:
    rows = _rows()
    rows[5]["group"] = "g1"
    file = table(tmp_path, rows)
    loaded = load_corpus(card(privacy={"identifiers": "unknown"}), str(file), b"key")
    (text,) = _texts(corpus_findings(loaded, None, 4), "error")
    assert "one of them: row 2, row 6;" in text
    assert "g1" not in text


def test_the_same_image_in_two_splits(tmp_path: Path) -> None:
    file = table(tmp_path, _rows())
    (tmp_path / "5.png").write_bytes((tmp_path / "2.png").read_bytes())
    assert _texts(_findings(file), "error") == [
        "the same image in two splits: 1 in train and test; one of them: row 3, row 6; leave its "
        "group out of the earlier split with corpus.splits.near_duplicates=leave_out"
    ]


def test_large_images_are_compared_by_all_their_bytes(tmp_path: Path) -> None:
    file = table(tmp_path, _rows())
    head = (tmp_path / "2.png").read_bytes()
    for name, middle in (("2.png", b"a"), ("5.png", b"b")):
        (tmp_path / name).write_bytes(head + b"\0" * 150_000 + middle + b"\0" * 150_000)
    loaded = load_corpus(card(), str(file))
    assert loaded.digests["2.png"] != loaded.digests["5.png"]
    assert [finding.code for finding in corpus_findings(loaded, None, 4) if "same" in finding.code] == []
    # Another image with the same beginning and end precedes the copy, which is found nevertheless.
    (tmp_path / "0.png").write_bytes((tmp_path / "2.png").read_bytes())
    (tmp_path / "2.png").write_bytes((tmp_path / "5.png").read_bytes())
    assert _texts(corpus_findings(load_corpus(card(), str(file)), None, 4), "error") == [
        "the same image in two splits: 1 in train and test; one of them: row 3, row 6; leave its "
        "group out of the earlier split with corpus.splits.near_duplicates=leave_out"
    ]


def test_truncated_jpegs_over_the_limit(tmp_path: Path) -> None:
    rows = [{**row, "file_name": f"{i}.jpg"} for i, row in enumerate(_rows())]
    file = table(tmp_path, rows, images=False)
    for i in range(6):
        jpeg = noise_image(tmp_path / f"{i}.jpg", seed=i, size=(64, 64))
        if i in (1, 4):
            jpeg.write_bytes(jpeg.read_bytes()[:-300])
    with pytest.raises(DataError) as caught:
        refuse_errors(_findings(file))
    assert str(caught.value) == (
        "corpus: 2 of 6 images cannot be read (33.3%, limit 1.0%): 2 truncated image; first: row 2 "
        "(truncated image), row 5 (truncated image); repair them or raise corpus.max_unusable to 0.334"
    )
    assert _texts(_findings(file, max_unusable=0.5), "warning")[0].startswith("2 of 6 images cannot be read")


def test_a_sample_is_spread_over_the_corpus(tmp_path: Path) -> None:
    file = table(tmp_path, _rows(12))
    for i in range(12):
        (tmp_path / f"{i}.png").write_bytes(b"broken %d" % i)
    loaded = load_corpus(card(), str(file))
    (text,) = _texts(corpus_findings(loaded, None, 4, sample=4), "error")
    assert text == (
        "4 of 4 inspected images cannot be read (100.0%, limit 1.0%): 4 not an image; first: row 1 (not an "
        "image), row 4 (not an image), row 9 (not an image), row 11 (not an image); repair them, or "
        "check corpus.path, corpus.columns and corpus.options: no item is usable"
    )


def test_blank_images(tmp_path: Path) -> None:
    file = table(tmp_path, _rows())
    Image.new("RGB", (64, 64), (17, 17, 17)).save(tmp_path / "3.png")
    assert _texts(_findings(file), "warning") == [
        "1 of 6 images are blank; first: row 4; leave them out, or set corpus.checks.blank_images=info"
    ]


def test_messages_of_a_decoder_are_counted_by_kind(tmp_path: Path) -> None:
    """Of a JPEG of 12 bits, which is read; and of a corrupt one, which is not."""
    rows = _rows()
    table(tmp_path, rows, images=True)
    twelve = Path(str(get_testdata_file("JPGExtended.dcm", download=False))).read_bytes()
    corrupt = bytearray(Path(str(get_testdata_file("SC_rgb_jpeg_gdcm.dcm", download=False))).read_bytes())
    corrupt[4000:4008] = b"U" * 8
    rows[0]["file_name"], rows[1]["file_name"] = "0.dcm", "1.dcm"
    (tmp_path / "0.dcm").write_bytes(twelve)
    (tmp_path / "1.dcm").write_bytes(twelve)
    file = table(tmp_path, rows, images=False)
    of_kind = [finding for finding in _findings(file) if finding.code == "decoder_messages"]
    twelve_bits = "JPEG of 12 bits, tried as 8 first"
    assert [(finding.level, finding.count, finding.where, finding.text) for finding in of_kind] == [
        (
            *("info", 2, ("row 1", "row 2")),
            f"2 of 6 images made GDCM print a message: {twelve_bits} (2); first: row 1, row 2; their 12 bits are read",
        )
    ]
    (tmp_path / "1.dcm").write_bytes(corrupt)
    (finding,) = (one for one in _findings(file, max_unusable=0.5) if one.code == "decoder_messages")
    assert (finding.level, finding.count) == ("warning", 2)
    assert finding.text == (
        f"2 of 6 images made GDCM print a message: corrupt JPEG data (1), {twelve_bits} (1); first: row 1, row 2; "
        "corrupt data may be shown as wrong pixels: compare these images with their source, leave them out, or set "
        "corpus.checks.decoder_messages=info"
    )


def test_repeated_captions_with_their_share_of_a_batch(tmp_path: Path) -> None:
    rows = _rows()
    rows[0]["text"], rows[2]["text"] = "A Star.", "a star."
    # Two of the 4 training items have the same caption: each of them is right for one other image.
    assert _texts(_findings(tmp_path, rows), "warning") == [
        "2 of 4 training captions repeat; on average 0.5 of the 3 other texts in a batch of 4 are right for "
        "an image too: they are not its negatives"
    ]


@pytest.mark.parametrize(
    "texts",
    [
        [["a"], ["a"], ["b"], ["a"]],
        [["a", "b"], ["b"], ["A", "c", "b"], ["d"], ["a", "d"]],
        [["a", "a", "b"], ["a"], ["b", "b"]],
    ],
)
@pytest.mark.parametrize("grouped", [True, False])
def test_the_closed_form_is_the_mean_over_all_batches(texts: list[list[str]], grouped: bool) -> None:
    n = len(texts)
    groups = [1, 2, 1, 3, 2][:n] if grouped else list(range(n))
    pools = [caption_numbers(item_texts) for item_texts in texts]
    total, weight = 0.0, 0
    for shown in product(*(range(len(item_texts)) for item_texts in texts)):
        matches = Matches.within(MatchKeys.of(groups, shown, pools))
        total += float(matches.right_texts(torch.arange(n)).sum()) - n
        weight += n * (n - 1)
    assert right_text_share(texts, list(map(str, groups))) == pytest.approx(total / weight, abs=1e-12)


def test_the_closed_form_at_its_edges() -> None:
    assert right_text_share([], []) == 0
    assert right_text_share([["a"]], ["p"]) == 0
    assert right_text_share([["a"]] * 3, ["p", "q", "r"]) == pytest.approx(1)
    assert right_text_share([["a"], ["b"]], ["p", "p"]) == pytest.approx(1)
    assert right_text_share([[""], [""]], ["p", "q"]) == 0


def test_truncated_captions(tmp_path: Path) -> None:
    rows = _rows()
    rows[0]["text"] = "one two three four five"
    loaded = load_corpus(card(), str(table(tmp_path, rows)))
    findings = corpus_findings(loaded, lambda texts: [len(text.split()) for text in texts], 4, max_tokens=3)
    assert _texts(findings, "warning") == [
        "25.0% of the distinct training captions are truncated to 3 tokens; 95 % have at most 5"
    ]
    assert _texts(corpus_findings(loaded, lambda texts: [2] * len(texts), 4), "info")[1] == (
        "0.0% of the distinct training captions are truncated to 77 tokens; 95 % have at most 2"
    )


def test_captions_are_counted_by_language(tmp_path: Path) -> None:
    rows = [{**row, "de": f"Bild {i} ist lang"} for i, row in enumerate(_rows())]
    keys = {"columns": {"texts": ["text", "de"], "languages": {"text": "en", "de": "de"}}}
    loaded = load_corpus(card(**keys), str(table(tmp_path, rows)))
    findings = corpus_findings(loaded, lambda texts: [len(text.split()) for text in texts], 4, max_tokens=3)
    assert [text[:50] for text in _texts(findings, "warning") + _texts(findings, "info")[1:2]] == [
        "100.0% of the distinct training captions in de are",
        "0.0% of the distinct training captions in en are t",
    ]


def test_classes_of_the_card_or_of_the_corpus_only(tmp_path: Path) -> None:
    rows = [
        {**row, "label": label}
        for row, label in zip(_rows(), ["cat", "dgo", "cat", "cat", "cat", "cat"], strict=True)
    ]
    findings = _findings(tmp_path, rows, classes={"cat": "a cat", "dog": "a dog"})
    assert _texts(findings, "warning") == [
        '1 labels outside the classes of the card: "dgo", did you mean "dog"?',
        'no item has the class "dog" of the card, did you mean "dgo"?',
    ]


def test_one_group_with_nearly_all_items(tmp_path: Path) -> None:
    rows = [{**row, "group": "Anonymous", "split": "train"} for row in _rows(24)]
    assert _texts(_findings(tmp_path, rows), "warning") == [
        "corpus.columns.group: one group holds 24 of 24 items of train: check that it is the right column",
        "the test split is empty: check corpus.columns.split",
        "all 24 training pairs are of one group, so no pair has a negative and a contrastive objective learns "
        "nothing: check corpus.columns (texts, group) and the training split",
    ]


def test_items_that_were_left_out_are_reported(tmp_path: Path) -> None:
    rows = _rows()
    rows[1]["text"] = ""
    assert _texts(_findings(tmp_path, rows, max_unusable=0.5), "warning") == ["left out: 1 empty caption"]


def test_several_errors_are_counted() -> None:
    with pytest.raises(DataError) as caught:
        refuse_errors([Finding("error", "one"), Finding("warning", "x"), Finding("error", "two")])
    assert str(caught.value) == "corpus: one (and 1 more)"


def test_a_curated_corpus_has_the_same_checks(tmp_path: Path) -> None:
    rows = _rows()
    rows[5]["group"] = "g3"
    file = table(tmp_path, rows)
    (tmp_path / "4.png").write_bytes((tmp_path / "2.png").read_bytes())
    loaded = load_corpus(card(), str(file))
    loaded.splits["train"] = loaded.splits["train"].select([2, 3])
    leak, same = _texts(corpus_findings(loaded, None, 4), "error")
    assert "one of them: row 4, row 6;" in leak
    assert "one of them: row 3, row 5;" in same


def test_unknown_classes_that_may_be_names_are_counted_but_not_quoted(tmp_path: Path) -> None:
    rows = [{**row, "label": "Canary"} for row in _rows()]
    loaded = load_corpus(
        card(classes={"cat": "a cat"}, privacy={"identifiers": "unknown"}), str(table(tmp_path, rows)), b"key"
    )
    assert (
        _texts(corpus_findings(loaded, None, 4), "warning")[0] == "6 labels outside the classes of the card"
    )
