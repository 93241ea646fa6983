"""Bases and corpora of the benchmarks: real sizes, random weights and pictures, nothing to download."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))
from domainclip.data.batching.pairs import Pairs
from domainclip.data.schema import features
from domainclip.models import loading
from domainclip.models.dual_encoder import DualEncoder
from tests.support.tiny_models import WORDS, tiny_clip

# layers, width and heads of the image tower, patch and side of the picture; layers, width, heads of the text
# tower; width of the embeddings
SIZES = {
    "tiny": (4, 64, 4, 32, 64, 4, 64, 4, 32),
    "small": (4, 256, 4, 16, 96, 4, 256, 4, 128),
    "wide": (6, 768, 12, 32, 64, 6, 512, 8, 512),  # many weights, little arithmetic
    "ViT-B/32": (12, 768, 12, 32, 224, 12, 512, 8, 512),
    "ViT-B/16": (12, 768, 12, 16, 224, 12, 512, 8, 512),
    "ViT-L/14": (24, 1024, 16, 14, 224, 12, 768, 12, 768),
}


def make_base(name: str, folder: Path) -> DualEncoder:
    """A CLIP of the published size with seeded random weights, loaded as any base is."""
    tiny_clip(folder)
    written = json.loads((folder / "config.json").read_text())["text_config"]
    layers, width, heads, patch, side, text_layers, text_width, text_heads, out = SIZES[name]
    ids = {key: written[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = transformers.CLIPConfig(
        vision_config=_tower(layers, width, heads) | {"patch_size": patch, "image_size": side},
        text_config=_tower(text_layers, text_width, text_heads)
        | ids
        | {"vocab_size": written["vocab_size"] if name == "tiny" else 49408},
        projection_dim=out,
    )
    torch.manual_seed(0)
    model = transformers.CLIPModel(config)
    with torch.no_grad():  # as published: the example's peers keep one scale, and 100 would drown differences
        model.logit_scale.fill_(2.6592)
    model.save_pretrained(folder)
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    processor |= {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return loading.load_model(folder)


def make_pairs(base: DualEncoder, count: int, repeated: float = 0.15) -> Pairs:
    """Pictures of noise with captions of 16 to 24 tokens, a share of which is said before."""
    draw = np.random.default_rng(0)
    side = base.image_size[0]
    known = [
        word for word in WORDS if base.text_tokenizer.count([word]) == [3]
    ]  # one token, and the two around it
    captions: list[str] = []
    for _ in range(count):
        again = captions and draw.random() < repeated
        words = draw.choice(known, size=int(draw.integers(14, 23)))
        captions.append(captions[int(draw.integers(len(captions)))] if again else " ".join(words))
    rows: list[dict[str, Any]] = []
    for i, caption in enumerate(captions):
        stream = io.BytesIO()
        pixels = draw.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((side, side)).save(stream, "PNG")
        image = {"bytes": stream.getvalue(), "path": None}
        rows.append({"id": str(i), "image": image, "views": [], "texts": [caption], "group": str(i)})
    for row in rows:
        row |= {"truth": row["id"], "language": ["en"], "labels": [], "meta": "{}"}
    return Pairs(Dataset.from_list(rows, features=features()), base.image_preprocessor)


def _tower(layers: int, width: int, heads: int) -> dict[str, Any]:
    sizes = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
    return sizes | {"intermediate_size": 4 * width, "hidden_act": "quick_gelu"}
