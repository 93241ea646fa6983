"""Options read from the source of a component are those of the component itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from domainclip import registry
from domainclip.config import component_source
from domainclip.errors import RecipeError

ALL = [(kind, name) for kind in registry.KINDS for name in registry.names(kind)]


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_options_from_source_are_those_of_the_class(kind: str, name: str) -> None:
    read = component_source.option_class(kind, name)
    whole = registry.find(kind, name)
    schema = registry._adapter(read).json_schema()
    expected = registry.schema(kind, name)
    assert schema.get("properties") == expected.get("properties")
    assert schema.get("required") == expected.get("required")
    assert component_source.model_options(kind, name) == whole.models


def test_a_constant_that_needs_another_constant_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what the options do not need is not executed: importing this file would raise."""
    file = tmp_path / "odd_one.py"
    file.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\nfrom typing import Literal\nimport no_such_module\n"
        "_NAME = 'b'\nKind = Literal['a', _NAME]\nraise RuntimeError\n"
        "@dataclass(frozen=True, kw_only=True)\nclass OddOne(no_such_module.Base):\n"
        "    kind: Kind = _NAME\n    width: int | None = None\n"
    )
    monkeypatch.setattr(registry, "source_file", lambda kind, name: file)
    component_source.check_options("probes", "odd_one", {"kind": "a", "width": 3}, "probes.odd_one")
    with pytest.raises(RecipeError, match=r"probes.odd_one.kind: input should be 'a' or 'b', got 'c'"):
        component_source.check_options("probes", "odd_one", {"kind": "c"}, "probes.odd_one")
    with pytest.raises(RecipeError, match=r'probes.odd_one.widht: unknown option: did you mean "width"\?'):
        component_source.check_options("probes", "odd_one", {"widht": 3}, "probes.odd_one")
