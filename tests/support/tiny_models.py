"""Complete checkpoint folders, made from a config and a seed in a fraction of a second, no download.

Two layers a tower, width 32, embedding width 16, images of 32 pixels in patches of 8. The weights are
random, but the tokenizers and image processors are of the real classes: what loads here loads there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

# Bars and notes of the library would drown what a failing test prints.
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
# Words that the tiny tokenizers know whole; all others fall into pieces, none into an unknown token.
_TEXT = (
    "a an the of in on and with no photo picture painting image red green blue yellow white black small"
    " large round square circle cross stripe dots left right cat dog bird chest xray normal effusion"
    " pneumonia galaxy star nebula planet comet portrait landscape abstract ein eine rote grüne blaue kreis"
)
WORDS = _TEXT.split()
CHINESE = "一张红绿蓝色的圆形方形猫狗鸟照片画"
_CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
_CLIP_STD = [0.26862954, 0.26130258, 0.27577711]


def tiny_clip(
    folder: str | Path,
    quick_gelu: bool = False,
    *,
    seed: int = 0,
    legacy_eos: bool = False,
    dropout: float = 0.0,
    log_scale: float = 2.6592,
    positions: int = 77,
) -> Path:
    """A CLIP; `legacy_eos` writes the wrong end-of-text id 2 that the first converted checkpoints carry."""
    tokenizer = _clip_tokenizer(positions)
    shared = {"hidden_act": "quick_gelu" if quick_gelu else "gelu", "attention_dropout": dropout}
    text = _text(tokenizer, max_position_embeddings=positions, **shared)
    text |= {"eos_token_id": 2} if legacy_eos else {}
    config = transformers.CLIPConfig(
        text_config=text, vision_config=_vision(**shared), projection_dim=16, logit_scale_init_value=log_scale
    )
    return _write(
        folder, config, transformers.CLIPModel, tokenizer, _crop_processor("CLIPImageProcessor"), seed
    )


def retokenised(base: Path, folder: Path, changed: str) -> Path:
    """The same weights behind another tokenizer: cut at another length, or other ids for two words."""
    shutil.copytree(base, folder)
    if changed == "limit":
        file = folder / "tokenizer_config.json"
        said = json.loads(file.read_text())
        file.write_text(json.dumps({**said, "model_max_length": 6}))
    if changed == "words":
        file = folder / "tokenizer.json"
        said = json.loads(file.read_text())
        words = said["model"]["vocab"]
        one, other = (next(word for word in words if word.startswith(begin)) for begin in ("red", "cat"))
        words[one], words[other] = words[other], words[one]
        file.write_text(json.dumps(said))
    return folder


def tiny_siglip(folder: str | Path, *, seed: int = 0, log_scale: float = 2.3026, bias: float = -10.0) -> Path:
    """A SigLIP: fixed length 64, lower-cased text without punctuation, a bias."""
    tokenizer = _siglip_tokenizer()
    config = transformers.SiglipConfig(
        text_config=_text(tokenizer, max_position_embeddings=64), vision_config=_vision()
    )
    processor = {"image_processor_type": "SiglipImageProcessor", **_exact_options(resample=3)}
    calibrate = _calibration(log_scale, bias)
    return _write(folder, config, transformers.SiglipModel, tokenizer, processor, seed, calibrate)


def tiny_siglip2_naflex(folder: str | Path, *, seed: int = 0) -> Path:
    """A SigLIP 2 that reads images in their own aspect ratio, as at most 16 patches of 8 pixels."""
    tokenizer = _siglip2_tokenizer()
    vision = _vision(num_patches=16)
    del vision["image_size"]
    config = transformers.Siglip2Config(
        text_config=_text(tokenizer, max_position_embeddings=64), vision_config=vision
    )
    processor = {"image_processor_type": "Siglip2ImageProcessor", **_exact_options(resample=2)}
    del processor["size"]
    processor |= {"patch_size": 8, "max_num_patches": 16}
    calibrate = _calibration(2.3026, -10.0)
    return _write(folder, config, transformers.Siglip2Model, tokenizer, processor, seed, calibrate)


def tiny_chinese_clip(folder: str | Path, *, seed: int = 0, dropout: float = 0.0) -> Path:
    """A Chinese-CLIP: a CLIP image tower and a BERT with a Chinese vocabulary, 52 positions."""
    tokenizer = _bert_tokenizer(52)
    text = _text(tokenizer, max_position_embeddings=52, **_bert_dropout(dropout))
    config = transformers.ChineseCLIPConfig(
        text_config=text, vision_config=_vision(hidden_act="quick_gelu"), projection_dim=16
    )
    processor = _crop_processor("ChineseCLIPImageProcessor")
    return _write(folder, config, transformers.ChineseCLIPModel, tokenizer, processor, seed)


def tiny_altclip(folder: str | Path, *, seed: int = 0) -> Path:
    """An AltCLIP: a CLIP image tower and an XLM-R text tower, whose 66 positions hold 64 tokens."""
    tokenizer = _xlmr_tokenizer(512)
    text = _text(tokenizer, max_position_embeddings=66, project_dim=24, hidden_dropout_prob=0.0)
    config = transformers.AltCLIPConfig(text_config=text, vision_config=_vision(), projection_dim=16)
    processor = _crop_processor("CLIPImageProcessor")
    return _write(folder, config, transformers.AltCLIPModel, tokenizer, processor, seed)


def tiny_metaclip_2(folder: str | Path, *, seed: int = 0) -> Path:
    """A MetaCLIP 2: a CLIP with XLM-R's tokenizer, whose end-of-text id 2 is not the highest."""
    tokenizer = _xlmr_tokenizer(77)
    config = transformers.MetaClip2Config(
        text_config=_text(tokenizer, max_position_embeddings=77), vision_config=_vision(), projection_dim=16
    )
    processor = _crop_processor("CLIPImageProcessor")
    return _write(folder, config, transformers.MetaClip2Model, tokenizer, processor, seed)


def tiny_tipsv2(folder: str | Path, *, seed: int = 0) -> Path:
    """A TIPSv2: two class tokens in front of the patches, a text tower without table of positions."""
    tokenizer = _tipsv2_tokenizer()
    vision = {**_vision(mlp_ratio=2), "num_register_tokens": 1}
    del vision["intermediate_size"]
    config = transformers.Tipsv2Config(
        text_config=_text(tokenizer, max_position_embeddings=64), vision_config=vision
    )
    processor = {"image_processor_type": "Tipsv2ImageProcessor", **_exact_options(resample=2)}
    processor |= {"do_normalize": False}
    return _write(folder, config, transformers.Tipsv2Model, tokenizer, processor, seed)


def tiny_dual_encoder(folder: str | Path, *, seed: int = 0, dropout: float = 0.0) -> Path:
    """A ViT and a BERT joined by two projections, as multilingual and medical bases often are."""
    tokenizer = _bert_tokenizer(64)
    text = transformers.BertConfig(**_text(tokenizer, max_position_embeddings=64, **_bert_dropout(dropout)))
    vision = transformers.ViTConfig(**_vision(), hidden_dropout_prob=dropout)
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
        vision, text, projection_dim=16
    )
    processor = {"image_processor_type": "ViTImageProcessor", **_exact_options(resample=2)}
    return _write(folder, config, transformers.VisionTextDualEncoderModel, tokenizer, processor, seed)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """An RGB image in which every pixel differs, so that no step of preprocessing can hide."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def stack(prepared: Iterable[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """What `preprocess` gave for several images, as the one batch that `encode_image` takes."""
    rows = list(prepared)
    return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}


def _write(
    folder: str | Path,
    config: Any,
    kind: Any,
    tokenizer: Any,
    processor: dict[str, Any],
    seed: int,
    calibrate: Callable[[Any], None] = lambda model: None,
) -> Path:
    with torch.random.fork_rng(devices=[]):  # a test's own random numbers stay as they were
        torch.manual_seed(seed)
        model = kind(config)
    calibrate(model)
    folder = Path(folder)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=1))
    return folder


def _calibration(log_scale: float, bias: float) -> Callable[[Any], None]:
    def calibrate(model: Any) -> None:
        model.logit_scale.data.fill_(log_scale)
        model.logit_bias.data.fill_(bias)

    return calibrate


def _text(tokenizer: Any, **options: Any) -> dict[str, Any]:
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    return {"vocab_size": len(tokenizer), **ids, **_layers(), **options}


def _vision(**options: Any) -> dict[str, Any]:
    return {"image_size": 32, "patch_size": 8, **_layers(), **options}


def _layers() -> dict[str, Any]:
    return {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def _bert_dropout(share: float) -> dict[str, float]:
    return {"hidden_dropout_prob": share, "attention_probs_dropout_prob": share}


def _crop_processor(kind: str) -> dict[str, Any]:
    return {
        "image_processor_type": kind,
        "do_resize": True,
        "size": {"shortest_edge": 32},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": _CLIP_MEAN,
        "image_std": _CLIP_STD,
        "do_convert_rgb": True,
    }


def _exact_options(resample: int) -> dict[str, Any]:
    return {
        "do_resize": True,
        "size": {"height": 32, "width": 32},
        "resample": resample,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }


def _clip_tokenizer(positions: int) -> Any:
    """Byte-level BPE whose end-of-text id is the highest, as in the published vocabulary."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces, merges = _merges([letters, [letter + "</w>" for letter in letters]], end="</w>")
    vocab = {piece: i for i, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    return transformers.CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=positions)


def _siglip2_tokenizer() -> Any:
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    letters = sorted({letter for word in WORDS for letter in word} | {"▁"})
    pieces, merges = _merges([specials, bytes_, letters], end="")
    vocab = {piece: i for i, piece in enumerate(pieces)}
    return transformers.Siglip2Tokenizer(
        vocab=vocab, merges=merges, add_eos_token=True, add_bos_token=False, padding_side="right"
    )


def _tipsv2_tokenizer() -> Any:
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    letters = sorted({letter for word in WORDS for letter in word} | {"▁"})
    pieces, merges = _merges([["<pad>", "<unk>"], bytes_, letters], end="")
    vocab = {piece: i for i, piece in enumerate(pieces)}
    return transformers.Tipsv2Tokenizer(vocab=vocab, merges=merges)


def _siglip_tokenizer() -> Any:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces, merges = _merges([["<unk>", "</s>"], letters], end="")
    backend = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges))
    # The published SigLIP vocabulary is read through the same three steps.
    backend.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), ""), normalizers.Strip()]
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", pieces.index("</s>"))]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="</s>",
        pad_token="</s>",
        unk_token="<unk>",
        model_max_length=64,
        model_input_names=["input_ids"],
    )


def _bert_tokenizer(positions: int) -> Any:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *sorted(set(CHINESE))]
    letters = sorted(
        {letter for word in WORDS for letter in word} | set("abcdefghijklmnopqrstuvwxyz0123456789.,")
    )
    pieces += [*letters, *("##" + letter for letter in letters)]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    return transformers.BertTokenizer(vocab=vocab, model_max_length=positions)


def _xlmr_tokenizer(positions: int) -> Any:
    letters = {letter for word in WORDS for letter in word} | set("▁.,!" + ascii_lowercase + digits)
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *sorted(letters), *("▁" + word for word in WORDS)]
    scores = [(piece, -float(i)) for i, piece in enumerate(dict.fromkeys(pieces))]
    return transformers.XLMRobertaTokenizer(vocab=[*scores, ("<mask>", 0.0)], model_max_length=positions)


def _merges(start: list[list[str]], end: str) -> tuple[list[str], list[tuple[str, str]]]:
    """The pieces and merges that build every known word from its letters, left to right."""
    pieces = dict.fromkeys(piece for group in start for piece in group)
    merges: dict[tuple[str, str], None] = {}
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for word in WORDS:
        # A published vocabulary writes a letter beyond ASCII as its bytes; only the byte-level ones do.
        letters = list(level.pre_tokenize_str(word)[0][0] if "▁" not in pieces else word)
        letters[-1] += end
        built = letters[0]
        for letter in letters[1:]:
            merges[built, letter] = None
            built += letter
            pieces[built] = None
    return list(pieces), list(merges)


FAMILIES: list[Callable[..., Path]] = [
    tiny_clip,
    tiny_siglip,
    tiny_siglip2_naflex,
    tiny_chinese_clip,
    tiny_altclip,
    tiny_metaclip_2,
    tiny_dual_encoder,
]
