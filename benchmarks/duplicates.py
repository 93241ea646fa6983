"""How well near-duplicates are found, on corpora that the project does not ship.

python benchmarks/duplicates.py [FOLDER]        (default: $DOMAINCLIP_SHARED or ../shared, its corpora)

From every corpus some pictures are copied in each of the ways below; the table says how many copies are
found, and what is found where nothing was planted. Look at those pairs before you call them false.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

from domainclip.data.cards import load_card
from domainclip.data.corpus import Corpus, load_corpus
from domainclip.data.images import inspection, near_duplicates
from domainclip.data.images.decode import decode_image
from domainclip.data.schema import SPLITS
from tests.data.image_copies import COPIES

SAMPLE = 200
CORPORA = {
    "medical": "medical_xray",
    "astronomy": "astronomy",
    "art": "art_paintings",
    "multilingual": "multilingual",
    "general": "general",
}


def main(root: Path) -> None:
    """Prints a table of copies found, then the pairs found without a plant."""
    print(f"| corpus | pictures | {' | '.join(COPIES)} | not planted: two splits / one |")
    print(f"|---|--:|{'--:|' * len(COPIES)}--:|")
    told: list[str] = []
    for name, card in CORPORA.items():
        corpus = load_corpus(load_card(card, {"privacy": {"identifiers": "none"}}), str(root / name))
        images = [row["image"] for split in SPLITS for row in corpus.splits[split].select_columns("image")]
        began = time.perf_counter()
        seen = np.stack([inspection.inspect_image(image) for image in images])
        shares = [_share(images, seen, copy) for copy in COPIES.values()]
        found = near_duplicates.select_duplicates(
            near_duplicates.score_pairs(seen["thumbnail"], seen["hashes"]), seen["colour"]
        )
        lines = list(_lines(corpus, found))
        across = sum(one.split("|")[1] == "two" for one in lines)
        cells = " | ".join(f"{share:.1%}" for share in shares)
        print(f"| {name} | {len(images)} | {cells} | {across} / {len(lines) - across} |", flush=True)
        told += [f"{name}: {line} ({time.perf_counter() - began:.0f} s)" for line in lines]
    print("\n" + "\n".join(told))


def _share(
    images: list[dict[str, object]], seen: np.ndarray, copy: Callable[[Image.Image], Image.Image]
) -> float:
    """The share of copies that are found among their originals."""
    rows = np.random.default_rng(0).permutation(len(images))[:SAMPLE]
    copies = np.zeros(len(rows), inspection.INSPECTION)
    for place, row in enumerate(rows):
        copies[place] = _look(copy(decode_image(images[row])))
    both = np.concatenate([seen[rows], copies])
    scored = near_duplicates.score_pairs(both["thumbnail"], both["hashes"])
    found = {(pair.first, pair.second) for pair in near_duplicates.select_duplicates(scored, both["colour"])}
    return sum((i, i + len(rows)) in found for i in range(len(rows))) / len(rows)


def _look(picture: Image.Image) -> np.ndarray:
    import io

    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return inspection.inspect_image({"path": None, "bytes": stream.getvalue()})


def _lines(corpus: Corpus, found: list[near_duplicates.DuplicatePair]) -> Iterator[str]:
    """`0.98|two|row 3 and row 12`"""
    at = [(split, id) for split in SPLITS for id in corpus.splits[split]["id"][:]]
    for pair in sorted(found, key=lambda pair: -pair.score):
        (a, first), (b, second) = at[pair.first], at[pair.second]
        where = f"{corpus.locations[first]} ({first}) and {corpus.locations[second]} ({second})"
        yield f"{pair.score:.2f}|{'two' if a != b else 'one'}|{where}, {pair.orientation}"


if __name__ == "__main__":
    shared = Path(os.environ.get("DOMAINCLIP_SHARED", "../shared"))
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else shared / "corpora")
