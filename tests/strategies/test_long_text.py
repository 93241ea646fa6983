"""Long texts: positions stretched by the paper's formula, and a model that plain transformers loads."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, CLIPModel

from domainclip.config import loading as loading_config
from domainclip.config.training import TrainConfig
from domainclip.errors import RecipeError
from domainclip.models import loading, position_embeddings
from domainclip.models.saving import save_model
from domainclip.pipelines.inputs import load_inputs
from domainclip.strategies.long_text import LongText
from domainclip.training import optimizer as training_optimizer
from tests.support.tiny_models import (
    tiny_altclip,
    tiny_chinese_clip,
    tiny_dual_encoder,
    tiny_metaclip_2,
    tiny_siglip,
)

LONG = "a red circle and a blue square " * 30
TABLE = "text/text_model.embeddings.position_embedding"


def test_hand_worked() -> None:
    table = torch.tensor([[0.0], [10.0], [20.0], [24.0]])
    found = position_embeddings.stretch_table(table, keep=2, factor=4).flatten().tolist()
    assert found == [0.0, 10.0, 20.0, 21.0, 22.0, 23.0, 24.0, 25.0, 26.0, 27.0]


def test_as_the_published_code_counts() -> None:
    """Long-CLIP's own arithmetic, index by index [arXiv:2403.15378, load_from_clip]."""
    old = torch.randn(77, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = position_embeddings.stretch_table(old, keep=20, factor=4)
    assert found.shape == (248, 5)
    assert torch.equal(found[:20], old[:20])
    for i in range(76 - 20):
        for r in range(4):
            expected = (4 - r) * old[i + 20] / 4 + r * old[i + 21] / 4
            assert torch.allclose(found[4 * i + r + 20], expected, atol=1e-15)
    for r in range(4):
        assert torch.allclose(found[244 + r], old[76] + r * (old[76] - old[75]) / 4, atol=1e-15)


def test_short_texts_say_the_same_and_long_ones_more(base: Path) -> None:
    before, after = loading.load_model(base), loading.load_model(base)
    wording, key = after.text_tokenizer.fingerprint(), after.fingerprint("text")
    assert LongText().requirements(after).max_tokens == 248
    LongText().learning_rates(after)
    assert after.max_tokens == 248
    short = ["a red circle", "a dog"]  # within twenty tokens
    with torch.no_grad():
        assert torch.equal(
            before.encode_text(before.text_tokenizer(short)), after.encode_text(after.text_tokenizer(short))
        )
        far = [LONG, LONG.removesuffix("square ") + "galaxy "]  # they differ behind the 77th token only
        old, new = (one.encode_text(one.text_tokenizer(far)) for one in (before, after))
    assert torch.equal(old[0], old[1])
    assert not torch.allclose(new[0], new[1], atol=1e-4)
    # What is kept of texts under the old limit is not found again.
    assert after.text_tokenizer.fingerprint() != wording
    assert after.fingerprint("text") != key


def test_saved_it_loads_in_plain_transformers(base: Path, tmp_path: Path) -> None:
    loaded = loading.load_model(base)
    LongText().learning_rates(loaded)
    save_model(loaded, tmp_path / "model")
    plain, tokenizer = (
        CLIPModel.from_pretrained(tmp_path / "model"),
        AutoTokenizer.from_pretrained(tmp_path / "model"),
    )
    assert tokenizer.model_max_length == 248
    assert plain.config.text_config.max_position_embeddings == 248
    ids = tokenizer([LONG, "a dog"], padding=True, truncation=True, return_tensors="pt")["input_ids"]
    assert ids.shape[1] > 77
    with torch.no_grad():
        found = torch.nn.functional.normalize(plain.get_text_features(ids).pooler_output, dim=-1)
        assert torch.allclose(found, loaded.encode_text(loaded.text_tokenizer([LONG, "a dog"])), atol=1e-6)
    assert loading.load_model(tmp_path / "model").max_tokens == 248


def test_the_first_positions_stay_and_the_others_learn(base: Path) -> None:
    loaded = loading.load_model(base)
    factors = LongText(image_lr_factor=0, text_lr_factor=0.5, train_logit_scale=False).learning_rates(loaded)
    assert {name.split("/")[0] for name, factor in factors.items() if factor > 0} == {"text"}
    assert (factors[f"{TABLE}.first"], factors[f"{TABLE}.rest"]) == (0.0, 0.5)
    assert not loaded.uses_weight_decay(f"{TABLE}.rest")
    module = loaded.hf_base.text_model.embeddings.position_embedding
    start = module.weight.detach().clone()
    optimizer = training_optimizer.make_optimizer(loaded, factors, TrainConfig(weight_decay=0.5), 1e-2)
    ids = loaded.text_tokenizer([LONG])
    loaded.encode_text(ids)[0, 0].backward()
    optimizer.step()
    read = ids["input_ids"].shape[1]
    assert read > 77
    table = module.weight.detach()
    assert torch.equal(table[:20], start[:20])
    assert bool((table[20:read] != start[20:read]).any(dim=1).all())
    assert torch.equal(table[read:], start[read:])


@pytest.mark.parametrize(
    ("make", "before", "after"),
    [
        (tiny_chinese_clip, 52, 20 + 4 * 32),
        (tiny_altclip, 64, 20 + 4 * 44),
        (tiny_metaclip_2, 77, 248),
        (tiny_dual_encoder, 64, 20 + 4 * 44),
    ],
)
def test_other_families(tmp_path: Path, make: Callable[[Path], Path], before: int, after: int) -> None:
    folder = make(tmp_path / "base")
    old, loaded = loading.load_model(folder), loading.load_model(folder)
    assert old.max_tokens == before
    assert LongText().requirements(loaded).max_tokens == after
    LongText().learning_rates(loaded)
    assert loaded.max_tokens == after
    with torch.no_grad():
        first, again = (one.encode_text(one.text_tokenizer(["a cat"])) for one in (old, loaded))
        assert torch.equal(first, again)
        whole = loaded.encode_text(loaded.text_tokenizer([LONG * 3, "a cat"]))
    save_model(loaded, tmp_path / "model")
    with torch.no_grad():
        read = loading.load_model(tmp_path / "model")
        assert torch.allclose(read.encode_text(read.text_tokenizer([LONG * 3, "a cat"])), whole, atol=1e-6)
    assert AutoModel.from_pretrained(tmp_path / "model").config.text_config.max_position_embeddings >= after


def test_what_cannot_be_stretched(base: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        LongText().learning_rates(loading.load_model(tiny_siglip(tmp_path / "siglip")))
    assert str(caught.value) == (
        "strategy.long_text: family siglip pads every text to 64 tokens and reads it at the last of them: "
        "its positions cannot be stretched; take a base of another family"
    )
    with pytest.raises(RecipeError) as caught:
        LongText(kept_positions=76).learning_rates(loading.load_model(base))
    assert str(caught.value) == "strategy.long_text.kept_positions: 76 of 77 positions leaves none to stretch"


def test_the_corpus_is_checked_at_the_new_limit(recipe_file: Path, tmp_path: Path, corpus: Path) -> None:
    longer = shutil.copytree(corpus, tmp_path / "longer")
    table = (
        (longer / "metadata.csv")
        .read_text()
        .replace("square", "large red square and small blue circle " * 14)
    )
    (longer / "metadata.csv").write_text(table)
    changes = [f"corpus.path={longer}"]
    said = {}
    for strategy in ("full", "long_text"):
        ready = load_inputs(
            loading_config.load_recipe(str(recipe_file), [*changes, f"strategy={strategy}"]), "train"
        )
        said[strategy] = [finding.text for finding in ready.findings if " truncated to " in finding.text]
        ready.components.strategy.learning_rates(ready.model)
        assert ready.model.max_tokens == {"full": 77, "long_text": 248}[strategy]
    assert len(said["full"]) == 1
    assert "100.0% of the distinct training captions are truncated to 77 tokens" in said["full"][0]
    assert not any("truncated to 77" in text for text in said["long_text"])
    assert not any(text.startswith("100.0%") for text in said["long_text"])
