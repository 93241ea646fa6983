"""The thresholds and the temperature that an evaluation chose, recorded beside the weights of the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from domainclip.data.corpus import Corpus
from domainclip.evaluation import run_classes
from domainclip.evaluation.class_decisions import Decisions, chosen_decisions
from domainclip.evaluation.evaluate import Evaluation
from domainclip.evaluation.protocol import Protocol


def record_trained_run(run: Path, corpus: Corpus, protocol: Protocol, evaluation: Evaluation) -> None:
    """Record the decisions for the weights of a run that was just trained."""
    decisions = chosen_decisions(evaluation, protocol.reported[0].name, adapted=True)
    classes = run_classes.of_corpus(corpus).model_copy(update={"decisions": decisions})
    run_classes.save(run / "model", classes)


def record_evaluated_run(
    run: Path, names: Sequence[str], protocol: Protocol, evaluations: Sequence[Evaluation]
) -> None:
    """Record the decisions for the weights of a run that `eval` measured, alone or as the second of two.

    Only where the report lies in the run, which is locked then, and where classes, corpus and split are those
    of the run. What this evaluation did not choose stays as an earlier one chose it.
    """
    measured, classes = protocol.reported[0], run_classes.load(str(run))
    if classes is None or len(names) > 2 or Path(names[-1]).resolve() != run.resolve():
        return
    if (classes.corpus, classes.classes) != (measured.fingerprint, measured.classes):
        return
    weights = run / "model"
    chosen = chosen_decisions(evaluations[0], measured.name, adapted=len(names) == 2)
    if measured.split != "test" or chosen is None or not weights.is_dir():
        return
    before = run_classes.beside_weights(weights)
    earlier = before.decisions if before is not None else None
    merged = (earlier or Decisions()).model_copy(update=chosen.model_dump(exclude_defaults=True))
    run_classes.save(weights, classes.model_copy(update={"decisions": merged}))
