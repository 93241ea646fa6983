"""The files of open_clip. That open_clip gives the embeddings of the run is checked by `make exports`."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from domainclip.errors import ModelError
from domainclip.models import loading
from domainclip.models.frame_pooling import FramePooling
from domainclip.models.saving import save_model
from domainclip.pipelines.export import open_clip_form, open_clip_weights
from domainclip.pipelines.export.export import export
from domainclip.pipelines.export.open_clip_form import OpenClipForm
from domainclip.pipelines.export.request import make_request
from domainclip.pipelines.export.source import TEXTS
from tests.support import tiny_models


def test_the_files(run_with_classes: Path, tmp_path: Path) -> None:
    export(make_request(run_with_classes, "open_clip", tmp_path / "out", check=False))
    config = json.loads((tmp_path / "out/open_clip_config.json").read_text())
    assert config["preprocess_cfg"] == {
        "size": [32, 32],
        "mode": "RGB",
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    shared = {"width": 32, "layers": 2, "mlp_ratio": 2.0, "norm_kwargs": {"eps": 1e-5}}
    text = loading.load_model(run_with_classes / "model").hf_base.config.text_config
    assert config["model_cfg"] == {
        "embed_dim": 16,
        "quick_gelu": False,
        "vision_cfg": {"image_size": [32, 32], "patch_size": 8, "head_width": 8, **shared},
        "text_cfg": {
            **{"context_length": 77, "vocab_size": text.vocab_size, "hf_tokenizer_name": ".", "heads": 4},
            **{"pool_type": "eos", "eos_id": text.eos_token_id},
            **shared,
        },
    }
    assert (tmp_path / "out/tokenizer.json").is_file()
    assert "library_name: open_clip\n" in (tmp_path / "out/README.md").read_text()
    assert (
        'open_clip.create_model_from_pretrained(f"local-dir:{folder}")'
        in (tmp_path / "out/README.md").read_text()
    )


def test_the_weights_compute_the_text_embeddings(run_with_classes: Path, tmp_path: Path) -> None:
    """open_clip's text tower, written out: the converted weights give the embeddings of the run."""
    export(make_request(run_with_classes, "open_clip", tmp_path / "out", check=False))
    state = load_file(tmp_path / "out/open_clip_model.safetensors")
    model = loading.load_model(run_with_classes / "model")
    ids = F.pad(model.text_tokenizer(TEXTS[1:4])["input_ids"], (0, 60))
    assert ids.shape[1] <= 77
    with torch.no_grad():
        expected = model.encode_text(model.text_tokenizer(TEXTS[1:4]))
        found = _encode_text(state, ids, model.hf_base.config.text_config.eos_token_id)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert state["logit_scale"].shape == ()
    assert state["visual.proj"].shape == (32, 16)
    assert not {name for name in state if "q_proj" in name or "vision_model" in name}


def _encode_text(state: dict[str, Tensor], ids: Tensor, end: int) -> Tensor:
    """(b, d) of (b, l); pre-norm layers with a causal mask, pooled at the end of the text."""
    x = state["token_embedding.weight"][ids] + state["positional_embedding"][: ids.shape[1]]
    for layer in range(2):
        part = {
            name.removeprefix(f"transformer.resblocks.{layer}."): value
            for name, value in state.items()
            if name.startswith(f"transformer.resblocks.{layer}.")
        }
        y = F.layer_norm(x, (32,), part["ln_1.weight"], part["ln_1.bias"])
        qkv = F.linear(y, part["attn.in_proj_weight"], part["attn.in_proj_bias"])
        q, k, v = (rows.unflatten(-1, (4, 8)).transpose(1, 2) for rows in qkv.chunk(3, dim=-1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + F.linear(y, part["attn.out_proj.weight"], part["attn.out_proj.bias"])
        y = F.layer_norm(x, (32,), part["ln_2.weight"], part["ln_2.bias"])
        y = F.gelu(F.linear(y, part["mlp.c_fc.weight"], part["mlp.c_fc.bias"]))
        x = x + F.linear(y, part["mlp.c_proj.weight"], part["mlp.c_proj.bias"])
    x = F.layer_norm(x, (32,), state["ln_final.weight"], state["ln_final.bias"])
    rows = x[torch.arange(len(x)), (ids == end).int().argmax(dim=1)]
    return F.normalize(rows @ state["text_projection"], dim=-1)


def test_an_unknown_weight_is_an_error(base: Path) -> None:
    hf_model = loading.load_model(base).hf_base
    state = hf_model.state_dict() | {"text_model.head.weight": torch.zeros(1)}
    with pytest.raises(KeyError, match=r"head\.weight"):
        open_clip_weights.convert(SimpleNamespace(state_dict=lambda: state), 77)


def test_the_first_converted_clips(tmp_path: Path) -> None:
    model = loading.load_model(tiny_models.tiny_clip(tmp_path / "base", quick_gelu=True, legacy_eos=True))
    save_model(model, tmp_path / "run/model")
    export(make_request(tmp_path / "run", "open_clip", tmp_path / "out", check=False))
    config = json.loads((tmp_path / "out/open_clip_config.json").read_text())["model_cfg"]
    assert config["quick_gelu"] is True
    assert config["text_cfg"]["pool_type"] == "argmax"


@pytest.mark.parametrize(("width", "hidden"), [(768, 3072), (1152, 4304), (1664, 8192), (3, 7), (49, 100)])
def test_the_ratio_gives_the_size_back(width: int, hidden: int) -> None:
    assert int(width * open_clip_form._ratio(width, hidden)) == hidden


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        (
            "tiny_siglip",
            "family siglip: open_clip builds it through timm, which has the published sizes alone and most of them "
            "with another GELU: use --to transformers, sentence-transformers or onnx",
        ),
        (
            "tiny_dual_encoder",
            "family vision-text-dual-encoder: open_clip has no such towers: use --to transformers, "
            "sentence-transformers or onnx",
        ),
    ],
)
def test_families_that_open_clip_does_not_have(tmp_path: Path, family: str, reason: str) -> None:
    save_model(loading.load_model(getattr(tiny_models, family)(tmp_path / "base")), tmp_path / "run/model")
    with pytest.raises(ModelError) as caught:
        export(make_request(tmp_path / "run", "open_clip", tmp_path / "out", check=False))
    assert str(caught.value) == f"{tmp_path}/run: cannot be exported to open_clip: {reason}"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"resample": 0}, "bilinearly or bicubically"),
        ({"rescale": 1.0}, "divides pixels by 255"),
        ({"resize": 40}, "resizes the shortest edge to the size that it crops"),
        ({"resize": (40, 40)}, "does not crop images after"),
    ],
)
def test_other_preprocessing(run_with_classes: Path, changed: dict[str, object], reason: str) -> None:
    from dataclasses import replace

    model = loading.load_model(run_with_classes / "model")
    assert OpenClipForm().refusal(SimpleNamespace(model=model)) == ""  # type: ignore[arg-type]
    model.image_preprocessor = replace(model.image_preprocessor, **changed)  # type: ignore[arg-type]
    assert reason in OpenClipForm().refusal(SimpleNamespace(model=model))  # type: ignore[arg-type]


def test_studies_of_several_images(tmp_path: Path) -> None:
    model = loading.load_model(tiny_models.tiny_clip(tmp_path / "base"))
    model.set_frame_pooling(FramePooling(3, "mean", 1))
    save_model(model, tmp_path / "run/model")
    with pytest.raises(ModelError) as caught:
        export(make_request(tmp_path / "run", "open_clip", tmp_path / "out", check=False))
    assert str(caught.value).endswith(
        "the run pools up to 3 images of a study, which open_clip does not: use --to transformers, and domainclip "
        "to pool them"
    )
    result = export(make_request(tmp_path / "run", "transformers", tmp_path / "out"))
    assert result.frames == 3
    assert loading.load_model(tmp_path / "out").frames == 3
    assert (
        "The run pooled up to 3 images of a study (`pooling.json`)"
        in (tmp_path / "out/README.md").read_text()
    )
