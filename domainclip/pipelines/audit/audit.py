"""The command `audit`: all checks of a run folder. It reads, and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from domainclip.data.cards import load_card
from domainclip.errors import ModelError
from domainclip.pipelines.audit import data, files, licences, reproducibility
from domainclip.pipelines.audit.checks import Check
from domainclip.pipelines.audit.reproducibility import Condition
from domainclip.report import manifest, results_file
from domainclip.report.manifest import ListedFile
from domainclip.report.model_card import run_recipe

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Audit:
    """The result of an audit."""

    run: str  # name of the run folder
    checks: Sequence[Check]
    files: Sequence[ListedFile]  # empty for a run that wrote no list
    conditions: Sequence[Condition]

    @property
    def passed(self) -> bool:
        """Whether no check failed; warnings and what is not known do not count."""
        return not any(check.status == "failed" for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """The public form: keys are added, and renamed only when `schema_version` rises."""
        return {
            "schema_version": SCHEMA_VERSION,
            "run": self.run,
            "passed": self.passed,
            "checks": [asdict(check) for check in self.checks],
            "files": [
                {"path": one.path, "bytes": one.size, "sha256": one.sha256, "status": one.status}
                for one in self.files
            ],
            "conditions": [asdict(condition) for condition in self.conditions],
        }


def audit(run: Path, read_corpus: bool = False) -> Audit:
    """Check the files, leaks, privacy, licences and repetition of a finished run.

    Raises: RecipeError or ModelError for a folder that is no finished run.
    """
    recipe = run_recipe(run)
    if not (run / "results.json").is_file():
        raise ModelError(f"{run}: no results.json there: continue the run with --resume, then audit it")
    results = results_file.load(run / "results.json")
    card = load_card(recipe.corpus.card, recipe.corpus.overrides())
    listed = manifest.compare(run)
    equal = reproducibility.conditions(run, recipe, results)
    checks = [
        *files.check_files(run, listed, results),
        *data.check_leaks(run, card, results, read_corpus),
        *data.check_privacy(run, recipe, card),
        *licences.check_licences(recipe, card),
        *reproducibility.check_reproducibility(equal),
    ]
    return Audit(run.resolve().name, checks, listed or [], equal)
