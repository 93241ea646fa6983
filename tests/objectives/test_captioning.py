"""Captioning: the loss by hand, the decoder as torch has it, and a captioner that writes what it has learned."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from domainclip.errors import ModelError, RecipeError
from domainclip.inference.adapted_model import AdaptedModel
from domainclip.models import caption_decoder, loading, saving
from domainclip.models.caption_decoder import DecoderShape
from domainclip.models.captioner import Captioner
from domainclip.objectives.base import Sizes, Views
from domainclip.objectives.captioning import Captioning, _outputs
from tests.objectives.filled_views import check_gradients, filled_for
from tests.support.tiny_models import tiny_clip

SMALL = Captioning(layers=1, width=4, heads=2)


def test_a_value_worked_by_hand() -> None:
    """Without attention and MLP a layer leaves its input, whose norm is (1, −1) for (x, y) with x > y."""
    shape = DecoderShape(1, 1, 2, None)
    own = {
        name: torch.zeros_like(w) for name, w in caption_decoder.initial_weights(shape, 2, 1, 2, 0).items()
    }
    own["tokens"] = torch.tensor(
        [[0.0, 0.0], [100.0, 0.0], [200.0, 0.0], [0.0, 300.0]]
    )  # end, word, start, hidden
    own["tokens"] /= 100  # logits of the next token: 0 for the end, ±1 for the word
    eye = torch.eye(2)
    memory = Captioning().initial_memory(Sizes(2, vocabulary=np.array([7]), caption_tokens=2), 0)
    ids = torch.tensor([[7, 7], [7, -1]])
    views = Views(
        eye,
        eye,
        torch.tensor(1.0),
        image_tokens=eye[:, None],
        caption_ids=ids,
        own_weights=own,
        memory=memory,
    )
    word, end = -log(exp(1) / (1 + exp(1))), -log(1 / (1 + exp(1)))
    objective = Captioning(layers=1, width=2, heads=1)
    assert objective(views).item() == pytest.approx(((2 * word + end) / 3 + (word + end) / 2) / 2, abs=1e-4)
    # Hidden tokens turn the norm round, whatever the caption.
    all_hidden = Captioning(layers=1, width=2, heads=1, parallel=1.0)
    word, end = -log(exp(-1) / (1 + exp(-1))), -log(1 / (1 + exp(-1)))
    assert all_hidden(views).item() == pytest.approx(((2 * word + end) / 3 + (word + end) / 2) / 2, abs=1e-4)
    no_words = replace(views, caption_ids=torch.full((2, 2), -1))
    assert objective(no_words).item() == 0


def test_outputs_end_a_caption_and_leave_unknown_tokens_out() -> None:
    ids = torch.tensor([[2, 4, 8], [5, -1, -1], [-1, -1, -1]])
    outputs = _outputs(ids, torch.tensor([2, 3, 5, 8]))
    assert outputs.tolist() == [[1, -1, 4, 0], [3, 0, -1, -1], [0, -1, -1, -1]]


def test_parity_with_the_decoder_of_torch() -> None:
    shape, draw = DecoderShape(2, 2, 8, None), torch.Generator().manual_seed(1)
    own = {name: w.double() for name, w in caption_decoder.initial_weights(shape, 6, 4, 5, 0).items()}
    layer = nn.TransformerDecoderLayer(
        8, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True, bias=False, dtype=torch.float64
    )
    decoder = nn.TransformerDecoder(layer, 2, nn.LayerNorm(8, bias=False, dtype=torch.float64))
    with torch.no_grad():
        for at, one in enumerate(decoder.layers):
            assert isinstance(one, nn.TransformerDecoderLayer)
            for attention, name in ((one.self_attn, "self"), (one.multihead_attn, "cross")):
                attention.in_proj_weight.copy_(own[f"{name}_in"][at].flatten(0, 1))
                attention.out_proj.weight.copy_(own[f"{name}_out"][at])
            one.linear1.weight.copy_(own["mlp_in"][at])
            one.linear2.weight.copy_(own["mlp_out"][at])
    image = torch.randn(3, 4, 6, generator=draw, dtype=torch.float64)
    inputs = torch.randint(0, 7, (3, 5), generator=draw)
    memory = nn.functional.layer_norm(image @ own["image"].T, (8,))
    hidden = own["tokens"][inputs] + own["position"][:5]
    for causal in (True, False):
        mask = torch.ones(5, 5, dtype=torch.bool).triu(1) if causal else None
        expected = decoder(hidden, memory, tgt_mask=mask) @ own["tokens"][:5].T
        found = caption_decoder.token_logits(own, shape, image, inputs, torch.full((3,), causal))
        assert torch.allclose(found, expected, atol=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    objective = Captioning(layers=1, width=2, heads=1, parallel=0.5, latents=2)
    check_gradients(objective, filled_for(objective, b=2, d=2))


def test_the_next_token_is_not_read_and_the_share_of_hidden_captions_is_drawn_by_the_step() -> None:
    shape = SMALL.shape
    own = caption_decoder.initial_weights(shape, 6, 4, 3, 0)
    image, causal = torch.randn(1, 2, 6), torch.tensor([True])
    one, other = torch.tensor([[5, 1, 2]]), torch.tensor([[5, 1, 3]])
    first, second = (caption_decoder.token_logits(own, shape, image, ids, causal) for ids in (one, other))
    assert torch.equal(first[:, :2], second[:, :2])
    assert not torch.equal(first[:, 2], second[:, 2])
    objective = replace(SMALL, parallel=0.5)
    views = filled_for(objective, b=64)
    hidden = [objective._parallel(replace(views, memory={"step": torch.tensor(step)})) for step in (3, 3, 4)]
    assert torch.equal(hidden[0], hidden[1])
    assert not torch.equal(hidden[0], hidden[2])
    assert 16 < int(hidden[0].sum()) < 48
    assert objective.update_memory(views)["step"] == views.memory["step"] + 1


def test_a_width_that_heads_cannot_share_is_refused() -> None:
    with pytest.raises(
        RecipeError, match=r"objectives\.captioning\.width: 6 is no multiple of heads, 4: take 8"
    ):
        Captioning(width=6, heads=4)


def _trained(images: Tensor, ids: Tensor, sizes: Sizes) -> tuple[Captioning, Views]:
    """A decoder that has learned a caption of each image by heart."""
    objective = Captioning(layers=1, width=16, heads=2)
    own = {name: w.requires_grad_() for name, w in objective.initial_weights(sizes, 0).items()}
    views = Views(
        images[:, 0], images[:, 0], torch.tensor(1.0), image_tokens=images, caption_ids=ids, own_weights=own,
        memory=objective.initial_memory(sizes, 0),
    )  # fmt: skip
    optimizer = torch.optim.Adam(own.values(), 0.02)
    for _ in range(80):
        optimizer.zero_grad()
        objective(views).backward()
        optimizer.step()
    return objective, views


def test_a_trained_decoder_writes_the_captions_and_is_saved_beside_the_model(tmp_path: Path) -> None:
    model = loading.load_model(tiny_clip(tmp_path / "base"))
    texts = ["a red circle", "two small dots on the left", "a line", "a star"]
    ids = model.text_tokenizer.word_ids(texts)
    sizes = Sizes(
        6, vocabulary=ids[ids >= 0].unique().numpy(), caption_tokens=int((ids >= 0).sum(dim=1).max())
    )
    images = nn.functional.normalize(torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(0)), dim=-1)
    objective, views = _trained(images, ids, sizes)
    learned = objective(views).item()
    assert learned < 0.1
    assert objective(replace(views, image_tokens=images.roll(1, 0))).item() > 10 * learned  # of other images
    objective.add_to_model(model, views.own_weights, views.memory)
    assert model.captioner is not None
    hf_tokenizer = model.text_tokenizer.hf_tokenizer
    expected = [hf_tokenizer.decode(row[row >= 0]).strip() for row in ids]
    for beams in (1, 3):
        assert model.captioner.captions(images, hf_tokenizer, beams) == expected
    saving.save_model(model, tmp_path / "saved")
    again = loading.load_model(tmp_path / "saved")
    assert again.captioner is not None
    assert again.captioner.captions(images, hf_tokenizer) == expected
    again.captioner = None
    saving.save_model(again, tmp_path / "saved")
    assert not (tmp_path / "saved" / "captioner.safetensors").exists()
    with pytest.raises(ModelError, match="it has no captioner: train one with the objective captioning"):
        again.write_captions({})


def test_a_beam_finds_a_caption_that_greedy_search_misses() -> None:
    """The first token of the best caption is not the best first token: the norm decides, worked by hand."""
    shape = DecoderShape(1, 1, 2, None)
    own = {n: torch.zeros_like(w) for n, w in caption_decoder.initial_weights(shape, 2, 2, 2, 0).items()}
    # From the start (1, −1): word 1 has logit 0.2, word 2 logit 0, the end −9. Behind word 1, whose norm is
    # (1, −1) too, nothing is sure; behind word 2, whose norm is (−1, 1), the end is sure.
    own["tokens"] = torch.tensor([[-9.0, 9.0], [0.2, 0.0], [-0.05, 0.0], [9.0, 0.0], [0.0, 0.0]])
    captioner = Captioner(shape, own, torch.tensor([11, 12]))
    assert captioner._search(torch.ones(1, 1, 2), 1).tolist()[0][0] == 1
    assert captioner._search(torch.ones(1, 1, 2), 2).tolist()[0][:2] == [2, 0]


def test_a_model_in_python_writes_captions(tmp_path: Path) -> None:
    model = loading.load_model(tiny_clip(tmp_path / "base"))
    sizes = Sizes(model.width, vocabulary=np.array([300, 301]), caption_tokens=2)
    objective = Captioning(layers=1, width=4, heads=2)
    objective.add_to_model(model, objective.initial_weights(sizes, 0), objective.initial_memory(sizes, 0))
    adapted = AdaptedModel(model)
    images = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
    captions = adapted.write_captions(images)
    assert len(captions) == 2
    words = [model.text_tokenizer.hf_tokenizer.decode([token]).strip() for token in (300, 301)]
    for caption in captions:
        assert not caption.replace(words[0], "").replace(words[1], "").strip()
