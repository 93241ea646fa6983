"""Components of installed packages are found by entry points: a tiny distribution, as pip installs one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from domainclip import registry
from domainclip.cli.app import main
from domainclip.config import loading
from domainclip.config.option_types import purpose
from domainclip.errors import RecipeError
from domainclip.report import provenance

MODULE = '''"""The similarity of wrong pairs, as a term of the loss."""

from dataclasses import dataclass

from torch import Tensor

from domainclip.objectives.base import Objective, Views


@dataclass(frozen=True, kw_only=True)
class MeanCosine(Objective):
    """The mean of all s_ij."""

    width: int = 3

    def __call__(self, views: Views) -> Tensor:
        return (views.image @ views.text.T).mean()


class NoComponent:
    """It inherits nothing."""
'''
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a distribution with these entry points: its module and its metadata, on the path."""

    def go(*points: str, package: str = "acme-losses") -> Path:
        folder = tmp_path / package
        metadata = folder / f"{package.replace('-', '_')}-1.2.dist-info"
        metadata.mkdir(parents=True)
        (folder / "acme_losses.py").write_text(MODULE)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        (metadata / "entry_points.txt").write_text("\n".join(["[domainclip.components]", *points]))
        monkeypatch.syspath_prepend(str(folder))
        registry._plugins.cache_clear()
        return folder

    yield go
    monkeypatch.undo()
    registry._plugins.cache_clear()


def test_a_component_of_a_package_has_a_name(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    assert "mean_cosine" not in registry.names("objectives")
    install("objectives.mean_cosine = acme_losses:MeanCosine")
    assert "mean_cosine" in registry.names("objectives")
    assert registry.build("objectives", "mean_cosine", {"width": 5}, "objectives.mean_cosine").width == 5
    assert purpose("objectives", "mean_cosine") == "The similarity of wrong pairs, as a term of the loss."
    recipe = loading.load_recipe("hub_dataset", ["objectives={contrastive: {}, mean_cosine: {width: 4}}"])
    assert recipe.objectives["mean_cosine"] == {"width": 4}
    assert provenance.environment()["libraries"]["acme-losses"] == "1.2"
    with pytest.raises(SystemExit) as ended:
        main(["components", "show", "mean_cosine"])
    assert ended.value.code == 0
    assert "width" in capsys.readouterr().out


def test_its_options_and_its_name_are_checked(install: Install) -> None:
    install("objectives.mean_cosine = acme_losses:MeanCosine")
    with pytest.raises(RecipeError, match=r'unknown component "mean_cosin": did you mean "?mean_cosine'):
        registry.find("objectives", "mean_cosin")
    with pytest.raises(RecipeError, match=r"objectives\.mean_cosine\.widht: unknown option"):
        registry.build("objectives", "mean_cosine", {"widht": 1}, "objectives.mean_cosine")


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (
            "objectives.contrastive = acme_losses:MeanCosine",
            'acme-losses: entry point "objectives.contrastive"',
        ),
        ("losses.mean_cosine = acme_losses:MeanCosine", "not of the form KIND.NAME, with a KIND of readers,"),
        ("mean_cosine = acme_losses:MeanCosine", "not of the form KIND.NAME"),
    ],
)
def test_an_entry_point_that_names_no_component_is_refused(
    install: Install, point: str, message: str
) -> None:
    install(point)
    with pytest.raises(RecipeError) as refused:
        registry.names("strategies")
    assert message in str(refused.value)


def test_two_packages_with_one_name_are_refused(install: Install) -> None:
    install("objectives.mean_cosine = acme_losses:MeanCosine")
    install("objectives.mean_cosine = other_losses:Mean", package="other-losses")
    with pytest.raises(RecipeError, match="another component has this name; uninstall"):
        registry.names("objectives")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("acme_losses:NoComponent", "does not inherit domainclip.objectives.base.Objective"),
        ("acme_losses:Gone", 'cannot import "acme_losses:Gone"'),
        ("acme_gone:MeanCosine", 'cannot import "acme_gone:MeanCosine"'),
    ],
)
def test_a_class_that_cannot_be_used_is_refused(install: Install, place: str, message: str) -> None:
    install(f"objectives.broken = {place}")
    with pytest.raises(RecipeError, match=message):
        registry.build("objectives", "broken", {}, "objectives.broken")
