"""What has to be equal for the same bytes: of the run, and on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domainclip.config.recipe import Recipe
from domainclip.pipelines.audit.checks import Check
from domainclip.report.provenance import environment
from domainclip.report.results_file import ResultsFile

AREA = "reproducibility"
_NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Condition:
    """Something that has to be equal; `here` is None where only a new run can show it."""

    name: str
    run: str
    here: str | None


def conditions(run: Path, recipe: Recipe, results: ResultsFile) -> list[Condition]:
    """All that the weights of a run are a function of."""
    recorded, here = _environment(run), environment()
    libraries, installed = dict(recorded.get("libraries", {})), here["libraries"]
    return [
        Condition("recipe (sha256 of the keys that determine the weights)", recipe.digest(), None),
        Condition("corpus (fingerprint)", str(results.corpus.get("fingerprint") or _NOT_RECORDED), None),
        Condition(
            "base (sha256 of the weights)", str(results.base.get("weights_sha256") or _NOT_RECORDED), None
        ),
        Condition("base (revision)", str(results.base.get("revision") or "a local folder"), None),
        Condition("seed", str(recipe.train.seed), None),
        Condition("precision", recipe.train.precision, None),
        *(
            Condition(name, str(recorded.get(name, _NOT_RECORDED)), str(here[name]))
            for name in ("domainclip", "python", "platform", "device", "processes", "threads")
        ),
        *(
            Condition(name, str(libraries.get(name, _NOT_RECORDED)), installed.get(name, "not installed"))
            for name in {**libraries, **installed}
        ),
    ]


def check_reproducibility(found: Sequence[Condition]) -> Iterator[Check]:
    """Whether a new run on this machine could end with the same bytes."""
    compared = [one for one in found if one.here is not None]
    differing = [one for one in compared if one.run != one.here]
    if not differing:
        text = (
            f"{len(compared)} conditions of the run hold here: a run of its recipe ends with the same bytes"
        )
        on_cpu = next((one.run for one in found if one.name == "device"), "") == "CPU"
        yield Check(AREA, "passed", text if on_cpu else f"{text}, as far as the GPU's kernels allow")
    for one in differing:
        yield Check(AREA, "warning", f"{one.name}: {one.run} in the run, {one.here} here")


def _environment(run: Path) -> dict[str, Any]:
    try:
        data = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
