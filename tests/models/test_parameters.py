from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from domainclip.errors import RecipeError
from domainclip.models import parameters
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.loading import load_model
from tests.support.tiny_models import tiny_chinese_clip, tiny_clip, tiny_siglip

NAMES = ["image/vision_model.a", "image/visual_projection.weight", "text/text_model.b", "scale/logit_scale"]


def with_lora(model: DualEncoder) -> Any:
    from peft import LoraConfig, get_peft_model

    targets = model.lora_targets("text", "attention", 1)
    model.hf_model = get_peft_model(model.hf_model, LoraConfig(r=2, target_modules=targets))
    return model


def fingerprints(model: DualEncoder) -> dict[str, str]:
    return {
        "image": model.fingerprint("image"),
        "text": model.fingerprint("text"),
        "all": model.fingerprint("all"),
    }


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {key for key in before if before[key] != after[key]}


def test_the_first_pattern_that_matches_wins() -> None:
    patterns = [("image/visual_projection.*", 0.1), ("image/.*", 0.0), (".*", 1.0)]
    assert parameters.match_patterns(NAMES, patterns) == dict(zip(NAMES, [0.0, 0.1, 1.0, 1.0], strict=True))


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (
            [("image/.*", 1.0)],
            'no pattern covers the weight "text/text_model.b" and 1 more; '
            'end with (".*", 0.0) to freeze the rest',
        ),
        (
            [("image/.*", 1.0), ("text/.*", 1.0)],
            'no pattern covers the weight "scale/logit_scale"; end with (".*", 0.0) to freeze the rest',
        ),
        (
            [("vision/.*", 1.0), (".*", 0.0)],
            'pattern "vision/.*" matches no weight; weights are named like "image/vision_model.a"',
        ),
        (
            [(".*", 1.0), ("text/.*", 0.0)],
            'pattern "text/.*" has no effect: earlier ones cover all weights that it matches',
        ),
        # A whole name must match, or "text" would also catch "image/context".
        (
            [("text", 1.0), (".*", 0.0)],
            'pattern "text" matches no weight; weights are named like "image/vision_model.a"',
        ),
        (
            [("(", 1.0)],
            'pattern "(" is not a regular expression: missing ), unterminated subpattern at position 0',
        ),
    ],
)
def test_ambiguous_patterns_are_refused(patterns: list[tuple[str, float]], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parameters.match_patterns(NAMES, patterns)
    assert str(caught.value) == message


def test_set_trainable_freezes_and_unfreezes(clip: DualEncoder) -> None:
    factors = clip.set_trainable([("text/.*", 0.5), ("scale/.*", 1.0), ("image/.*", 0.0)])
    for name, weight in clip.weights().items():
        assert weight.requires_grad is not name.startswith("image/")
        assert factors[name] == {"text": 0.5, "scale": 1.0, "image": 0.0}[name.split("/")[0]]
    clip.set_trainable([(".*", 1.0)])
    assert all(weight.requires_grad for weight in clip.weights().values())


def test_names_are_the_same_around_an_adapter(clip: DualEncoder) -> None:
    before = set(clip.weights())
    after = set(with_lora(clip).weights())
    layer = "text/text_model.encoder.layers.1.self_attn.q_proj"
    assert f"{layer}.weight" in before - after
    assert {f"{layer}.base_layer.weight", f"{layer}.lora_A.default.weight"} <= after - before
    assert {name for name in before if name.startswith("image/")} <= after


def test_weight_decay_applies_to_matrices_only(tmp_path: Path) -> None:
    for make in (tiny_clip, tiny_siglip, tiny_chinese_clip):
        model = load_model(make(tmp_path / make.__name__))
        decayed = {name for name in model.weights() if model.uses_weight_decay(name)}
        assert "image/vision_model.encoder.layers.0.mlp.fc1.weight" in decayed
        words = (
            "norm",
            "bias",
            "scale",
            "position",
            "class_embedding",
            "token_embedding",
            "word_embedding",
            "probe",
        )
        assert [name for name in decayed if any(word in name for word in words)] == []


def test_fingerprints_depend_on_every_byte(clip: DualEncoder) -> None:
    same = copy.deepcopy(clip)
    assert fingerprints(same) == fingerprints(clip)
    with torch.no_grad():
        same.weights()["text/text_projection.weight"].view(-1)[-1] += 1e-6
    assert changed(fingerprints(same), fingerprints(clip)) == {"text", "all"}


def test_the_scale_is_part_of_all_and_of_no_tower(clip: DualEncoder) -> None:
    before = fingerprints(clip)
    clip.hf_base.logit_scale.data += 1
    assert changed(before, fingerprints(clip)) == {"all"}


def test_an_adapter_on_one_tower_leaves_the_fingerprint_of_the_other(clip: DualEncoder) -> None:
    before = fingerprints(clip)
    assert changed(before, fingerprints(with_lora(clip))) == {"text", "all"}


def test_equal_bytes_under_another_activation_differ(clip: DualEncoder, tmp_path: Path) -> None:
    quick = load_model(tiny_clip(tmp_path, quick_gelu=True))
    for name, weight in quick.weights().items():
        assert torch.equal(weight, clip.weights()[name])
    assert quick.fingerprint("image") != clip.fingerprint("image")
