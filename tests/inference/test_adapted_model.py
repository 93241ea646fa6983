"""The Python API of a trained model: embeddings equal those of evaluation and of plain transformers."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import AutoModel, AutoTokenizer

from domainclip.data.schema import features
from domainclip.errors import DataError, ModelError, RecipeError
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.inference.adapted_model import AdaptedModel, load_model
from tests.data.made_corpora import dicom_file

CLASSES = ["red", "green", "blue", "white"]


@pytest.fixture(scope="module")
def model(base: Path) -> AdaptedModel:
    return load_model(base, device="cpu")


@pytest.fixture(scope="module")
def images(corpus: Path) -> list[Path]:
    return sorted((corpus / "images").glob("*.png"))[:40]


def test_image_embeddings_equal_those_of_evaluation(model: AdaptedModel, images: list[Path]) -> None:
    rows = {
        "id": [str(i) for i in range(len(images))],
        "image": [{"path": str(file), "bytes": None} for file in images],
        "views": [[]] * len(images),
    }
    items = (
        Dataset.from_dict(rows)
        .cast_column("image", features()["image"])
        .cast_column("views", features()["views"])
    )
    embeddings = model.encode_images(images)
    assert embeddings.shape == (40, model.width)
    assert embeddings.dtype == np.float32
    np.testing.assert_array_equal(embeddings, CachedEncoder(model.model).images(items))


def test_text_embeddings_equal_those_of_transformers(model: AdaptedModel, base: Path) -> None:
    texts = ["a red square", "a blue square 7"]
    plain, tokenizer = AutoModel.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    with torch.no_grad():
        vectors = plain.get_text_features(**tokenizer(texts, padding=True, return_tensors="pt")).pooler_output
    expected = torch.nn.functional.normalize(vectors, dim=-1).numpy()
    np.testing.assert_allclose(model.encode_texts(texts), expected, atol=1e-5)


def test_a_pil_image_is_encoded_as_its_file(model: AdaptedModel, images: list[Path]) -> None:
    """Transparency, orientation and colour profile are handled as in a corpus."""
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(images[0]).save(turned, "JPEG", exif=exif)
    for content in (images[0].read_bytes(), turned.getvalue()):
        file = images[0].parent.parent / "copy.img"
        file.write_bytes(content)
        opened = Image.open(io.BytesIO(content))
        np.testing.assert_array_equal(model.encode_images([opened]), model.encode_images([str(file)]))
        file.unlink()


def test_a_dicom_file_is_rendered(model: AdaptedModel, tmp_path: Path) -> None:
    levels = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)
    file = dicom_file(tmp_path / "scan.dcm", levels)
    assert np.linalg.norm(model.encode_images([file])) == pytest.approx(1, abs=1e-5)


def test_similarity_is_the_cosine(model: AdaptedModel, images: list[Path]) -> None:
    texts = ["a red square", "a green square", "something else"]
    cosines = model.similarity(images[:5], texts)
    assert cosines.shape == (5, 3)
    expected = model.encode_images(images[:5]) @ model.encode_texts(texts).T
    np.testing.assert_allclose(cosines, expected, atol=1e-6)


def test_classes_are_predicted_by_the_mean_of_their_prompts(model: AdaptedModel, images: list[Path]) -> None:
    """Recomputed with numpy: unit mean of unit prompt vectors, softmax of scaled cosines."""
    templates = ["a {} square", "the colour {}"]
    answers = model.classify(images[:6], CLASSES, templates)
    prompts = model.encode_texts([t.format(name) for name in CLASSES for t in templates]).astype(np.float64)
    means = prompts.reshape(4, 2, -1).mean(1)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    logits = model.encode_images(images[:6]) @ means.T * float(model.model.scale.detach())
    exp = np.exp(logits - logits.max(1, keepdims=True))
    expected = exp / exp.sum(1, keepdims=True)
    for answer, row in zip(answers, expected, strict=True):
        np.testing.assert_allclose([answer.probabilities[name] for name in CLASSES], row, atol=1e-4)
        assert answer.label == CLASSES[int(row.argmax())]
        assert sum(answer.probabilities.values()) == pytest.approx(1)


def test_a_mapping_of_prompts_needs_no_templates(model: AdaptedModel, images: list[Path]) -> None:
    named = model.classify(images[:3], ["red", "blue"], ["a {} square"])
    written = model.classify(images[:3], {"red": ["a red square"], "blue": ["a blue square"]})
    assert named == written


def test_no_input_gives_no_rows(model: AdaptedModel) -> None:
    assert model.encode_images([]).shape == (0, model.width)
    assert model.encode_texts([]).shape == (0, model.width)


@pytest.mark.parametrize(
    ("classes", "templates", "message"),
    [
        (["red"], ["{}"], "classes: 1 given; name two or more to choose among"),
        (CLASSES, ["a square"], "must hold {} once, where the class name goes"),
    ],
)
def test_invalid_classes_and_templates(
    model: AdaptedModel, images: list[Path], classes: list[str], templates: list[str], message: str
) -> None:
    with pytest.raises(RecipeError, match=message.replace("{", r"\{")):
        model.classify(images[:1], classes, templates)


def test_errors_name_a_missing_image_and_a_missing_model(model: AdaptedModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.png"):
        model.encode_images([tmp_path / "absent.png"])
    with pytest.raises(ModelError, match="no such folder"):
        load_model(tmp_path / "absent")
