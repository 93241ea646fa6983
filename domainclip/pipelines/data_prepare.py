"""The command `data prepare`: resized shards with pseudonymous ids, written in parallel, restartable.

A run that was stopped, at whatever moment, is continued by the same command. The files do not depend on the
number of workers or of interruptions.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from PIL import Image

from domainclip import __version__
from domainclip.config import loading, overrides
from domainclip.config.recipe import Recipe
from domainclip.config.sources import CorpusSource
from domainclip.data import prepared_format, pseudonyms
from domainclip.data.cards import Card, load_card
from domainclip.data.checks.images import dicom_files, unused_attributes
from domainclip.data.corpus import load_corpus
from domainclip.data.images.reencode import ImageFormat, Reencoder
from domainclip.data.process_pool import available_cores
from domainclip.data.quarantine import UnusableItem, check_max_unusable, count_reasons
from domainclip.data.schema import PREPARED_MANIFEST, SPLITS
from domainclip.data.text.identifiers import listed
from domainclip.errors import RecipeError, did_you_mean
from domainclip.pipelines import prepare_parts, prepared_shards
from domainclip.pipelines.caption_screen import CaptionScreen, IdentifierPolicy
from domainclip.pipelines.parts import parse_part
from domainclip.pipelines.prepared_shards import PrepareRequest, Report, Row

_DEFAULT_SIZE = 256  # short side, pixels, where no base names one


def run(
    out: Path,
    recipe_name: str | None,
    changes: Sequence[str],
    card_name: str | None,
    *,
    size: int | None,
    format: str,
    to: str,
    workers: int | None,
    items: int,
    identifiers: str = "refuse",
    part: str | None = None,
    join: bool = False,
) -> Path:
    """Prepare the corpus that the options of the command name; the path of its manifest, or folder of a part.

    Raises: RecipeError for options that do not fit together; whatever `write_prepared_corpus` raises.
    """
    for option, value, known in (
        ("format", format, get_args(ImageFormat)),
        ("to", to, get_args(prepared_format.ShardFormat)),
        ("identifiers", identifiers, get_args(IdentifierPolicy)),
    ):
        if value not in known:
            raise RecipeError(f'--{option}: "{value}": {did_you_mean(value, known)}')
    if (recipe_name is None) == (card_name is None):
        raise RecipeError("data prepare: name a recipe with --recipe or a card with --card: one of the two")
    resample = int(Image.Resampling.BICUBIC)
    if recipe_name is not None:
        recipe = loading.load_recipe(recipe_name, changes)
        source = recipe.corpus
        if size is None:
            size, resample = _size_of_base(recipe)
    else:
        source = _source(card_name, changes)
    card = load_card(source.card, source.overrides())
    reencoder = Reencoder(size or _DEFAULT_SIZE, format, resample)  # type: ignore[arg-type]  # checked above
    request = PrepareRequest(reencoder, to, items, identifiers, parse_part(part), join)  # type: ignore[arg-type]
    return write_prepared_corpus(card, source.path, out, request, workers or available_cores(), _print)


def write_prepared_corpus(
    card: Card, path: str, out: Path, request: PrepareRequest, workers: int, report: Report
) -> Path:
    """Write a corpus, or one part of it, to `out`; the path of its manifest, for a part that of the folder.

    Raises: DataError for a corpus that cannot be used, a folder that holds something else, or missing parts.
    """
    key = pseudonyms.pseudonym_key()
    corpus = load_corpus(card, path)
    if corpus.guesses:
        report(corpus.guesses)
    files = dicom_files(corpus)
    for finding in unused_attributes(sorted(files)):  # the shards have no headers
        report(finding.text)
    screen = CaptionScreen(corpus.card, request.identifiers, frozenset(files))
    screen.check(corpus)
    fingerprint = pseudonyms.pseudonym(corpus.fingerprint, key)
    manifest_file = out / PREPARED_MANIFEST
    with prepare_parts.locked_output(out, prepared_shards.PROGRESS, request.part):
        work = {"corpus": fingerprint, "form": request.shard_format, **request.settings()}
        prepared_shards.begin_work(out, work)
        if request.part is None:
            for draft in out.glob(".*.[0-9]*"):  # of a process that was killed while it wrote
                draft.unlink()
        if prepared_shards.is_complete(out, report):
            return manifest_file
        notes, of_stream = prepared_shards.write_shards(corpus, out, request, screen, workers, key, report)
        if request.part is not None:
            report(f"part {request.part}: {len(notes)} shards")
            return out
        of_shards = [UnusableItem(place, reason) for note in notes for place, reason in note["bad"]]
        counts = Counter(dict.fromkeys(SPLITS, 0))
        for note in notes:
            counts[note["split"]] += note["items"]
        check_max_unusable(of_shards, counts.total() + len(of_shards), corpus.card)
        unusable = [*corpus.unusable, *of_stream, *of_shards]
        reasons = Counter(item.reason for item in unusable)
        manifest: Row = {
            "format": prepared_format.FORMAT,
            "version": prepared_format.VERSION,
            "domainclip": __version__,
            "form": request.shard_format,
            "settings": request.settings(),
            "corpus": {"card": card.name, "license": card.license, "sha256": fingerprint},
            "counts": dict(counts),
            "left_out": dict(sorted(reasons.items())),
            "shards": [prepared_shards.manifest_entry(note) for note in notes if note["items"]],
        }
        identifiers = sum((Counter(note["identifiers"]) for note in notes), Counter[str]())
        text = json.dumps(manifest, indent=1, ensure_ascii=False)
        prepared_format.write_atomically(manifest_file, text.encode())
        prepared_shards.remove_notes(out)
    by_split = ", ".join(f"{count} {split}" for split, count in counts.items())
    left_out = f"; {len(unusable)} left out: {count_reasons(unusable)}" if unusable else ""
    if identifiers:
        done = "replaced by their kind" if request.identifiers == "redact" else "written unchanged, as asked"
        report(f"captions that may identify a person: {listed(identifiers)}: {done}")
    report(f"{by_split} in {len(manifest['shards'])} shards{left_out}")
    return manifest_file


def _source(card_name: str | None, changes: Sequence[str]) -> CorpusSource:
    """The corpus that the overrides name, with a card."""
    keys: Row = {"corpus": {"card": card_name}}
    for change in changes:
        overrides.apply_override(keys, change)
    if set(keys) != {"corpus"} or "path" not in keys["corpus"]:
        raise RecipeError(
            "data prepare --card: name the corpus with corpus.path=PATH; other keys are corpus.…"
        )
    return CorpusSource.model_validate(keys["corpus"])


def _size_of_base(recipe: Recipe) -> tuple[int, int]:
    """The short side and the filter of the base's preprocessing, so that its input stays the same."""
    from domainclip.models.loading import load_model  # torch is imported only here

    preprocessor = load_model(recipe.base.path, recipe.base.revision).image_preprocessor
    resize = preprocessor.resize
    return resize if isinstance(resize, int) else max(preprocessor.size), preprocessor.resample


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
