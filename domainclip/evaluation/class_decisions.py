"""The thresholds and the temperature that probes chose on the validation split, for `classify`."""

from __future__ import annotations

from pydantic import Field

from domainclip.config.strict_model import StrictModel
from domainclip.evaluation.evaluate import Evaluation

_PRESET = "normalise_mean_normalise"  # thresholds of another preset belong to other prompts or scores


class Decisions(StrictModel):
    """What turns scores into findings and calibrated probabilities; it holds for one set of weights only."""

    # By class, in logits: a finding is present where scale times margin is at or above it.
    thresholds: dict[str, float] = {}
    # Every logit is divided by it before softmax or sigmoid; null: calibration was not measured.
    temperature: float | None = Field(default=None, gt=0)
    # Expected calibration error after that, on the measured split, which the temperature was not fitted on.
    calibration_error: float | None = None
    calibration_split: str = ""
    calibration_items: int = 0


def chosen_decisions(evaluation: Evaluation, dataset: str, adapted: bool) -> Decisions | None:
    """The decisions of the adapted model, or of the first one, on a set; None where no probe chose any."""
    details = {
        entry["probe"]: entry["details"] | (entry["adapted_details"] if adapted else {})
        for entry in evaluation.protocol
        if entry["dataset"] == dataset
    }
    zero_shot, calibration = details.get("zero_shot", {}), details.get("calibration", {})
    thresholds = zero_shot.get("thresholds") if zero_shot.get("preset") == _PRESET else None
    temperature = calibration.get("temperature")
    if not isinstance(thresholds, dict):
        thresholds = {}
    if not isinstance(temperature, float):
        return Decisions(thresholds=thresholds) if thresholds else None
    error = next(
        (
            row
            for row in evaluation.rows
            if (row.probe, row.dataset, row.metric) == ("calibration", dataset, "ece_fitted")
        ),
        None,
    )
    estimate = None if error is None else error.adapted if adapted else error.base
    return Decisions(
        thresholds=thresholds,
        temperature=temperature,
        calibration_error=None if estimate is None else estimate.value,
        calibration_split=dataset,
        calibration_items=0 if error is None else error.n,
    )
