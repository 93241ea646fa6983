"""Prompts: only new words learn, they stand where they should, and what is saved is a plain model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel, AutoTokenizer, CLIPModel

from domainclip.config import loading as loading_config
from domainclip.config.training import TrainConfig
from domainclip.data.batching.batch import collate
from domainclip.data.text import caption_substitutes
from domainclip.errors import ModelError, RecipeError
from domainclip.models import dual_encoder, learned_prompts, learned_tokens, loading
from domainclip.models.saving import save_model
from domainclip.pipelines.finetune import finetune
from domainclip.pipelines.inputs import load_inputs
from domainclip.pipelines.training_setup import make_setup
from domainclip.report.results_file import load as load_results
from domainclip.strategies.prompt_learning import PromptLearning
from domainclip.training import optimizer as training_optimizer
from domainclip.training.precompute import cache_features
from domainclip.training.run_context import RunOptions
from domainclip.training.setup import TrainingSetup, to_step_batch
from tests.support.tiny_models import FAMILIES

ADDED = "text/text_model.embeddings.token_embedding.added_tokens"
CLASSES = ["effusion", "pleural effusion", "cat"]


def _ids(loaded: dual_encoder.DualEncoder, text: str) -> list[int]:
    return loaded.text_tokenizer([text])["input_ids"][0].tolist()


def _trained(loaded: dual_encoder.DualEncoder, strategy: PromptLearning) -> dual_encoder.DualEncoder:
    strategy.learning_rates(loaded)
    torch.manual_seed(1)
    loaded.weights()[ADDED].data += 0.5 * torch.randn_like(loaded.weights()[ADDED])
    return loaded


def test_only_the_new_words_learn(base: Path) -> None:
    loaded = loading.load_model(base)
    factors = PromptLearning(context_tokens=3).learning_rates(loaded)
    assert {name for name, factor in factors.items() if factor > 0} == {ADDED}
    assert loaded.weights()[ADDED].shape == (3, 32)
    assert not loaded.uses_weight_decay(ADDED)
    assert loaded.first_trainable_layer("image") is None  # pictures are encoded once
    assert (
        PromptLearning(train_logit_scale=True).learning_rates(loading.load_model(base))["scale/logit_scale"]
        == 1.0
    )


@pytest.mark.parametrize("make", FAMILIES)
def test_every_text_begins_with_the_context(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    folder = make(tmp_path / "base")
    plain, loaded = loading.load_model(folder), loading.load_model(folder)
    PromptLearning(context_tokens=2, init_text="a photo").learning_rates(loaded)
    first = len(plain.text_tokenizer.hf_tokenizer)
    for text in ("a red circle", "a"):
        before, after = _ids(plain, text), _ids(loaded, text)
        at = after.index(first)
        assert after[at : at + 2] == [first, first + 1]
        rest = [one for one in after if one < first]
        assert rest == before[: len(rest)]  # padding to a fixed length makes room
    assert (
        loaded.text_tokenizer.count(["a red circle"])[0]
        == plain.text_tokenizer.count(["a red circle"])[0] + 2
    )
    assert loaded.text_tokenizer.fingerprint() != plain.text_tokenizer.fingerprint()
    with torch.no_grad():
        # The context starts as if one had written its words.
        if loaded.objective != "sigmoid":  # whose pieces of a word depend on the space before it
            said = loaded.encode_text(loaded.text_tokenizer(["a red circle"]))
            written = plain.encode_text(plain.text_tokenizer(["a photo a red circle"]))
            assert torch.allclose(said, written, atol=1e-5)
    save_model(loaded, tmp_path / "model")
    again = loading.load_model(tmp_path / "model")
    with torch.no_grad():
        one, other = (x.encode_text(x.text_tokenizer(["a red circle", "a"])) for x in (loaded, again))
    assert torch.allclose(one, other, atol=1e-6)
    AutoModel.from_pretrained(tmp_path / "model")


def test_the_saved_model_is_plain(base: Path, tmp_path: Path) -> None:
    loaded = _trained(loading.load_model(base), PromptLearning(context_tokens=2))
    save_model(loaded, tmp_path / "model")
    plain, info = CLIPModel.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    context = config["domainclip_words"]["before"][""]
    assert context == "<|context-1|><|context-2|>"
    with torch.no_grad():
        ids = tokenizer([context + "a red circle"], return_tensors="pt")["input_ids"]
        found = F.normalize(plain.get_text_features(ids).pooler_output, dim=-1)
        assert torch.allclose(found, loaded.encode_text(loaded.text_tokenizer(["a red circle"])), atol=1e-6)
        # Negative controls: the words say something, and without them the base speaks.
        old = loading.load_model(base)
        before = old.encode_text(old.text_tokenizer(["a red circle"]))
        assert not torch.allclose(found, before, atol=1e-3)
        ids = tokenizer(["a red circle"], return_tensors="pt")["input_ids"]
        assert torch.allclose(
            F.normalize(plain.get_text_features(ids).pooler_output, dim=-1), before, atol=1e-6
        )


def test_a_base_that_is_read_at_the_highest_id(base: Path, tmp_path: Path) -> None:
    loaded = loading.load_model(base)
    for config in (loaded.hf_base.config.text_config, loaded.hf_base.text_model.config):
        config.eos_token_id = 2
    loaded.hf_base.text_model.eos_token_id = 2
    save_model(loaded, tmp_path / "legacy")
    old, new = loading.load_model(tmp_path / "legacy"), loading.load_model(tmp_path / "legacy")
    assert new.hf_base.config.text_config.eos_token_id == 2
    PromptLearning(context_tokens=1, init_text="red").learning_rates(new)
    with torch.no_grad():
        assert torch.allclose(
            new.encode_text(new.text_tokenizer(["circle"])),
            old.encode_text(old.text_tokenizer(["red circle"])),
            atol=1e-6,
        )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a CAT", ["cat"]),
        ("cats", []),
        ("pleural effusion, cat", ["pleural effusion", "cat"]),
        ("effusion", ["effusion"]),
        ("no pleural effusion", ["pleural effusion"]),
        ("a dog", []),
        ("cat, pleural effusion, CAT", ["cat", "pleural effusion"]),
    ],
)
def test_which_classes_a_text_names(text: str, expected: list[str]) -> None:
    assert learned_prompts.learned_token_names(text, CLASSES) == expected


def test_a_script_without_spaces() -> None:
    assert learned_prompts.learned_token_names("一张猫的照片", ["猫"]) == ["猫"]


def test_each_class_has_its_own_words(base: Path) -> None:
    loaded = loading.load_model(base)
    factors = PromptLearning(context_tokens=2, per_class=True, classes=CLASSES).learning_rates(loaded)
    assert loaded.weights()[ADDED].shape == (6, 32)
    assert sum(factor > 0 for factor in factors.values()) == 1
    first = 700
    assert [i for i in _ids(loaded, "no pleural effusion") if i >= first] == [first + 2, first + 3]
    assert [i for i in _ids(loaded, "a Cat") if i >= first] == [first + 4, first + 5]
    assert [i for i in _ids(loaded, "a dog") if i >= first] == []  # as the base says it
    assert [i for i in _ids(loaded, "effusion and cat") if i >= first] == []
    assert loaded.text_tokenizer(["a cat"])["input_ids"].tolist() == [
        loaded.text_tokenizer(["a cat"])["input_ids"][0].tolist()
    ]


def test_a_word_for_the_name_of_each_class(base: Path) -> None:
    plain, loaded = loading.load_model(base), loading.load_model(base)
    PromptLearning(context_tokens=0, learn_class_names=True, classes=CLASSES).learning_rates(loaded)
    table = plain.hf_base.text_model.embeddings.token_embedding.weight
    pleural = plain.text_tokenizer.hf_tokenizer("pleural effusion", add_special_tokens=False)["input_ids"]
    assert len(pleural) > 1
    assert torch.allclose(loaded.weights()[ADDED][1], table[pleural].mean(0))
    assert [i - 700 for i in _ids(loaded, "Pleural effusion and cat") if i >= 700] == [1, 2]
    assert _ids(loaded, "a cat on a dog") == [
        i if i != _ids(plain, "cat")[1] else 702 for i in _ids(plain, "a cat on a dog")
    ]
    with torch.no_grad():  # a name of one token starts as that token
        one, other = (x.encode_text(x.text_tokenizer(["a cat on a dog"])) for x in (plain, loaded))
    assert torch.allclose(one, other, atol=1e-6)


def test_a_class_that_is_called_as_the_new_words_are() -> None:
    tokenizer = SimpleNamespace(
        init_kwargs={
            learned_prompts.LEARNED_TOKENS: {
                "before": {},
                "names": {"cat": "<|name-1|>", "name": "<|name-2|>"},
            }
        }
    )
    assert learned_prompts.insert_learned_tokens(tokenizer, ["a cat by name", "Cat's"]) == [
        "a <|name-1|> by <|name-2|>",
        "<|name-1|>'s",
    ]


def test_a_random_start_follows_the_seed(base: Path) -> None:
    found = []
    for seed in (0, 0, 1):
        loaded = loading.load_model(base)
        torch.manual_seed(seed)
        PromptLearning(init_text=None).learning_rates(loaded)
        found.append(loaded.weights()[ADDED].detach().clone())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_step_moves_the_words_and_nothing_else(base: Path) -> None:
    loaded = loading.load_model(base)
    factors = PromptLearning().learning_rates(loaded)
    before = {name: weight.detach().clone() for name, weight in loaded.weights().items()}
    optimizer = training_optimizer.make_optimizer(loaded, factors, TrainConfig(weight_decay=0.5), 1e-2)
    loaded.encode_text(loaded.text_tokenizer(["a red circle"]))[0, 0].backward()
    optimizer.step()
    moved = {name for name, weight in loaded.weights().items() if not torch.equal(weight, before[name])}
    assert moved == {ADDED}
    assert bool((loaded.weights()[ADDED] != before[ADDED]).any(dim=1).all())


def test_gradients_of_the_words() -> None:
    table = torch.nn.Embedding(5, 3).double()
    module = learned_tokens.WidenedEmbedding(
        table, torch.randn(2, 3, dtype=torch.float64), first=4
    )  # the last row is unused
    ids = torch.tensor([[0, 4, 5, 3]])
    assert torch.equal(module(ids)[0, 1], module.added_tokens[0])
    assert torch.equal(module(ids)[0, 0], table.weight[0])
    whole = module.state_dict()["weight"]
    assert whole.shape == (6, 3)
    assert torch.equal(torch.nn.functional.embedding(ids, whole), module(ids))

    def loss(added: torch.Tensor) -> Any:
        return torch.func.functional_call(module, {"added_tokens": added}, (ids,))

    assert torch.autograd.gradcheck(loss, (module.added_tokens,))


def test_gradients_are_those_of_a_plain_larger_vocabulary(base: Path, tmp_path: Path) -> None:
    """Parity with transformers: its own table of tokens, all of it learning."""
    loaded = _trained(loading.load_model(base), PromptLearning(context_tokens=2))
    save_model(loaded, tmp_path / "model")
    plain = CLIPModel.from_pretrained(tmp_path / "model").eval()
    batch = loaded.text_tokenizer(["a red circle", "a dog"])
    F.normalize(plain.get_text_features(**batch).pooler_output, dim=-1)[:, 0].sum().backward()
    loaded.encode_text(batch)[:, 0].sum().backward()
    table = plain.text_model.embeddings.token_embedding.weight
    assert torch.allclose(loaded.weights()[ADDED].grad, table.grad[-2:], atol=1e-6)
    assert table.grad[-2:].abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"context_tokens": 0},
            "strategy.prompt_learning.context_tokens: 0 words and learn_class_names: false leave nothing to learn",
        ),
        (
            {"per_class": True},
            "strategy.prompt_learning.classes: per_class and learn_class_names need classes, and the corpus has none: name them, "
            "or give the card classes or templates",
        ),
        (
            {"init_text": " "},
            "strategy.prompt_learning.init_text: holds no word; write some, or null for a random start",
        ),
        (
            {"learn_class_names": True, "classes": ["cat", " "]},
            'strategy.prompt_learning.classes: the base reads no word in " ": name it otherwise',
        ),
    ],
)
def test_what_is_refused(base: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        PromptLearning(**options).learning_rates(loading.load_model(base))
    assert str(caught.value) == message


def test_words_are_learnt_once(base: Path) -> None:
    loaded = loading.load_model(base)
    PromptLearning().learning_rates(loaded)
    with pytest.raises(ModelError) as caught:
        PromptLearning(context_tokens=1, init_text=None).learning_rates(loaded)
    assert str(caught.value) == (
        f'base "{base}": its tokenizer has some of the new tokens already: it has learned tokens before'
    )


# --- whole runs ----------------------------------------------------------------------------------------


@pytest.fixture
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))


def _job(recipe_file: Path, *changes: str) -> TrainingSetup:
    ready = load_inputs(loading_config.load_recipe(str(recipe_file), changes), "train")
    return make_setup(ready)


def test_the_classes_are_those_of_the_corpus(recipe_file: Path) -> None:
    ready = load_inputs(
        loading_config.load_recipe(str(recipe_file), ["strategy={prompt_learning: {per_class: true}}"]),
        "train",
    )
    assert ready.components.strategy.classes == ["blue", "green", "red", "white"]  # type: ignore[attr-defined]
    ready = load_inputs(
        loading_config.load_recipe(
            str(recipe_file), ["strategy={prompt_learning: {learn_class_names: true, classes: [red]}}"]
        ),
        "train",
    )
    assert ready.components.strategy.classes == ["red"]  # type: ignore[attr-defined]


@pytest.mark.usefixtures("_own_cache")
def test_a_run_moves_the_words_and_the_base_is_asked_its_own(
    recipe_file: Path, tmp_path: Path, base: Path
) -> None:
    changes = [
        "strategy={prompt_learning: {per_class: true, context_tokens: 2}}",
        "train.epochs=6",
        "train.learning_rate=5e-2",
        "probes=[zero_shot]",
    ]
    finetune(
        loading_config.load_recipe(str(recipe_file), changes), RunOptions(folder=tmp_path / "run", quiet=True)
    )
    finetune(
        loading_config.load_recipe(
            str(recipe_file), ["strategy=locked_image", "train.epochs=1", "probes=[zero_shot]"]
        ),
        RunOptions(folder=tmp_path / "other", quiet=True),
    )
    found, other = (load_results(tmp_path / name / "results.json") for name in ("run", "other"))
    assert [row.base for row in found.results] == [row.base for row in other.results]
    assert [row.base for row in found.results] != [row.adapted for row in found.results]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"]
    old, new = loading.load_model(base).weights(), loading.load_model(tmp_path / "run" / "model").weights()
    table = "text/text_model.embeddings.token_embedding.weight"
    assert torch.equal(new[table][:700], old[table])
    assert len(new[table]) == 700 + 4 * 2
    assert all(torch.equal(new[name], old[name]) for name in old if name != table)


@pytest.mark.usefixtures("_own_cache")
def test_from_texts_alone_no_picture_is_looked_at(
    recipe_file: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = _job(recipe_file, "strategy={prompt_learning: {train_on: text}}")
    assert setup.precomputed.image_features is not None
    captions = caption_substitutes.substitute_captions(setup.pairs.items, 0)
    plain = loading.load_model(base)
    with torch.no_grad():  # as the base says them, without the new words
        expected = plain.encode_text(plain.text_tokenizer(captions))
    assert torch.allclose(torch.from_numpy(setup.precomputed.image_features), expected, atol=1e-6)
    stage = cache_features(setup.stage_inputs())
    assert stage.notes == ("images are not read: captions of other items with the same labels replace them",)
    monkeypatch.setattr(
        "domainclip.data.batching.item_images.decode_image", lambda _: pytest.fail("a picture was decoded")
    )
    batch = to_step_batch(stage, collate([setup.pairs[0, i] for i in range(4)]), 0, torch.device("cpu"))
    assert batch.image is None
    assert torch.allclose(batch.image_embeddings, expected[:4], atol=1e-6)


@pytest.mark.parametrize(("name", "needs"), [("two_views", "image_2"), ("three_towers", "third_tower")])
def test_what_looks_at_pictures_does_not_go_with_texts_alone(
    recipe_file: Path, name: str, needs: str
) -> None:
    changes = [
        "strategy={prompt_learning: {train_on: text}}",
        f"objectives={{contrastive: {{}}, {name}: {{}}}}",
    ]
    with pytest.raises(RecipeError) as caught:
        _job(recipe_file, *changes)
    assert str(caught.value) == (
        f"objectives.{name}: needs {needs}, and strategy.prompt_learning with train_on: text uses no images: "
        "leave one of the two out"
    )
