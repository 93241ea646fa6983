from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor

from domainclip.errors import ModelError
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.loading import load_model
from tests.support import tiny_models
from tests.support.tiny_models import noise, stack, tiny_clip, tiny_siglip

TEXTS = ["a red circle", "Two small CATS, on the left!", "x", "a photo of a dog " * 30]
IMAGES = [noise(48, 40, 1), noise(31, 65, 2), noise(32, 32, 3)]


def reference_logits(folder: Path, model: DualEncoder) -> Tensor:
    """`logits_per_image` of plain transformers, called as in its documentation."""
    processor = transformers.AutoProcessor.from_pretrained(folder, backend="pil")
    fixed = model.objective == "sigmoid"
    text = processor.tokenizer(
        TEXTS,
        padding="max_length" if fixed else True,
        truncation=True,
        max_length=model.max_tokens,
        return_tensors="pt",
    )
    if fixed:  # published SigLIP tokenizers return no mask, for none was used in training
        text = {"input_ids": text["input_ids"]}
    image = processor.image_processor(IMAGES, return_tensors="pt")
    hf_model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        logits: Tensor = hf_model(**image, **text).logits_per_image
    return logits


@pytest.mark.parametrize("make", tiny_models.FAMILIES, ids=lambda make: make.__name__)
def test_logits_equal_those_of_transformers(make: Callable[..., Path], tmp_path: Path) -> None:
    folder = make(tmp_path)
    model = load_model(folder)
    with torch.no_grad():
        image, text, scale, bias = model(
            stack(model.image_preprocessor(image) for image in IMAGES), model.text_tokenizer(TEXTS)
        )
    for encoded, count in ((image, 3), (text, 4)):
        assert encoded.shape == (count, model.width)
        assert encoded.dtype == torch.float32
        torch.testing.assert_close(encoded.norm(dim=1), torch.ones(count))
    logits = scale * image @ text.T + (0 if bias is None else bias)
    torch.testing.assert_close(logits, reference_logits(folder, model), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", tiny_models.FAMILIES, ids=lambda make: make.__name__)
def test_the_embedding_of_a_text_does_not_depend_on_its_batch(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    model = load_model(make(tmp_path))
    with torch.no_grad():
        together = model.encode_text(model.text_tokenizer(TEXTS))
        alone = torch.cat([model.encode_text(model.text_tokenizer([text])) for text in TEXTS])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("make", tiny_models.FAMILIES, ids=lambda make: make.__name__)
def test_counts_are_untruncated_lengths(make: Callable[..., Path], tmp_path: Path) -> None:
    model = load_model(make(tmp_path))
    counts = model.text_tokenizer.count(TEXTS)
    ids = model.text_tokenizer(TEXTS)["input_ids"]
    assert counts[3] > model.max_tokens == ids.shape[1]
    assert counts[2] < counts[0] < counts[1] < model.max_tokens
    assert all(end == ids[3, -1] for row, n in zip(ids[:3], counts, strict=False) for end in [row[n - 1]])


def test_outputs_without_input_are_none(clip: DualEncoder) -> None:
    image, text, scale, bias = clip(text=clip.text_tokenizer(["a cat"]))
    assert image is None
    assert text.shape == (1, 16)
    assert bias is None
    assert scale.item() == pytest.approx(math.exp(2.6592), rel=1e-6)


def test_embeddings_stay_fp32_under_autocast(clip: DualEncoder) -> None:
    """Fault 19."""
    pixels = stack(clip.image_preprocessor(image) for image in IMAGES)
    with torch.autocast("cpu", torch.bfloat16):
        image, text, scale, _ = clip(pixels, clip.text_tokenizer(TEXTS))
    assert image.dtype == text.dtype == scale.dtype == torch.float32
    torch.testing.assert_close(image.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(image, clip.encode_image(pixels), atol=0.05, rtol=0)


def test_quick_gelu_is_not_gelu(clip: DualEncoder, tmp_path: Path) -> None:
    quick = load_model(tiny_clip(tmp_path, quick_gelu=True))
    text = clip.text_tokenizer(TEXTS)
    assert (quick.encode_text(text) - clip.encode_text(text)).abs().max() > 1e-4


def test_scale_and_bias_of_siglip(tmp_path: Path) -> None:
    model = load_model(tiny_siglip(tmp_path, log_scale=2.0, bias=-7.5))
    assert model.objective == "sigmoid"
    assert model.bias is not None
    assert model.scale.shape == model.bias.shape == ()
    assert model.scale.item() == pytest.approx(math.exp(2.0), rel=1e-6)
    assert model.bias.item() == -7.5
    (model.scale * model.bias).backward()
    assert model.hf_base.logit_scale.grad is not None
    assert model.hf_base.logit_bias.grad is not None


@pytest.mark.parametrize(("initial", "bound"), [(2.6592, math.log(100)), (4.7, 4.7)])
def test_the_scale_is_clamped_to_its_bound(tmp_path: Path, initial: float, bound: float) -> None:
    """Fault 19."""
    model = load_model(tiny_clip(tmp_path, log_scale=initial))
    assert model.max_log_scale == pytest.approx(bound, abs=1e-6)
    for value, clamped in ((9.0, bound), (-1.0, 0.0), (1.5, 1.5)):
        model.hf_base.logit_scale.data.fill_(value)
        model.clamp_scale()
        assert model.scale.item() == pytest.approx(math.exp(clamped), rel=1e-6)


def test_a_copy_shares_no_weights(clip: DualEncoder) -> None:
    """Fault 19."""
    copied = copy.deepcopy(clip)
    text = clip.text_tokenizer(TEXTS)
    copied.hf_base.text_projection.weight.data.zero_()
    assert torch.equal(copied.text_tokenizer(TEXTS)["input_ids"], text["input_ids"])
    torch.testing.assert_close(clip.encode_text(text).norm(dim=1), torch.ones(4))
    assert not copied.encode_text(text).any()  # a zero feature stays finite


def test_a_tokenizer_with_more_tokens_than_the_tower(tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder)
    assert refusal(folder) == (
        f'base "{folder}": its tokenizer has 701 tokens, its text tower only 700; '
        "use the tokenizer that belongs to it"
    )


def test_a_tokenizer_that_cannot_pad(tmp_path: Path) -> None:
    folder = tiny_siglip(tmp_path)
    file = folder / "tokenizer_config.json"
    options = json.loads(file.read_text())
    del options["pad_token"]
    file.write_text(json.dumps(options))
    assert refusal(folder) == (
        f'base "{folder}": its tokenizer has no padding token; name one in tokenizer_config.json'
    )


@pytest.mark.parametrize("make", tiny_models.FAMILIES)
def test_a_tokenizer_that_pads_on_the_left(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    folder = make(tmp_path / "base")
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "padding_side": "left"}))
    model = load_model(folder)
    texts = ["cat", "two small squares on the left of a green dog"]
    with torch.no_grad():
        together = model.encode_text(model.text_tokenizer(texts))
        alone = torch.cat([model.encode_text(model.text_tokenizer([text])) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_a_preprocessor_of_another_size(tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path)
    options = transformers.CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size=40)
    options.save_pretrained(folder)
    assert refusal(folder) == (
        f'base "{folder}": its preprocessor gives 40 by 40 pixels, its image tower takes 32 by 32; '
        "correct the sizes in preprocessor_config.json"
    )


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    return str(caught.value)


def test_a_real_checkpoint(real_clip: Path) -> None:
    model = load_model(real_clip)
    images = [noise(300, 200, 1), noise(120, 333, 2)]
    text = model.text_tokenizer.hf_tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        expected = model.hf_base(
            **model.hf_image_processor(images, return_tensors="pt"), **text
        ).logits_per_image
        image, text, scale, _ = model(
            stack(model.image_preprocessor(i) for i in images), model.text_tokenizer(TEXTS)
        )
    torch.testing.assert_close(scale * image @ text.T, expected, atol=1e-4, rtol=1e-5)
