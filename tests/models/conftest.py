from __future__ import annotations

import os
from pathlib import Path

import pytest

from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.loading import load_model
from tests.support.tiny_models import tiny_clip


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP checkpoint that no test changes."""
    return tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def clip(clip_folder: Path) -> DualEncoder:
    return load_model(clip_folder)


@pytest.fixture
def real_clip() -> Path:
    """A trained checkpoint, where the machine has one."""
    folder = Path(os.environ.get("DOMAINCLIP_SHARED", "../shared")) / "weights" / "vit-tiny-clip"
    if not folder.is_dir():
        pytest.skip("no trained checkpoint here")
    return folder
