"""The page of ablations on real corpora: plans without a table are named as such, tables lie under their plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import ablations, frontier


def test_the_page_has_every_plan_with_the_tables_that_there_are(tmp_path: Path) -> None:
    bare = ablations.page(tmp_path)
    plans = sorted(file.stem for file in ablations.PLANS.glob("*.yaml"))
    assert sorted(ablations.CORPORA) == plans
    assert bare.count(ablations.NOT_MEASURED) == len(plans)
    assert all(f"    python benchmarks/ablations.py {name}\n" in bare for name in plans)
    (tmp_path / "astronomy").mkdir()
    (tmp_path / "astronomy" / "ablation.md").write_text("# astronomy: 10 variants\n\n## Choice\n")
    (tmp_path / "astronomy" / "final.md").write_text("# astronomy, chosen variant\n")
    page = ablations.page(tmp_path)
    assert page.count(ablations.NOT_MEASURED) == len(plans) - 1
    of_plan = page[page.index("### astronomy\n") : page.index("### art paintings\n")]
    assert "\n#### astronomy: 10 variants\n\n##### Choice\n" in of_plan
    assert of_plan.index("10 variants") < of_plan.index("#### astronomy, chosen variant")
    # Another machine has none of these runs, and the page keeps their tables; a new run replaces them.
    assert ablations.page(tmp_path / "none", page) == page
    assert ablations.page(tmp_path, bare) == page


def test_a_plan_is_chosen_on_validation_and_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(ablations.subprocess, "run", lambda command, **_: taken.append(command))
    ablations.run("astronomy", ["train.epochs=1"])
    (command,) = taken
    assert command[2:4] == ["domainclip", "ablate"]
    assert command[-1] == "--final"
    assert "train.epochs=1" in command
    assert not any("evaluate.split" in word for word in command)


def test_the_page_in_the_documentation_is_the_one_that_the_script_writes() -> None:
    """Until the tables are measured: then the page has them, and this test compares the rest."""
    written = (Path(__file__).parents[1] / ablations.TARGET).read_text(encoding="utf-8")
    assert written.startswith(ablations.HEAD)
    assert all(f"### {name.replace('_', ' ')}\n" in written for name in ablations.CORPORA)


def _row(probe: str, dataset: str, metric: str, value: float) -> dict[str, Any]:
    difference = {"value": value, "low": value - 0.05, "high": value + 0.05}
    return {
        **{"probe": probe, "dataset": dataset, "metric": metric},
        "variants": [{"variant": "plain", "difference": difference}],
    }


def test_the_figure_has_a_mark_for_each_measure_taken_on_both_sets() -> None:
    results = [
        _row("zero_shot", "test", "accuracy", 0.4),
        _row("zero_shot", "general", "accuracy", -0.3),
        _row("zero_shot", "test", "macro_accuracy", 0.5),  # is in no figure
        _row("retrieval", "test", "image_to_text_r1", 0.1),  # and nothing outside of the domain
    ]
    (mark,) = frontier.marks({"protocol": {"general": "general"}, "results": results})
    assert mark.variant == "plain"
    assert mark.measure == "●"
    assert (mark.inside.value, mark.inside.low, mark.inside.high) == pytest.approx((40, 35, 45))
    assert mark.outside.value == pytest.approx(-30)
    figure = ElementTree.fromstring(frontier.figure({"X <rays>": [mark]}))
    texts = ["".join(node.itertext()).strip() for node in figure.iter("{http://www.w3.org/2000/svg}text")]
    assert "X <rays>" in texts
    assert "plain: in the domain +40.0, outside -30.0●" in texts


def test_places_in_the_figure_by_hand() -> None:
    assert frontier.across(-55) == 52
    assert frontier.across(15) == 400
    assert frontier.across(-20) == 226  # half way
    assert frontier.across(-99) == 52  # at the end of the axis
    assert frontier.down(-20) == 208
    assert frontier.down(100) == 20
    assert frontier.down(40) == 114
