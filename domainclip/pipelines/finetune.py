"""The command `finetune`: nine hops, each a function of its own file that takes values and gives the next."""

from __future__ import annotations

from pathlib import Path

from domainclip.config.recipe import Recipe
from domainclip.evaluation.evaluate import evaluate_pair
from domainclip.pipelines.baseline import measure_baseline, reload_base
from domainclip.pipelines.class_scorer import fit_class_scorer
from domainclip.pipelines.ensemble_shares import fit_shares
from domainclip.pipelines.finetune_seeds import finetune_seeds
from domainclip.pipelines.inputs import load_inputs
from domainclip.pipelines.open_run import open_run
from domainclip.pipelines.protocol import make_protocol
from domainclip.pipelines.reporting import write_run_report
from domainclip.pipelines.run_folder import save_adapted_model
from domainclip.pipelines.source_removal import remove_source
from domainclip.pipelines.starting_point import find_starting_point
from domainclip.pipelines.training_setup import plan_training
from domainclip.training.run_context import RunOptions
from domainclip.training.stages import train_in_stages
from domainclip.training.weight_interpolation import interpolate_weights


def finetune(recipe: Recipe, options: RunOptions) -> Path | None:
    """Adapt a model and report what it gained and forgot; the report's path, on the first process.

    Raises: DomainclipError; what was saved before stays.
    """
    if recipe.train.seeds is not None:
        return finetune_seeds(recipe, options)
    with open_run(recipe, options) as run:
        inputs = load_inputs(recipe, "train")
        protocol = make_protocol(inputs)
        run.say(*inputs.guesses)
        run.warn(*inputs.warnings, *protocol.overlap.invalid)
        start = find_starting_point(inputs, run)
        baseline = measure_baseline(inputs.base, protocol, run)
        setup = plan_training(inputs, protocol, start, run)
        trained = train_in_stages(setup, run)
        adapted = interpolate_weights(trained, protocol, baseline.selection_metric)
        adapted = remove_source(adapted, inputs, protocol, run)
        adapted = fit_class_scorer(adapted, inputs, run)
        adapted = fit_shares(adapted, inputs, protocol, run)
        save_adapted_model(adapted.model, run.folder)
        base = reload_base(inputs, protocol, run)
        evaluation = evaluate_pair(base, adapted.encoder, protocol)
        run.warn(*evaluation.warnings)
        return write_run_report(evaluation, base, adapted, inputs, protocol, run)
