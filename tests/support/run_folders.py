"""Run folders as a finished run leaves them, made by hand in a fraction of a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from domainclip.config.recipe import Recipe
from domainclip.evaluation.verdicts import BETTER, SAME, WORSE
from domainclip.models import dual_encoder, loading
from domainclip.models.saving import save_model
from domainclip.report.model_card import write_card
from domainclip.report.results_file import VERSION, JudgedDifference, Result, ResultsFile
from domainclip.report.strict_file import Interval
from domainclip.strategies.full import Full
from domainclip.strategies.lora import Lora
from tests.support.tiny_models import tiny_clip


def recipe(base: str, corpus_path: str = "/data/corpus", revision: str | None = None, **keys: Any) -> Recipe:
    """A recipe of chest phantoms."""
    corpus: dict[str, Any] = {"path": corpus_path, "reader": "dicom", "pretty_name": "Chest phantoms"}
    corpus |= {"license": "cc0-1.0", "language": ["en"]}
    corpus |= {"privacy": {"identifiers": "none", "burned_in_text": "no"}}
    data = {
        "name": "made_run",
        "base": {"path": base, "revision": revision},
        "corpus": corpus,
        "strategy": {"lora": {}},
        **keys,
    }
    return Recipe.model_validate(data)


def result(
    metric: str, before: float, after: float, p: float = 0.001, judged: Any = None, **keys: Any
) -> Result:
    """A metric whose difference has an interval of ± 0.02; `judged` has further keys of the difference."""
    change = after - before
    alone = {"comparisons": 1, "adjusted_p": None, "simultaneous": None, "margin": None}
    alone["at_most_lost"] = max(0.0, 0.02 - change)
    given = {
        "probe": "zero_shot",
        "dataset": "test",
        "higher_is_better": True,
        "unit": "share",
        "chance": None,
        "headline": metric == "macro_accuracy",
        "items": 354,
        "groups": 354,
        "verdict": (BETTER if (change > 0) == keys.get("higher_is_better", True) else WORSE)
        if p <= 0.05
        else SAME,
        "not_judged": "",
        "no_interval": "",
        "by_luck": [],
    } | keys
    return Result(
        metric=metric,
        base=Interval(value=before, low=before - 0.03, high=before + 0.03),
        adapted=Interval(value=after, low=after - 0.03, high=after + 0.03),
        difference=JudgedDifference(
            value=change,
            low=change - 0.02,
            high=change + 0.02,
            p=p,
            **alone | (judged or {}),
        ),
        **given,
    )


def results(*extra: Result, **keys: Any) -> ResultsFile:
    """A gain in the domain and a loss outside it."""
    figures = [
        result("macro_accuracy", 0.079, 0.554),
        result("accuracy/normal", 0.4, 0.3),
        result("macro_accuracy", 0.498, 0.058, dataset="general", items=1000, groups=1000),
        *extra,
    ]
    probes = [
        {"probe": "zero_shot", "dataset": name, "primary": "macro_accuracy"} for name in ("test", "general")
    ]
    corpus = {
        "name": "Chest phantoms",
        "card": "chest_phantom",
        "splits": {"train": {"items": 800, "groups": 410}, "test": {"items": 354, "groups": 354}},
    }
    corpus |= {"retention": {"set": "general", "name": "General images", "card": "general"}}
    data: dict[str, Any] = {
        "schema_version": VERSION,
        "run": {"title": "Made run", "command": "domainclip finetune"},
        "base": {"name": "base", "revision": None, "family": "clip"},
        "corpus": corpus,
        "protocol": {"probes": probes},
        "valid": True,
        "warnings": [],
        "results": figures,
        "adapted": {},
        "diagnostics": [],
    }
    return ResultsFile.model_validate(data | keys)


def adapted(base: Path, lora: bool, seed: int = 0) -> dual_encoder.DualEncoder:
    """Towers after an update that nothing has learnt, but that changes every weight that may learn."""
    model = loading.load_model(base)
    factors = (Lora(rank=2) if lora else Full()).learning_rates(model)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.weights().items():
            if factors[name] > 0:
                weight.add_(0.05 * torch.randn(weight.shape, generator=draw))
    return model


def made_run(folder: Path, *, lora: bool = True, settings: Recipe | None = None, **keys: Any) -> Path:
    """A whole run folder; its base is a tiny CLIP beside it."""
    base = tiny_clip(folder.parent / "base")
    run = folder
    save_model(adapted(base, lora), run / "model")
    settings = settings or recipe(str(base))
    (run / "recipe.yaml").write_text(settings.resolved(), encoding="utf-8")
    found = results(**keys)
    (run / "results.json").write_text(found.model_dump_json(indent=1), encoding="utf-8")
    (run / "report.md").write_text("# Made run\n", encoding="utf-8")
    (run / "report.html").write_text("<!doctype html><title>Made run</title>\n", encoding="utf-8")
    write_card(run, found)
    return run
