"""The chosen variant, and the reference, on the test split: measured once, when nothing is left to choose."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace
from pathlib import Path

from domainclip.pipelines.ablation.compare import Execution, report
from domainclip.pipelines.ablation.measure import measure_ablation_baseline
from domainclip.pipelines.ablation.plan import Ablation
from domainclip.pipelines.ablation.runs import Ended
from domainclip.pipelines.ablation.table import make_table
from domainclip.report.ablation_results import Choice

_SPLIT = "test"


def measure_chosen(
    ablation: Ablation, ended: Sequence[Ended], choice: Choice, folder: Path, execution: Execution
) -> Path:
    """Measure the chosen variant and the plan's reference, with all their seeds, on the test split.

    Returns the page's path. The reference plays no part in the choice: it shows what the choice is worth.

    Raises: DataError for an empty test split; whatever measuring raises.
    """
    chosen = _only(ablation, {str(choice.variant), ablation.plan.reference or str(choice.variant)})
    runs = [end for end in ended if end.run.variant in chosen.plan.variants]
    baseline = measure_ablation_baseline(chosen)
    table = make_table(baseline, runs, folder, execution.command)
    warnings = list(table.warnings)
    if choice.max_retention_drop is not None:
        warnings.append(
            f"{table.general}: the retention set took part in the choice of this variant, so its loss there "
            "may look smaller than it is"
        )
    name = f"{ablation.name}, chosen variant {choice.variant}"
    table = replace(table, name=name, choice=None, warnings=warnings)
    return report(table, runs, folder, "final", execution)


def _only(ablation: Ablation, names: Set[str]) -> Ablation:
    """The ablation of these variants, measured on the test split by the same metrics."""
    plan, split = ablation.plan, ablation.measured.evaluate.split
    metrics = [_on_test(name, split) for name in plan.metrics]
    variants = {name: changes for name, changes in plan.variants.items() if name in names}
    only: dict[str, object] = {"variants": variants, "metrics": metrics}
    if len(variants) == 1:  # the reference was chosen, or there is none
        only["reference"] = None
    evaluate = ablation.measured.evaluate.model_copy(update={"split": _SPLIT})
    return Ablation(
        name=ablation.name,
        plan=plan.model_copy(update=only),
        measured=ablation.measured.model_copy(update={"evaluate": evaluate}),
        runs=[run for run in ablation.runs if run.variant in variants],
    )


def _on_test(metric: str, split: str) -> str:
    """The name of a metric, probe/set/metric, for the test split instead of the one that chose."""
    probe, dataset, name = metric.split("/", 2)
    return f"{probe}/{_SPLIT if dataset == split else dataset}/{name}"
