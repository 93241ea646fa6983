"""Another text tower: the image side stays bit by bit, the text side is the encoder, and all of it loads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from domainclip.config import loading as loading_config
from domainclip.errors import ModelError, RecipeError
from domainclip.models import dual_encoder, loading
from domainclip.models.saving import save_model
from domainclip.pipelines import finetune
from domainclip.report.results_file import load as load_results
from domainclip.strategies.replace_text_tower import ReplaceTextTower
from domainclip.training.run_context import RunOptions
from tests.support import tiny_models
from tests.support.tiny_models import noise, stack

TEXTS = ["a red circle", "ein kreis", "a dog on the left " * 30]


def _encoder(folder: Path, *, seed: int = 1, pooler: bool = True, kind: str = "bert") -> Path:
    """A BERT of another width with 64 positions, its own vocabulary and, for RoBERTa, no pooler."""
    tokenizer = tiny_models._bert_tokenizer(64)
    shape = {
        **tiny_models._layers(),
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "max_position_embeddings": 64,
    }
    config = transformers.BertConfig(vocab_size=len(tokenizer), **shape)
    kinds = {"bert": transformers.BertModel, "decoder": transformers.BertLMHeadModel}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kinds[kind](config, **({} if kind == "decoder" else {"add_pooling_layer": pooler}))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _encoder(tmp_path_factory.mktemp("encoder") / "bert")


def _pixels(loaded: dual_encoder.DualEncoder) -> dict[str, torch.Tensor]:
    return stack(loaded.image_preprocessor(noise(40, 36, seed=i)) for i in range(3))


@pytest.mark.parametrize(
    "make", [tiny_models.tiny_clip, tiny_models.tiny_chinese_clip, tiny_models.tiny_dual_encoder]
)
@torch.no_grad()
def test_the_image_side_stays_and_the_text_side_is_the_encoder(
    tmp_path: Path, encoder: Path, make: Callable[[Path], Path]
) -> None:
    base = loading.load_model(make(tmp_path / "base"))
    before = base.fingerprint("all")
    model = ReplaceTextTower(encoder=str(encoder), max_tokens=40).build_model(base)
    assert base.fingerprint("all") == before
    assert torch.equal(model.encode_image(_pixels(model)), base.encode_image(_pixels(base)))
    assert (model.max_tokens, model.width) == (40, base.width)
    tokens = model.text_tokenizer(TEXTS)
    assert tokens["input_ids"].shape == (3, 40)
    pooled = transformers.BertModel.from_pretrained(encoder)(**tokens).pooler_output
    projection = model.weights()["text/text_projection.weight"]
    expected = torch.nn.functional.normalize(pooled @ projection.T, dim=-1)
    assert torch.allclose(model.encode_text(tokens), expected, atol=1e-6)
    assert model.scale.item() == pytest.approx(1 / 0.07, rel=1e-4)
    # Its weights are its own: what learns in one is not seen in the other.
    model.weights()["image/visual_projection.weight"].add_(1)
    assert base.fingerprint("all") == before


@torch.no_grad()
def test_the_same_encoder_and_projection_are_the_same_towers(tmp_path: Path) -> None:
    base = loading.load_model(tiny_models.tiny_dual_encoder(tmp_path / "base"))
    base.hf_base.text_model.save_pretrained(tmp_path / "own")
    base.text_tokenizer.hf_tokenizer.save_pretrained(tmp_path / "own")
    model = ReplaceTextTower(encoder=str(tmp_path / "own")).build_model(base)
    tokens = base.text_tokenizer(TEXTS)
    assert all(torch.equal(model.text_tokenizer(TEXTS)[name], ids) for name, ids in tokens.items())
    # Negative control: with the new projection it says something else.
    assert not torch.allclose(model.encode_text(tokens), base.encode_text(tokens), atol=0.1)
    model.weights()["text/text_projection.weight"].copy_(base.weights()["text/text_projection.weight"])
    assert torch.equal(model.encode_text(tokens), base.encode_text(tokens))


def test_the_seed_draws_the_projection_and_a_missing_pooler(base: Path, tmp_path: Path) -> None:
    loaded = loading.load_model(base)
    bare = str(_encoder(tmp_path / "bare", pooler=False))
    one, same, other = (
        ReplaceTextTower(encoder=bare, seed=seed).build_model(loaded).weights() for seed in (3, 3, 4)
    )
    for name in ("text/text_projection.weight", "text/text_model.pooler.dense.weight"):
        assert torch.equal(one[name], same[name])
        assert not torch.equal(one[name], other[name])
    spread = one["text/text_projection.weight"].std().item()
    assert spread == pytest.approx(48**-0.5, rel=0.1)


def test_what_learns(base: Path, encoder: Path) -> None:
    strategy = ReplaceTextTower(encoder=str(encoder), text_lr_factor=0.5)
    model = strategy.build_model(loading.load_model(base))
    factors = strategy.learning_rates(model)
    assert {factor for name, factor in factors.items() if name.startswith("image/")} == {0.0}
    assert factors["text/text_projection.weight"] == 10.0
    assert factors["text/text_model.pooler.dense.weight"] == 0.5
    assert factors["scale/logit_scale"] == 1.0


@torch.no_grad()
def test_saved_it_loads_in_plain_transformers_and_in_ours(base: Path, encoder: Path, tmp_path: Path) -> None:
    model = ReplaceTextTower(encoder=str(encoder), max_tokens=40).build_model(loading.load_model(base))
    image, text = model.encode_image(_pixels(model)), model.encode_text(model.text_tokenizer(TEXTS))
    save_model(model, tmp_path / "model")
    again = loading.load_model(tmp_path / "model")
    assert (again.max_tokens, again.text_tokenizer.fingerprint()) == (40, model.text_tokenizer.fingerprint())
    assert torch.equal(again.encode_image(_pixels(again)), image)
    assert torch.equal(again.encode_text(again.text_tokenizer(TEXTS)), text)
    plain = transformers.AutoModel.from_pretrained(tmp_path / "model").eval()
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")(
        TEXTS, padding=True, truncation=True, return_tensors="pt"
    )
    found = torch.nn.functional.normalize(plain.get_text_features(**words).pooler_output, dim=-1)
    assert torch.allclose(found, text, atol=1e-6)


def _refusal(base: Path, encoder: str) -> str:
    with pytest.raises(ModelError) as caught:
        ReplaceTextTower(encoder=encoder).build_model(loading.load_model(base))
    return str(caught.value)


def test_what_cannot_be_joined_is_refused(base: Path, encoder: Path, tmp_path: Path) -> None:
    siglip = tiny_models.tiny_siglip(tmp_path / "siglip")
    assert _refusal(siglip, str(encoder)) == (
        f'base "{siglip}": is of family siglip; a text tower can be replaced in '
        "chinese_clip, clip, vision-text-dual-encoder"
    )
    assert _refusal(base, str(tmp_path / "none")) == (
        f'text encoder "{tmp_path / "none"}": no such folder, and not a name that the Hub could have'
    )
    clip = str(base)
    assert _refusal(base, clip) == (
        f'text encoder "{clip}": returns no pooled vector of a text; use a model such as BERT, RoBERTa or XLM-R'
    )
    cut = _encoder(tmp_path / "cut")
    weights = load_file(cut / "model.safetensors")
    from safetensors.torch import save_file

    weights.pop("encoder.layer.1.output.dense.bias")
    save_file(weights, cut / "model.safetensors", {"format": "pt"})
    assert _refusal(base, str(cut)) == (
        f'text encoder "{cut}": its file has no weight "encoder.layer.1.output.dense.bias"'
    )


def test_code_from_elsewhere_is_not_run(base: Path, encoder: Path, tmp_path: Path) -> None:
    foreign = _encoder(tmp_path / "foreign")
    config = json.loads((foreign / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoModel": "modeling.Own", "AutoConfig": "modeling.Config"},
    }
    (foreign / "config.json").write_text(json.dumps(config))
    (foreign / "modeling.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert _refusal(base, str(foreign)).startswith(f'text encoder "{foreign}": cannot be read: ')
    assert not (tmp_path / "ran").exists()


def test_xlm_roberta_counts_its_positions_from_behind_the_padding(base: Path, tmp_path: Path) -> None:
    tokenizer = tiny_models._xlmr_tokenizer(512)
    config = transformers.XLMRobertaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=34, pad_token_id=1, **tiny_models._layers()
    )
    transformers.XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "xlmr")
    tokenizer.save_pretrained(tmp_path / "xlmr")
    model = ReplaceTextTower(encoder=str(tmp_path / "xlmr")).build_model(loading.load_model(base))
    assert model.max_tokens == 32
    assert model.encode_text(model.text_tokenizer(["a dog " * 60])).isfinite().all()


# --- whole runs ----------------------------------------------------------------------------------------


def _finetune(file: Path, folder: Path, *changes: str, resume: bool = False) -> None:
    finetune.finetune(
        loading_config.load_recipe(str(file), changes), RunOptions(folder=folder, resume=resume, quiet=True)
    )


def test_a_run_stands_against_the_base_as_published(
    recipe_file: Path, tmp_path: Path, base: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    swap = f"strategy={{replace_text_tower: {{encoder: {encoder}, max_tokens: 8}}}}"
    changes = [swap, "objectives={contrastive: {}, anchor: {weight: 0.1}}", "train.epochs=6"]
    changes += ["anchor_texts={count: 32, per_step: 4}", "train.micro_batch_size=5"]
    _finetune(recipe_file, tmp_path / "run", *changes)
    _finetune(recipe_file, tmp_path / "plain", "strategy=locked_image")
    found, plain = (load_results(tmp_path / name / "results.json") for name in ("run", "plain"))
    # The base of the report is the original one, with the text tower that was there before.
    assert found.base == plain.base
    assert [row.base for row in found.results] == [row.base for row in plain.results]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"]
    # Captions are cut where the new tokeniser cuts them.
    for results, limit in ((found, 8), (plain, 77)):
        assert sum(f" truncated to {limit} tokens" in told for told in results.corpus["findings"]) == 1
    adapted = loading.load_model(tmp_path / "run" / "model")
    assert (adapted.family, adapted.max_tokens) == ("vision-text-dual-encoder", 8)
    for name, weight in loading.load_model(base).weights().items():
        if name.startswith("image/"):
            assert torch.equal(adapted.weights()[name], weight), name
    # The published recipe names no folder of this machine.
    assert str(tmp_path.parent) not in (tmp_path / "run" / "report.md").read_text()


def test_it_resumes_bit_equal(
    recipe_file: Path, tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    changes = [f"strategy={{replace_text_tower: {{encoder: {encoder}}}}}", "probes=[zero_shot]"]
    _finetune(recipe_file, tmp_path / "run", *changes)
    before = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    steps = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))
    for folder in steps[1:]:
        shutil.rmtree(folder)
    _finetune(tmp_path / "run" / "recipe.yaml", tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == before


def test_no_line_leads_back_to_the_base(recipe_file: Path, tmp_path: Path, encoder: Path) -> None:
    changes = [f"strategy={{replace_text_tower: {{encoder: {encoder}}}}}", "weight_interpolation={}"]
    with pytest.raises(RecipeError) as caught:
        _finetune(recipe_file, tmp_path / "run", *changes)
    assert str(caught.value) == (
        "weight_interpolation: strategy replace_text_tower begins with a new tower, so no line leads back to the base: "
        "leave weight_interpolation out"
    )
