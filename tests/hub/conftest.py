from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from tests.hub.local_hub import LocalHub
from tests.hub.planted_leaks import TOKEN, plant
from tests.support.run_folders import made_run, recipe


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a base on the Hub, and a corpus in a folder that is named after a patient."""
    folder = "/srv/PACS/DOE_JANE_19610417/MRN_00482913/1.2.840.113619.2.55.3.604688119.969"
    run = made_run(tmp_path_factory.mktemp("hub") / "run", settings=recipe("lab/base-clip", folder))
    command = f"domainclip finetune --recipe /srv/PACS/knee_left.yaml corpus.path={folder}"
    results = json.loads((run / "results.json").read_text())
    results["run"]["command"] = command
    (run / "results.json").write_text(json.dumps(results))
    recipe_text = (run / "recipe.yaml").read_text()
    (run / "report.md").write_text(f"# Made run\n\n```\n{command}\n```\n\n```\n{recipe_text}\n```\n")
    (run / "report.html").write_text(f"<!doctype html><code>{command}</code><pre>{recipe_text}</pre>\n")
    plant(run)
    return run


@pytest.fixture
def run(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "run"))


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No token, cache, proxy or large-file service of the user who runs the tests."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with LocalHub() as local:
        monkeypatch.setenv("HF_ENDPOINT", local.url)
        yield local
