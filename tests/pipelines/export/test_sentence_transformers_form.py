"""`SentenceTransformer` reads the folder and gives the embeddings of the run, for texts and images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import AddedToken

from domainclip.data.cards import Prompts
from domainclip.errors import ModelError
from domainclip.evaluation import run_classes
from domainclip.models import learned_tokens, loading
from domainclip.models.saving import save_model
from domainclip.pipelines.export import record
from domainclip.pipelines.export.export import export
from domainclip.pipelines.export.request import make_request
from domainclip.pipelines.export.sentence_transformers_form import SentenceTransformersForm
from domainclip.pipelines.export.source import TEXTS, drawn_images, open_source
from tests.pipelines.export.conftest import CLASSES
from tests.support import tiny_models


@pytest.mark.parametrize("family", ["tiny_clip", "tiny_siglip"])
def test_embeddings_of_the_run(tmp_path: Path, family: str) -> None:
    """SigLIP reads padding: without its full length, or with a mask, the texts would differ."""
    save_model(loading.load_model(getattr(tiny_models, family)(tmp_path / "base")), tmp_path / "run/model")
    result = export(make_request(tmp_path / "run", "sentence-transformers", tmp_path / "out"))
    assert result.check is not None
    assert result.check.library.startswith("sentence-transformers ")
    assert result.check.largest_difference <= 1e-5
    assert result.check.largest_difference_resized <= 1e-5  # Pillow, with or without torchvision
    exported = SentenceTransformersForm().load(tmp_path / "out")
    rows = np.concatenate([exported.encode_images(drawn_images(2)), exported.encode_texts(["a cat"])])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    for file in (tmp_path / "out").rglob("*.json"):
        assert str(tmp_path) not in file.read_text(), file


def test_padding_that_is_lost_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(loading.load_model(tiny_models.tiny_siglip(tmp_path / "base")), tmp_path / "run/model")
    dumps = json.dumps

    def forgetful(content: object, **options: int) -> str:
        if isinstance(content, dict):
            content = {name: value for name, value in content.items() if name != "processing_kwargs"}
        return dumps(content, **options)

    monkeypatch.setattr("domainclip.pipelines.export.sentence_transformers_form.json.dumps", forgetful)
    with pytest.raises(ModelError, match="more than 1e-05; nothing is written"):
        export(make_request(tmp_path / "run", "sentence-transformers", tmp_path / "out"))


def test_learned_tokens_are_in_the_prompts(tmp_path: Path) -> None:
    """They stand before every text and in place of a class name; other libraries get them in the text."""
    model = loading.load_model(tiny_models.tiny_clip(tmp_path / "base"))
    tokens = [AddedToken("<|context-1|>", normalized=False), AddedToken("<|name-1|>", normalized=False)]
    usage = {"before": {"": "<|context-1|>"}, "names": {"effusion": "<|name-1|>"}}
    learned_tokens.widen_token_embeddings(model, tokens, torch.randn(2, 32), usage)
    save_model(model, tmp_path / "run/model")
    run_classes.save(tmp_path / "run/model", CLASSES)
    result = export(make_request(tmp_path / "run", "sentence-transformers", tmp_path / "out"))
    assert result.check is not None
    assert result.check.largest_difference <= 1e-5
    assert result.check.same_class == 1.0
    assert result.tokenizer.prefix == "<|context-1|>"
    assert result.tokenizer.inserts_by_class
    assert result.classes["effusion"] == Prompts(
        positive=["<|context-1|>an <|name-1|>", "<|context-1|>small <|name-1|>"],
        negative=["<|context-1|>no <|name-1|>"],
    )
    readme = (tmp_path / "out/README.md").read_text()
    assert 'Learned tokens stand before every text: `export["tokenizer"]["prefix"] + text`.' in readme
    exported = SentenceTransformersForm().load(tmp_path / "out")
    source = open_source(tmp_path / "run")
    np.testing.assert_allclose(
        exported.encode_texts(source.prompts["effusion"].positive),
        source.encoder.texts(CLASSES.classes["effusion"].positive),
        atol=1e-5,
    )
    assert np.abs(exported.encode_texts(TEXTS) - source.encoder.texts(TEXTS)).max() > 1e-3


def test_the_record(run_with_classes: Path, tmp_path: Path) -> None:
    export(make_request(run_with_classes, "sentence-transformers", tmp_path / "out", check=False))
    about = record.load(tmp_path / "out")
    assert (about.form, about.precision, about.family, about.width) == (
        *("sentence-transformers", "fp32", "clip", 16),
    )
    assert about.scale == pytest.approx(float(loading.load_model(run_with_classes / "model").scale.detach()))
    assert (about.bias, about.frames, about.multi_label, about.check) == (None, 1, False, None)
    assert (about.temperature, about.thresholds) == (2.0, {"effusion": 0.01})
    assert (about.image.size, about.image.resize, about.image.crop) == ((32, 32), 32, (32, 32))
    assert (about.tokenizer.outputs, about.tokenizer.padding) == (["input_ids"], "longest")
    (tmp_path / "out/export.json").write_text("{}")
    with pytest.raises(ModelError) as caught:
        record.load(tmp_path / "out")
    assert str(caught.value) == f"{tmp_path}/out/export.json: missing or damaged: export the run again"
