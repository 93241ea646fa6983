"""The code of a model card runs as it is copied, and computes what `classify` computes."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from markdown_it import MarkdownIt
from PIL import Image

from domainclip.data.cards import Card, Prompts
from domainclip.evaluation import run_classes
from domainclip.evaluation.class_decisions import Decisions
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.run_classes import RunClasses
from domainclip.inference.classifier import Classifier, ask
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.saving import save_model
from domainclip.report.model_card import CardFacts, render
from domainclip.report.usage import ModelUse, blocks
from tests.support import tiny_models
from tests.support.run_folders import adapted, recipe, results

# Words, quotes, marks of Markdown and of code, and a letter that is not shown.
CLASSES = {
    "a cat": Prompts(positive=["a photo of a cat.", 'the "cat" `here`\n```']),
    "dog | {}": Prompts(positive=["a photo of a dog | {}.", "ein Hund\u202e \\n"]),
    "nothing": Prompts(positive=["a photo of nothing."]),
}
OPPOSED = {
    name: Prompts(positive=prompts.positive, negative=[f"no {name}", "an empty image"])
    for name, prompts in CLASSES.items()
}
FAMILIES: dict[str, Callable[[Path], Path]] = {
    "clip": tiny_models.tiny_clip,
    "siglip": tiny_models.tiny_siglip,
    "siglip2": tiny_models.tiny_siglip2_naflex,
    "tipsv2": tiny_models.tiny_tipsv2,
    "chinese_clip": tiny_models.tiny_chinese_clip,
    "vision-text-dual-encoder": tiny_models.tiny_dual_encoder,
}


@pytest.mark.parametrize("opposed", [False, True])
@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("family", ["clip", "siglip", "tipsv2"])
def test_the_code_computes_what_classify_prints(
    family: str, lora: bool, opposed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decisions = Decisions(temperature=1.7, thresholds={"a cat": 0.1, "nothing": -0.2} if opposed else {})
    recorded = RunClasses(
        corpus="", classes=OPPOSED if opposed else CLASSES, multi_label=opposed, decisions=decisions
    )
    model = _saved(FAMILIES[family], tmp_path, lora, recorded)
    space, printed = _executed(_card(tmp_path, family), tmp_path, monkeypatch)
    classifier = Classifier(CachedEncoder(model), ask(recorded))
    image = _embedding(model, tmp_path)
    if opposed:
        (findings,) = classifier.find(image)
        expected = {name: finding.probability for name, finding in findings.items()}
        present = {name: f.present for name, f in findings.items() if f.present is not None}
        assert present == {
            name: word == "present"
            for name, word in re.findall(r"^(.*): (present|absent)$", printed, re.MULTILINE)
        }
    else:
        expected = dict(classifier.classify(image)[0].probabilities)
    assert list(space["classes"]) == list(CLASSES)
    assert dict(zip(space["classes"], space["probabilities"].tolist(), strict=True)) == pytest.approx(
        expected, abs=2e-4
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_without_classes_two_descriptions_are_compared(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _saved(FAMILIES[family], tmp_path, lora=False)
    space, _ = _executed(_card(tmp_path, family), tmp_path, monkeypatch)
    ((first, second),) = space["out"].logits_per_image.tolist()
    assert first != second
    with torch.no_grad():
        text = model.encode_text(model.text_tokenizer(["one description", "another description"]))
    logits = model.scale.item() * _embedding(model, tmp_path) @ text.numpy().T
    bias = 0.0 if model.bias is None else model.bias.item()
    # The patches of SigLIP 2 are resized by transformers on another path.
    np.testing.assert_allclose([[first, second]], logits + bias, atol=2e-2 if family == "siglip2" else 2e-4)


def test_lower_case_and_learned_tokens_are_in_the_texts() -> None:
    recorded = RunClasses(corpus="", classes={"A Cat": Prompts(positive=["A Photo of A Cat"])})
    use = ModelUse(adapter=False, family="siglip", classes=recorded, lower_case=True)
    assert '"A Cat": ["a photo of a cat"],' in blocks(use, None, None).code
    learned = {"before": {"A Cat": "<t0>", "": "<t1>"}, "names": {"A Cat": "<c0>"}}
    use = ModelUse(adapter=False, classes=recorded, learned_tokens=learned)
    assert '"A Cat": ["<t0>A Photo of <c0>"],' in blocks(use, None, None).code


def test_many_prompts_are_read_from_the_pushed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = RunClasses(corpus="", classes={f"thing {i}": Prompts(positive=[f"a {i}"]) for i in range(70)})
    model = _saved(tiny_models.tiny_clip, tmp_path, lora=False, recorded=recorded)
    card = _card(tmp_path, "clip")
    assert "thing 7" not in card
    space, _ = _executed(card, tmp_path, monkeypatch)
    expected = Classifier(CachedEncoder(model), ask(recorded)).classify(_embedding(model, tmp_path))
    assert space["probabilities"].tolist() == pytest.approx(
        list(expected[0].probabilities.values()), abs=1e-4
    )


def test_lines_that_do_not_work_for_a_model_are_not_on_its_card() -> None:
    kinds = {
        (family, adapter): (bool(found.pipeline), bool(found.sentences))
        for family in FAMILIES
        for adapter in (False, True)
        for found in [blocks(ModelUse(adapter, family), "lab/base", None)]
    }
    assert {key: shown for key, shown in kinds.items() if shown != (True, True)} == {
        **{(family, True): (False, False) for family in FAMILIES},
        ("siglip", False): (True, False),
        ("siglip2", False): (True, False),
        ("tipsv2", False): (False, False),
        ("vision-text-dual-encoder", False): (False, True),
    }


@pytest.mark.parametrize("templates", [["a photo of a {}."], []])
def test_the_pipeline_has_the_template_of_the_run(templates: list[str]) -> None:
    classes = {name: Prompts(positive=[f"a photo of a {name}."]) for name in ("cat", "dog")}
    found = blocks(
        ModelUse(False, "clip", RunClasses(corpus="", classes=classes, templates=templates)), None, None
    )
    if templates:
        assert 'labels = ["cat", "dog"]' in found.pipeline
        assert 'hypothesis_template="a photo of a {}."' in found.pipeline
    else:
        assert 'labels = ["a photo of a cat.", "a photo of a dog."]' in found.pipeline
        assert 'hypothesis_template="{}"' in found.pipeline
    assert 'model.encode(["a photo of a cat.", "a photo of a dog."])' in found.sentences


def test_the_published_classes_give_the_same_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' pipeline and sentence-transformers, without a line of this package."""
    pytest.importorskip("sentence_transformers")
    classes = {name: Prompts(positive=[f"a photo of a {name}."]) for name in ("cat", "dog")}
    recorded = RunClasses(corpus="", classes=classes, templates=["a photo of a {}."])
    model = _saved(tiny_models.tiny_clip, tmp_path, lora=False, recorded=recorded)
    code = _fences(_card(tmp_path, "clip"))
    assert len(code) == 3
    shown: dict[str, Any] = {"print": lambda answer: shown.update(answer=answer)}
    for part in code[1:]:
        exec(_local(part, tmp_path, monkeypatch), shown)
        if "pipeline" in part:
            answers = {one["label"]: one["score"] for one in shown["answer"]}
    encoder = CachedEncoder(model)
    expected = Classifier(encoder, ask(recorded)).classify(_embedding(model, tmp_path))[0].probabilities
    assert answers == pytest.approx(expected, abs=1e-4)
    cosines = _embedding(model, tmp_path) @ encoder.texts(["a photo of a cat.", "a photo of a dog."]).T
    np.testing.assert_allclose(shown["answer"].numpy(), cosines, atol=1e-4)


def _saved(
    make: Callable[[Path], Path], folder: Path, lora: bool, recorded: RunClasses | None = None
) -> DualEncoder:
    """Adapted weights in folder/model, their classes, and an image beside them."""
    model = adapted(make(folder / "base"), lora)
    save_model(model, folder / "model")
    if recorded is not None:
        run_classes.save(folder / "model", recorded)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    return model


def _card(folder: Path, family: str) -> str:
    facts = CardFacts(recipe(str(folder / "base")), Card())
    return render(results(), facts, ModelUse.of(folder / "model", family))


def _fences(text: str) -> list[str]:
    """The Python code of a card, as a reader of Markdown gets it."""
    return [
        token.content
        for token in MarkdownIt().parse(text)
        if token.type == "fence" and token.info == "python"
    ]


def _local(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Code with folders instead of names on the Hub, which runs in `folder`."""
    ast.parse(code)
    assert "domainclip" not in code
    monkeypatch.chdir(folder)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repo, name: f"{repo}/{name}")
    return code.replace('"OWNER/NAME"', repr(str(folder / "model"))).replace(
        '"BASE"', repr(str(folder / "base"))
    )


def _executed(card: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], str]:
    """The variables after the first code of a card, and what it prints."""
    lines: list[str] = []
    space: dict[str, Any] = {"print": lambda *values: lines.append(" ".join(map(str, values)))}
    exec(_local(_fences(card)[0], folder, monkeypatch), space)
    assert lines
    return space, "\n".join(lines)


def _embedding(model: DualEncoder, folder: Path) -> np.ndarray:
    """(1, d) of the image."""
    prepared = model.image_preprocessor(Image.open(folder / "image.png").convert("RGB"))
    with torch.no_grad():
        embedding = model.encode_image(
            {key: torch.from_numpy(value)[None] for key, value in prepared.items()}
        )
    return embedding.numpy()
