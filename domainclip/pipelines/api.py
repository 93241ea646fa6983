"""`finetune` and `evaluate` for Python: the commands of the same names, without a shell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from domainclip.config.recipe import Recipe
from domainclip.pipelines import finetune as finetune_pipeline
from domainclip.pipelines.eval_request import EvalRequest
from domainclip.pipelines.evaluate import evaluate_models
from domainclip.pipelines.locate import locate
from domainclip.training.run_context import RunOptions


def finetune(
    recipe: Recipe | str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> Path | None:
    """Adapt a model as `domainclip finetune` does; the report's path, in the run folder.

    `recipe` is a built-in recipe, a recipe file, or a Recipe; `overrides` are as typed, "train.epochs=3", and
    apply to names and files. With `resume` the run in `run_dir` continues, and `recipe` may be left out.
    Processes other than the first return None.

    Raises: DomainclipError in one line, for whatever a person can mend.
    """
    folder = None if run_dir is None else Path(run_dir)
    if not isinstance(recipe, Recipe):
        name = None if recipe is None else str(recipe)
        recipe, folder = locate(name, overrides, folder, resume)
    options = RunOptions(folder=folder, resume=resume, quiet=quiet, command="domainclip.finetune in Python")
    return finetune_pipeline.finetune(recipe, options)


def evaluate(
    *models: str | Path,
    against: str | Path | None = None,
    overrides: Sequence[str] = (),
    recipe: str | Path | None = None,
    suite: str | None = None,
    classes: str | Sequence[str] | None = None,
    prompt_templates: Sequence[str] = (),
    split: str | None = None,
    out: str | Path | None = None,
) -> Path | None:
    """Measure models as `domainclip eval` does; the report's path.

    `models` and `against` are run folders, checkpoint folders, Hub ids or "base"; results.json lies
    next to the report.

    Raises: DomainclipError in one line, for whatever a person can mend.
    """
    request = EvalRequest(
        models=[str(model) for model in models],
        against=None if against is None else str(against),
        overrides=overrides,
        recipe=None if recipe is None else str(recipe),
        suite=suite,
        classes=classes if classes is None or isinstance(classes, str) else ",".join(classes),
        templates=prompt_templates,
        split=split,
        out=None if out is None else Path(out),
        command="domainclip.evaluate in Python",
    )
    return evaluate_models(request)
