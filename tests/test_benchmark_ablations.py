"""The page of ablations on real corpora: plans without a table are named as such, tables lie under their plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import ablations


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
