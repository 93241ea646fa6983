"""The check of a corpus: findings, caption lengths, scripts, classes and decoders, also as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from domainclip import components
from domainclip.data.checks.captions import captions_with_language
from domainclip.data.checks.findings import Finding, leak_messages
from domainclip.data.checks.images import dicom_files
from domainclip.data.checks.run_checks import SAMPLE_IMAGES, corpus_findings
from domainclip.data.checks.structure import class_counts
from domainclip.data.corpus import Corpus, load_corpus
from domainclip.data.dicom.decoders import DecoderRow, decoder_table
from domainclip.data.images.split_copies import COPY, OF_GROUP
from domainclip.data.quarantine import check_max_unusable, count_reasons
from domainclip.data.schema import SPLITS
from domainclip.data.text import languages
from domainclip.data.text.captions import length_histogram
from domainclip.errors import DataError
from domainclip.evaluation import embed_images
from domainclip.models import base_loading
from domainclip.models.dual_encoder import DualEncoder
from domainclip.pipelines.curate import curate
from domainclip.pipelines.data_check.target import CheckTarget

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class CorpusCheck:
    """The result of a check."""

    target: CheckTarget
    corpus: Corpus
    base: DualEncoder | None
    findings: list[Finding]
    tokens: list[tuple[int, int, int]] = field(default_factory=list)  # training captions by length, in bins
    scripts: list[languages.LanguageProfile] = field(default_factory=list)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)  # class -> split -> items
    decoders: list[DecoderRow] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """The number of findings that stop a training."""
        return sum(finding.level == "error" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """The public form: keys are added, and renamed only when `schema_version` rises."""
        sizes = {
            name: {"items": len(rows), "groups": len(set(rows["group"][:]))}
            for name, rows in ((name, self.corpus.splits[name]) for name in SPLITS)
        }
        return {
            "schema_version": SCHEMA_VERSION,
            "corpus": {
                "card": self.corpus.card.name,
                "fingerprint": self.corpus.fingerprint,
                "splits": sizes,
                "left_out": len(self.corpus.unusable),
            },
            "ok": not self.errors,
            "leaks": leak_messages(self.findings),
            "findings": [asdict(finding) for finding in self.findings],
            "classes": self.classes,
            "tokens": [{"from": low, "to": high, "captions": n} for low, high, n in self.tokens],
            "scripts": [
                {**asdict(row), "tokens_each": round(row.tokens_per_word, 3)} for row in self.scripts
            ],
            "decoders": [asdict(row) for row in self.decoders],
            "notes": list(self.corpus.notes),
        }

    def left_out(self) -> str:
        """The unusable items, counted by reason."""
        return count_reasons(self.corpus.unusable)


def _too_many_unusable(corpus: Corpus) -> list[Finding]:
    """The error that would stop a run, where more items are unusable than the card allows."""
    total = len(corpus.digests) + sum(map(len, corpus.view_digests.values())) + len(corpus.unusable)
    unusable = [item for item in corpus.unusable if item.reason not in (COPY, OF_GROUP)]  # those were chosen
    try:
        check_max_unusable(unusable, total, corpus.card)
    except DataError as error:
        where = tuple(item.location for item in unusable)
        return [Finding("error", str(error), "unusable_items", len(unusable), where)]
    return []


def check_corpus(target: CheckTarget, *, whole: bool = True, workers: int = 0) -> CorpusCheck:
    """Load and check a corpus; every image is decoded or, unless `whole`, a sample.

    Raises: whatever loading base and corpus raises.
    """
    recipe = target.recipe
    # Before the base: a wrong cell costs seconds then. However many items are unusable, all is checked.
    corpus = load_corpus(target.card.model_copy(update={"max_unusable": 1.0}), target.path)
    limited = corpus.card.model_copy(update={"max_unusable": target.card.max_unusable})
    corpus = replace(corpus, card=limited)
    base = (
        base_loading.load_base_model(recipe.base.path, recipe.base.revision)
        if recipe and target.with_base
        else None
    )
    left_out = []
    if recipe is not None:  # the training items as the run would curate them
        curation = components.build_components(recipe).curation
        left_out = [name for name, step in curation.items() if base is None and "base" in step.needs]
        applied = {name: step for name, step in curation.items() if name not in left_out}
        curated = curate(corpus.splits["train"], applied, base, on_disk=recipe.evaluate.cache_embeddings)
        corpus = corpus.with_train_items(curated.items)
    findings = (
        _too_many_unusable(corpus)
        + [
            Finding("info", f"curation {name} was not applied: it looks at the base's embeddings", "curation")
            for name in left_out
        ]
        + corpus_findings(
            corpus,
            base.text_tokenizer.count if base else None,
            recipe.train.batch_size if recipe else 128,
            max_tokens=base.max_tokens if base else 77,
            augmentation=recipe.train.augmentation if recipe else "none",
            side=min(base.image_preprocessor.size) if base else None,
            sample=None if whole else SAMPLE_IMAGES,
            workers=workers,
            embed=embed_images.embed_images(base) if base else None,
        )
    )
    pairs = list(captions_with_language(corpus))
    texts, tags = [text for text, _ in pairs], [language for _, language in pairs]
    return CorpusCheck(
        target,
        corpus,
        base,
        findings,
        tokens=length_histogram(base.text_tokenizer.count(sorted(set(texts)))) if base and texts else [],
        scripts=languages.profile_captions(texts, tags, base.text_tokenizer.count, base.max_tokens)
        if base and texts
        else [],
        classes=class_counts(corpus),
        decoders=decoder_table(sorted(dicom_files(corpus))),
    )
