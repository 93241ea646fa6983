from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from domainclip import registry
from domainclip.errors import RecipeError
from domainclip.evaluation.base import EvaluationSet, Probe, ProbeResult
from domainclip.evaluation.metrics.subgroup_cells import Column
from domainclip.evaluation.probes.subgroups import Subgroups
from domainclip.evaluation.statistics import estimates
from tests.evaluation.probes.array_encoder import ArrayEncoder, CollapsedEncoder, evaluation_set
from tests.evaluation.probes.synthetic_sets import metric_of, metric_value

CLASSES = {"cat": ["a cat"], "dog": ["a dog"]}
AXES: dict[str, list[float]] = {"a cat": [1, 0], "a dog": [0, 1]}


def named(results: ProbeResult) -> list[str]:
    return [metric.name for metric in results.metrics]


def people(right: dict[str, tuple[int, int]], **more: Any) -> tuple[ArrayEncoder, EvaluationSet]:
    """By sex, (number of cats, number of these classified as cats); the others are classified as dogs."""
    rows, images = [], {}
    for sex, (n, recognised) in right.items():
        for i in range(n):
            name = f"{sex}{i:03d}"
            rows.append({"id": name, "labels": ["cat"], "meta": {"sex": sex, "age": 20 + i, **more}})
            images[name] = [1.0, 0.0] if i < recognised else [0.0, 1.0]
    return ArrayEncoder(images, AXES), evaluation_set(rows, CLASSES)


def test_it_is_a_probe() -> None:
    assert isinstance(Subgroups(), Probe)


def test_cells_worst_group_and_gap_by_hand() -> None:
    model, data = people({"F": (20, 15), "M": (40, 36)})
    results = Subgroups(by=["sex"])(model, data)
    assert named(results) == [
        "accuracy_worst_group",
        "accuracy_gap",
        "tpr_gap/sex: cat",
        "accuracy/sex=F",
        "accuracy/sex=M",
        "ece/sex=F",
        "ece/sex=M",
    ]
    assert results.primary == "accuracy_worst_group"
    assert metric_value(results, "accuracy/sex=F") == 0.75
    assert metric_value(results, "accuracy/sex=M") == 0.9
    assert metric_value(results, "accuracy_worst_group") == 0.75
    assert metric_value(results, "accuracy_gap") == pytest.approx(0.15)
    assert metric_value(results, "tpr_gap/sex: cat") == pytest.approx(0.15)
    assert metric_of(results, "accuracy_gap").higher_is_better is False
    assert len(metric_of(results, "accuracy/sex=F").ids) == 20
    assert 0 < results.details["gap_by_luck"]["sex"] < 0.15


def test_the_worst_group_is_selected_in_every_resample() -> None:
    model, data = people({"F": (20, 15), "M": (40, 36)})
    metric = metric_of(Subgroups(by=["sex"])(model, data), "accuracy_gap")
    weights = np.random.default_rng(0).integers(0, 3, (25, 60)).astype(float)
    female = np.array([name.startswith("F") for name in metric.ids])
    for row, value in zip(weights, metric.aggregate(metric.scores, weights), strict=True):
        cells = [np.average(metric.scores[side], weights=row[side]) for side in (female, ~female)]
        assert value == pytest.approx(max(cells) - min(cells))


def test_bins_and_missing_values() -> None:
    column = Column("age", (40.0, 60.0))
    values = [39, 40, "59.9", 60, None, "", "old"]
    assert [column.value(value) for value in values] == [
        "age <40",
        "age ≥40 to <60",
        "age ≥40 to <60",
        "age ≥60",
        "age not given",
        "age not given",
        "age not given",
    ]
    model, data = people({"F": (30, 20), "M": (30, 25)})
    results = Subgroups(by=["age=30,40"])(model, data)
    assert metric_value(results, "accuracy/age <30") == 1
    assert metric_value(results, "accuracy/age ≥40") == pytest.approx(5 / 20)


def test_no_small_cell_can_be_derived_by_subtraction() -> None:
    model, data = people({"F": (20, 15), "M": (40, 36), "X": (3, 1)})
    results = Subgroups(by=["sex"])(model, data)
    # With F and M shown, X would be the total minus both, so the smaller of the two is suppressed too.
    assert results.metrics == []
    assert results.details["cells_not_shown"] == {"sex": 3}
    assert results.details["not_measured"] == "there are no two cells of at least 10 patients or objects"
    model, data = people({"F": (20, 15), "M": (40, 36), "D": (30, 20), "X": (3, 1)})
    results = Subgroups(by=["sex"])(model, data)
    assert [name for name in named(results) if "=" in name] == [
        f"{metric}/sex={sex}" for metric in ("accuracy", "ece") for sex in "DM"
    ]
    assert results.details["cells_not_shown"] == {"sex": 2}


def test_patients_are_counted_not_images() -> None:
    model, data = people({"F": (30, 20), "M": (30, 25)})
    groups = [f"{name[0]}{int(name[1:]) // (5 if name[0] == 'F' else 1)}" for name in data.items["id"]]
    data = replace(data, items=data.items.map(lambda row, i: {**row, "group": groups[i]}, with_indices=True))
    results = Subgroups(by=["sex"])(model, data)
    assert results.metrics == []  # 30 images of 6 women
    assert Subgroups(by=["sex"], smallest=6)(model, data).metrics


def test_intersections_of_two_columns() -> None:
    model, data = people({"F": (40, 20), "M": (40, 36)})
    results = Subgroups(by=["sex", "age=40"], intersections=True)(model, data)
    cells = [name for name in named(results) if name.startswith("accuracy/") and "," in name]
    assert cells == [f"accuracy/sex={sex}, age {age}" for sex in "FM" for age in ("<40", "≥40")]
    assert metric_value(results, "accuracy/sex=F, age <40") == 1
    assert metric_value(results, "accuracy/sex=F, age ≥40") == 0
    assert metric_value(results, "accuracy_worst_group/sex × age") == 0
    assert metric_value(results, "accuracy_gap/sex × age") == 1
    assert (
        metric_value(results, "accuracy_worst_group") == 0.4
    )  # over single columns: age ≥40, where all F are misclassified


def test_a_suppressed_value_suppresses_its_intersections() -> None:
    rows, images = [], {}
    sizes = {
        ("F", 30): 12,
        ("M", 30): 40,
        ("D", 30): 15,
        ("X", 30): 4,
        ("F", 50): 14,
        ("M", 50): 40,
        ("D", 50): 15,
    }
    for (sex, age), n in sizes.items():
        for i in range(n):
            name = f"{sex}{age}{i:02d}"
            rows.append({"id": name, "labels": ["cat"], "meta": {"sex": sex, "age": age}})
            images[name] = [1.0, 0.0]
    results = Subgroups(by=["sex", "age=40"], intersections=True)(
        ArrayEncoder(images, AXES), evaluation_set(rows, CLASSES)
    )
    shown = [name.removeprefix("accuracy/") for name in named(results) if name.startswith("accuracy/")]
    assert "sex=X" not in shown
    assert "sex=F" not in shown  # the next smallest, so that X is not the difference
    assert not [name for name in shown if name.startswith(("sex=X", "sex=F"))]


def test_several_labels_are_measured_by_auroc_in_each_cell() -> None:
    rng = np.random.default_rng(0)
    classes = {name: {"positive": [name], "negative": [f"no {name}"]} for name in ("fluid", "air")}
    texts = {name: np.eye(4)[i].tolist() for i, name in enumerate(("fluid", "air", "no fluid", "no air"))}

    def split(prefix: str) -> list[dict[str, Any]]:
        return [
            {
                "id": f"{prefix}{i:02d}",
                "labels": [name for name in classes if rng.random() < 0.6],
                "meta": {"sex": "FM"[i % 2]},
            }
            for i in range(60)
        ]

    rows, validation_rows = split("t"), split("v")
    vectors = {str(row["id"]): rng.normal(size=4) for row in rows + validation_rows}
    for row in rows + validation_rows:
        for name in row["labels"]:
            vectors[row["id"]][list(classes).index(name)] += 1
    model = ArrayEncoder({name: vector.tolist() for name, vector in vectors.items()}, texts)
    data = replace(
        evaluation_set(rows, classes, multi_label=True),
        validation=evaluation_set(validation_rows, classes, multi_label=True).items,
    )
    results = Subgroups()(model, data)
    unit = model.images(data.items).astype(float)
    margins = np.round(np.round(unit[:, :2], 6) - np.round(unit[:, 2:], 6), 6)
    each = []
    for side in (0, 1):
        inside = np.arange(60) % 2 == side
        truth = [
            [name in row["labels"] for name in classes]
            for row, included in zip(rows, inside, strict=True)
            if included
        ]
        each.append(roc_auc_score(np.array(truth), margins[inside], average="macro"))
    assert metric_value(results, "macro_auroc/sex=F") == pytest.approx(each[0])
    assert metric_value(results, "macro_auroc_gap") == pytest.approx(abs(each[0] - each[1]))
    assert {"tpr_gap/sex: fluid", "tpr_gap/sex: air"} <= set(named(results))
    assert not [n for n in named(Subgroups()(model, replace(data, validation=None))) if "tpr" in n]


def three_animals(n: int) -> tuple[ArrayEncoder, EvaluationSet, np.ndarray, np.ndarray]:
    """n items of each class and sex; of owls, no man has any."""
    rng = np.random.default_rng(3)
    truth = np.tile(np.repeat([0, 1, 2], n), 2)
    sex = np.repeat(["F", "M"], 3 * n)
    truth[(truth == 2) & (sex == "M")] = 1
    names = ["cat", "dog", "owl"]
    rows = [{"id": f"{i:03d}", "labels": [names[c]], "meta": {"sex": sex[i]}} for i, c in enumerate(truth)]
    vectors = rng.normal(size=(6 * n, 3)) + np.eye(3)[truth]
    images = {str(row["id"]): vector.tolist() for row, vector in zip(rows, vectors, strict=True)}
    model = ArrayEncoder(images, {name: np.eye(3)[i].tolist() for i, name in enumerate(names)}, scale=4.0)
    return model, evaluation_set(rows, {name: [name] for name in names}), truth, sex


def test_each_cell_has_an_auroc_of_the_classes_that_all_cells_have() -> None:
    model, data, truth, sex = three_animals(12)
    results = Subgroups()(model, data)
    chances = softmax(4.0 * model.images(data.items).astype(np.float64), axis=1)
    for value in "FM":
        inside = sex == value
        areas = [roc_auc_score(truth[inside] == i, chances[inside, i]) for i in (0, 1)]
        assert metric_value(results, f"macro_auroc/sex={value}") == pytest.approx(np.mean(areas))
        assert metric_value(results, f"auroc/sex={value}: cat") == pytest.approx(areas[0])
        assert not metric_of(results, f"auroc/sex={value}: cat").comparable
    assert metric_of(results, "macro_auroc/sex=F").comparable
    assert "auroc/sex=F: owl" in named(results)
    assert "auroc/sex=M: owl" not in named(results)  # no man has one
    few = Subgroups()(*three_animals(9)[:2])
    assert not [name for name in named(few) if "auroc" in name]


def test_each_cell_has_a_calibration_error_that_is_not_judged() -> None:
    """All answers have a confidence near 1: the error is 1 less the accuracy, and luck none of it."""
    model, data = people({"F": (20, 15), "M": (40, 36)})
    results = Subgroups(by=["sex"])(model, data)
    assert metric_value(results, "ece/sex=F") == pytest.approx(0.25, abs=1e-6)
    assert metric_value(results, "ece/sex=M") == pytest.approx(0.1, abs=1e-6)
    error = metric_of(results, "ece/sex=F")
    assert (error.comparable, error.higher_is_better, len(error.ids)) == (False, False, 20)
    assert results.details["ece_of_a_calibrated_model"] == pytest.approx({"sex=F": 0, "sex=M": 0}, abs=1e-6)


def test_cells_of_few_positives_are_not_judged() -> None:
    """A mean over classes with nine positives in a cell is shown without a verdict; with ten it is judged."""
    for positives, judged in ((9, False), (10, True)):
        rows = [
            {"id": f"{sex}{i:02d}", "labels": ["fluid"] * (i < positives), "meta": {"sex": sex}}
            for sex in "FM"
            for i in range(25)
        ]
        images = {str(row["id"]): [1.0, 0.1 * i % 1] for i, row in enumerate(rows)}
        model = ArrayEncoder(images, {"fluid": [1.0, 0.0], "no fluid": [0.0, 1.0]})
        classes = {"fluid": {"positive": ["fluid"], "negative": ["no fluid"]}}
        results = Subgroups()(model, evaluation_set(rows, classes, multi_label=True))
        assert metric_of(results, "macro_auroc/sex=F").comparable is judged
        assert results.details["averaged_over"] == (["fluid"] if judged else "all classes: not judged")
        assert ("auroc/sex=F: fluid" in named(results)) is judged


def test_without_classes_retrieval_is_measured_by_language() -> None:
    rows = [
        {"id": f"{language}{i:02d}", "texts": [f"{language} {i}"], "language": language}
        for language in ("de", "en")
        for i in range(15)
    ]
    images = {str(row["id"]): np.eye(16)[i % 15].tolist() for i, row in enumerate(rows)}
    texts = {f"en {i}": np.eye(16)[i].tolist() for i in range(15)} | {
        f"de {i}": np.eye(16)[15].tolist() for i in range(15)
    }
    results = Subgroups()(ArrayEncoder(images, texts), evaluation_set(rows))
    assert results.primary == "image_to_text_r1_worst_group"
    assert metric_value(results, "image_to_text_r1/language=en") == 1
    assert metric_value(results, "image_to_text_r1_worst_group") == pytest.approx(1 / 15)


def test_a_collapsed_model_has_no_gap() -> None:
    _, data = people({"F": (20, 15), "M": (40, 36)})
    results = Subgroups(by=["sex"])(CollapsedEncoder(), data)
    assert metric_value(results, "accuracy_gap") == 0
    assert (
        metric_value(results, "accuracy_worst_group")
        == metric_of(results, "accuracy_worst_group").chance
        == 0.5
    )


def test_the_gap_of_equal_groups_equals_the_gap_at_chance() -> None:
    """Negative control: sexes are assigned at random."""
    rng = np.random.default_rng(1)
    excess = []
    for _ in range(12):
        rows = [
            {"id": f"{i:03d}", "labels": ["cat"], "meta": {"sex": "FM"[rng.integers(2)]}} for i in range(60)
        ]
        images = {str(row["id"]): [1.0, 0.0] if rng.random() < 0.7 else [0.0, 1.0] for row in rows}
        results = Subgroups()(ArrayEncoder(images, AXES), evaluation_set(rows, CLASSES))
        excess.append(metric_value(results, "accuracy_gap") - results.details["gap_by_luck"]["sex"])
    assert abs(np.mean(excess)) < 0.05


def test_a_missing_column_is_named() -> None:
    model, data = people({"F": (20, 15), "M": (40, 36)})
    card = data.card.model_copy(
        update={"columns": data.card.columns.model_copy(update={"meta": ["sex", "age"]})}
    )
    data = replace(data, card=card)
    results = Subgroups(by=["sexx"])(model, data)
    assert results.warnings == ['subgroups on test: no item has "sexx": did you mean "sex"?']
    assert results.details == {
        "not_measured": "there are no metadata columns to divide by",
        "columns_not_there": ["sexx"],
    }
    both = Subgroups(by=["sexx", "sex"])(model, data)
    assert both.warnings == results.warnings
    assert both.metrics
    # No warning for a set whose card lists no columns, such as the retention set.
    assert Subgroups(by=["sexx"])(*people({"F": (20, 15)})).warnings == []


def test_columns_with_many_values_need_to_be_named() -> None:
    model, data = people({"F": (20, 15), "M": (40, 36)})
    assert Subgroups()(model, data).details["columns"] == ["sex"]  # ages are numbers: they need bins


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"by": ["age=60,40"]},
            'by: "age=60,40" is neither a column nor a column with ascending limits, such as age=40,60',
        ),
        (
            {"by": ["age=x"]},
            'by: "age=x" is neither a column nor a column with ascending limits, such as age=40,60',
        ),
        ({"by": ["age", "age=40"]}, 'by: column "age" is listed twice: list each column once'),
        ({"smallest": 1}, "smallest: at least 2: a cell of one is a person"),
    ],
)
def test_invalid_options_are_rejected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        registry.build("probes", "subgroups", options, "probes.subgroups")
    assert str(error.value) == f"probes.subgroups: {message}"


def test_intervals_of_cells_and_gap() -> None:
    model, data = people({"F": (40, 15), "M": (40, 36)})
    metric = metric_of(Subgroups(by=["sex"])(model, data), "accuracy_gap")
    estimate = estimates.compare_paired(metric.aggregate, metric.scores, None, metric.groups, 400, 0).base
    assert estimate.low > 0.2
    assert estimate.high < 0.8


def _ages(values: list[str], name: str = "PatientAge") -> tuple[ArrayEncoder, EvaluationSet]:
    rows, images = [], {}
    for i, value in enumerate(values):
        rows.append({"id": f"p{i:03d}", "labels": ["cat"], "meta": {name: value}})
        images[f"p{i:03d}"] = [1.0, 0.0] if i % 2 else [0.0, 1.0]
    return ArrayEncoder(images, AXES), evaluation_set(rows, CLASSES)


@pytest.mark.parametrize("name", ["PatientAge", "Patient Age"])
def test_ages_in_the_form_of_dicom(name: str) -> None:
    model, data = _ages(["018M", "065Y", "300D", "080Y "] * 10, name)
    results = Subgroups(by=[f"{name}=40"])(model, data)
    assert {"accuracy/" + name + " <40", "accuracy/" + name + " ≥40"} <= set(named(results))
    assert results.warnings == []


def test_a_column_that_divides_nothing_is_named() -> None:
    model, data = _ages(["unknown"] * 40)
    results = Subgroups(by=["PatientAge=40,60"])(model, data)
    assert results.metrics == []
    assert [warning.split(": ", 1)[1] for warning in results.warnings] == [
        "not shown: PatientAge, no number in 40 of 40"
    ]
    assert results.details["columns_not_shown"] == {"PatientAge": "no number in 40 of 40"}
    model, data = _ages([f"{20 + i:03d}Y" for i in range(40)])
    (warning,) = Subgroups()(model, data).warnings
    assert "not shown: PatientAge, 40 distinct numbers: give limits, as in by=[PatientAge=40,60]" in warning
    model, data = _ages(["065Y"] * 20 + ["030Y"] * 15 + ["050Y"] * 15 + ["old"] * 5)
    results = Subgroups(by=["PatientAge=40,60"])(model, data)
    assert "PatientAge: no number in 5 of 55, counted as not given" in results.warnings[0]
    assert "accuracy/PatientAge ≥60" in named(results)


def test_sex_codes_are_one_cell_in_any_case() -> None:
    model, data = _ages(["M", "m ", "Male", "f"] * 10 + ["F"] * 10, "PatientSex")
    results = Subgroups(by=["PatientSex"])(model, data)
    assert {"accuracy/PatientSex=F", "accuracy/PatientSex=M"} <= set(named(results))
    assert len([name for name in named(results) if name.startswith("accuracy/")]) == 2
