"""What a run leaves: its folder, and the report of what was gained and what it cost."""

from __future__ import annotations

import importlib.metadata
import io
import json
import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from domainclip import __version__, distributed
from domainclip.contracts import EvaluationSet
from domainclip.data.checks import Finding
from domainclip.data.images import decode
from domainclip.data.quarantine import Bad
from domainclip.encoders import TowersEncoder, encode_images
from domainclip.errors import RecipeError
from domainclip.evaluate import Evaluation
from domainclip.interpolate import Tried
from domainclip.prepare import Prepared
from domainclip.recipe import Recipe
from domainclip.redaction import public_recipe
from domainclip.report import CorpusFacts, Example, ReportContext, RunFacts, results, write
from domainclip.report.card import CardFacts, write_card
from domainclip.towers import Towers
from domainclip.train import Job, Trained

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "datasets", "pydicom", "pillow", "numpy")
EXAMPLES = 12  # pictures in a report that may show some


def open_folder(folder: Path, recipe: Recipe) -> None:
    """Makes the run folder; the resolved recipe in it gives the same run again."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.yaml").write_text(recipe.resolved(), encoding="utf-8")
        (folder / "environment.json").write_text(json.dumps(environment(), indent=1), encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{folder}: cannot be written: {error.strerror}: name another folder") from None


def environment() -> dict[str, Any]:
    """Versions and device; no user, host or path."""
    return {
        "domainclip": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "processes": distributed.world(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def run_facts(
    job: Job, trained: Trained, folder: Path, tried: Sequence[Tried], alpha: float | None
) -> RunFacts:
    """How the adapted model came to be."""
    sizes = {name: weight.numel() for name, weight in job.towers.weights().items()}
    facts = environment()
    extra: dict[str, Any] = {
        "objectives": {name: weight for name, (weight, _) in job.terms.items()},
        "peak_rate": job.rate,
    }
    if alpha is not None:
        extra["interpolation"] = {"alpha": alpha, "validation": {str(one.alpha): one.score for one in tried}}
    if trained.bad:
        extra["unreadable_in_training"] = len(trained.bad)
    return RunFacts(
        strategy=next(iter(job.recipe.strategy)),
        learning=sum(size for name, size in sizes.items() if job.factors[name] > 0),
        weights=sum(sizes.values()),
        steps=trained.steps,
        seconds=next((line["seconds"] for line in reversed(curve(folder))), 0.0),
        device=facts["device"],
        batch_size=min(job.recipe.train.batch_size, len(job.pairs)),
        versions={"domainclip": facts["domainclip"], "python": facts["python"], **facts["libraries"]},
        facts=extra,
    )


def curve(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, when there are any."""
    file = folder / "metrics.jsonl"
    return (
        [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    )


def write_report(
    folder: Path,
    ready: Prepared,
    sets: Sequence[EvaluationSet],
    evaluation: Evaluation,
    *,
    command: str,
    run: RunFacts | None,
    warnings: Sequence[str],
    shown: Sequence[Example],
) -> Path:
    """results.json, items.parquet, report.md and report.html; the last one's path."""
    recipe, corpus = ready.recipe, ready.corpus
    general = next((one for one in sets if one.name == "general"), None)
    context = ReportContext(
        title=recipe.report.title or f"{recipe.name.replace('_', ' ')}: what adaptation gained and cost",
        command=command,
        recipe=public_recipe(recipe),  # a report is sent around: paths name people and projects
        base=_model_facts(ready.base),
        corpus=_corpus_facts(
            corpus.card, corpus.fingerprint, corpus.splits, corpus.quarantine, corpus.notes, ready.findings
        ),
        retention=None
        if general is None
        else _corpus_facts(general.card, "", {"all": general.items}, [], [], []),
        run=run,
        training=curve(folder) if run is not None else [],
        warnings=list(dict.fromkeys(warnings)),
        citations=_citations(ready),
        examples=shown,
    )
    page = write(folder, evaluation, context)
    if (folder / "model").is_dir():  # a run, not only a measurement
        facts = CardFacts(recipe, corpus.card, context.citations, recipe.report.license)
        write_card(folder, results.load(folder / "results.json"), facts)
    return page


def _model_facts(towers: Towers) -> dict[str, Any]:
    act = {
        getattr(side, "hidden_act", None)
        for side in (towers.plain.config.text_config, towers.plain.config.vision_config)
    }
    return {
        "name": _public_name(towers.base),
        "revision": towers.revision,
        "family": towers.family,
        "weights_sha256": towers.fingerprint("all"),
        "preprocessing": towers.preprocess.fingerprint(),
        "resolution": list(towers.image_size),
        "activation": sorted(str(one) for one in act),
        "max_tokens": towers.max_tokens,
    }


def _public_name(base: str) -> str:
    """A Hub id as it is; of a local folder only its last name, for paths name people and projects."""
    return Path(base).name if Path(base).is_dir() else base


def _corpus_facts(
    card: Any,
    fingerprint: str,
    splits: Any,
    bad: Sequence[Bad],
    notes: Sequence[str],
    findings: Sequence[Finding],
) -> CorpusFacts:
    return CorpusFacts(
        name=card.pretty_name or card.name,
        card=card.name,
        license=card.license,
        fingerprint=fingerprint,
        splits={name: _sizes(items) for name, items in splits.items()},
        quarantine=dict(Counter(item.reason for item in bad)),
        notes=list(notes),
        findings=[finding.text for finding in findings],
    )


def _sizes(items: Dataset) -> tuple[int, int]:
    return len(items), len(set(items["group"][:]))


def _citations(ready: Prepared) -> list[str]:
    used: list[Any] = [ready.parts.strategy, *(objective for _, objective in ready.terms.values())]
    used += [*ready.parts.curation.values(), *ready.parts.probes.values()]
    return list(dict.fromkeys(part.citation for part in used))


def examples(ready: Prepared, data: EvaluationSet, encoders: Sequence[TowersEncoder]) -> list[Example]:
    """The first held-out items with captions, and where each caption stands among all for each model.

    To be called on every process: they share the encoding.
    """
    if not ready.recipe.report.examples:
        return []
    shown = [i for i, texts in enumerate(data.items["texts"]) if texts]
    items = encode_images(encoders, data.items.select(shown))
    captions = [texts[0] for texts in items["texts"]]
    ranks = [_ranks(encoder, items, captions) for encoder in encoders]
    return [
        Example(_png(items[i]["image"]), captions[i], ranks[0][i], ranks[1][i] if len(ranks) > 1 else None)
        for i in range(min(EXAMPLES, len(items)))
    ]


def _ranks(encoder: TowersEncoder, items: Dataset, captions: list[str]) -> list[float]:
    scores = torch.from_numpy(encoder.images(items)) @ torch.from_numpy(encoder.texts(captions)).T
    own = scores.diagonal()[:, None]
    return (1 + (scores > own).sum(1) + 0.5 * ((scores == own).sum(1) - 1)).tolist()


def _png(image: dict[str, Any]) -> bytes:
    picture = decode(image)
    picture.thumbnail((224, 224))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
