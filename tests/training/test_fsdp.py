"""Shared weights: the same training, a part of the memory, and whole weights before and after."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from domainclip.components import WeightedObjectives
from domainclip.config import loading as loading_config
from domainclip.config.training import TrainConfig
from domainclip.data.batching.matches import MatchKeys
from domainclip.distributed import collectives
from domainclip.distributed.shared_tensors import SharedTensors
from domainclip.models import dual_encoder, loading
from domainclip.objectives.contrastive import Contrastive
from domainclip.objectives.sigmoid import Sigmoid
from domainclip.pipelines import finetune
from domainclip.strategies.full import Full
from domainclip.strategies.lora import Lora
from domainclip.training import fsdp, layer_execution, micro_batch_size, step, views
from domainclip.training import optimizer as training_optimizer
from domainclip.training.checkpointing import checkpoint, sharded_files
from domainclip.training.run_context import RunOptions
from domainclip.training.state import TrainingState
from tests.support.processes import finetuned, started
from tests.support.tiny_models import tiny_clip, tiny_siglip

PAIRS = 12
TRAIN = TrainConfig(learning_rate=1e-3, max_grad_norm=0.5)


@dataclass(frozen=True)
class Setting:
    """Two steps of a tiny run."""

    base: str = "clip"
    strategy: Any = None  # all learns
    micro: int | None = None
    checkpointing: bool = False


SETTINGS = {
    "full": Setting(),
    "cached": Setting("siglip", micro=4),
    "adapter": Setting(strategy=Lora(rank=2, targets="attention+mlp"), micro=4),
    "activations": Setting(checkpointing=True),
    "adapter and activations": Setting(strategy=Lora(rank=2), checkpointing=True),
}
# Four processes on two cores are slow: the case in which some of them have no row of a matrix of rank 2.
OF = {2: list(SETTINGS), 4: ["adapter"]}


@dataclass
class Ran:
    """What a process has at the end."""

    losses: list[float]
    norms: list[float]
    start: dict[str, Tensor]
    weights: dict[str, Tensor]  # of the towers that were given, after they were given back
    saved: dict[str, Tensor]  # as a checkpoint would hold them: on the first process
    bytes: int  # of weights and moments, while they were trained
    emptied: bool  # whether the given towers were empty meanwhile
    restored: bool  # whether what was saved, put back into parts, is whole again
    moments: dict[str, Tensor]  # whole, on the first process
    numbers: int  # of the weights, that this process holds meanwhile
    activations: int  # bytes that a pass keeps for its backward pass
    left: int  # bytes of the shards after the weights were given back
    reread: bool  # whether a checkpoint in shards gives weights and moments back, after all were set to 0


def _local_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the tensors that this process holds."""
    shards = (tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors)
    return sum(shard.numel() * shard.element_size() for shard in shards)


def _saved_in_shards(state: TrainingState, place: Path) -> tuple[bool, dict[str, Tensor]]:
    """Save a checkpoint, each process its shards, and read it back; also return the whole moments."""
    before = state.groups()
    staging = collectives.on_first_process(lambda: checkpoint.begin(place, 2))
    sharded_files.write(staging, state.groups(whole=False))
    path = collectives.on_first_process(lambda: checkpoint.commit(staging, 2, {"step": 2}, keep=1))
    with torch.no_grad():
        for weight in state.weights.values():
            weight.zero_()
    for moments in state.optimizer.state.values():
        moments.clear()
    state.restore_shards(path, 2)
    after = state.groups()
    same = all(
        torch.equal(after[group][name], tensor) for group in before for name, tensor in before[group].items()
    )
    return same, before["optimizer"]


def _run(setting: Setting, bases: dict[str, Path], place: Path) -> Ran:
    """The loop's own calls, in fp64 throughout; a checkpoint is saved in `place`."""
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    given = loading.load_model(bases[setting.base])
    factors = (setting.strategy or Full()).learning_rates(given)
    given = given.double()
    start = {name: weight.detach().clone() for name, weight in given.weights().items()}
    begun = SharedTensors(given.weights())
    shared = fsdp.shard(given, accelerator.device)
    optimizer = training_optimizer.make_optimizer(shared, factors, TRAIN, 1e-3)
    model, wrapped = fsdp.prepare(shared, optimizer, accelerator)
    settings = TRAIN.model_copy(update={"activation_checkpointing": setting.checkpointing})
    losses, norms = [], []
    with layer_execution.layer_execution(shared, settings), patch.object(Tensor, "float", Tensor.double):
        shared.set_train_mode({"image", "text"})
        for at in range(2):
            batch = _batch(at, given)
            taken = step.compute_gradients(
                model,
                shared,
                batch,
                WeightedObjectives({"sigmoid": (1.0, Sigmoid())}),
                setting.micro,
                at,
                accelerator,
            )
            norms.append(float(fsdp.clip_gradients(shared, wrapped, TRAIN.max_grad_norm, accelerator)))
            losses.append(float(taken.loss))
            wrapped.step()
            wrapped.zero_grad(set_to_none=True)
            shared.clamp_scale()
    values = [value for state in optimizer.state.values() for value in state.values()]
    size = _local_bytes([*shared.parameters(), *values])
    with patch.object(Tensor, "float", Tensor.double):
        activations = micro_batch_size.activation_bytes(shared, _batch(0, given), accelerator)
    numbers = sum(fsdp.local_numbers(weight) for weight in shared.parameters())
    saved = fsdp.full_tensors_on_rank0(shared.weights())
    whole = collectives.gather_objects(saved)[0]
    restored = all(
        torch.equal(fsdp.full_tensor(fsdp.local_shard(whole[name], weight)), whole[name])
        for name, weight in shared.weights().items()
    )
    emptied = all(weight.numel() < 2 for weight in given.parameters())
    with fsdp.temporarily_gathered(shared) as lent:
        restored &= all(torch.equal(weight, whole[name]) for name, weight in lent.weights().items())
    restored &= list(begun) == list(start)
    restored &= all(torch.equal(begun[name], weight) for name, weight in start.items())
    learning = {name: weight for name, weight in shared.weights().items() if factors[name] > 0}
    reread, moments = _saved_in_shards(TrainingState(2, learning, optimizer), place)
    fsdp.gather_back(shared)
    weights = {name: weight.detach().clone() for name, weight in given.weights().items()}
    shards = [weight.to_local() for weight in shared.parameters() if isinstance(weight, DTensor)]
    left = sum(shard.untyped_storage().nbytes() for shard in shards)
    return Ran(
        losses=losses,
        norms=norms,
        start=start,
        weights=weights,
        saved=saved,
        bytes=size,
        emptied=emptied,
        restored=restored,
        moments=moments,
        numbers=numbers,
        activations=activations,
        left=left,
        reread=reread,
    )


def _batch(at: int, loaded: dual_encoder.DualEncoder) -> views.StepBatch:
    """This process's share of a batch: other pixels and words in every row and step, ragged."""
    draw = torch.Generator().manual_seed(at)
    pixels = torch.randint(0, 256, (PAIRS, *loaded.image_size, 3), dtype=torch.uint8, generator=draw)
    texts = [f"{'a red circle ' * (1 + (i + at) % 3)}{i}" for i in range(PAIRS)]
    texts[7] = texts[0]
    rank, world = collectives.rank(), collectives.process_count()
    rows = slice(PAIRS * rank // world, PAIRS * (rank + 1) // world)
    return views.StepBatch(
        {"pixels": pixels[rows]},
        None,
        texts[rows],
        None,
        MatchKeys.of_groups(torch.arange(PAIRS)[rows]),
        None,
    )


@dataclass
class InBf16:
    """A step under an autocast to bf16."""

    loss: float
    computed_in: dict[str, torch.dtype]  # weights of a layer and the token embeddings, while they are used
    gradients: dict[str, Tensor]  # whole


def _in_bf16(bases: dict[str, Path]) -> InBf16:
    accelerator = Accelerator(cpu=True)
    given = loading.load_model(bases["clip"])
    Full().learning_rates(given)
    model = fsdp.shard(given, accelerator.device, bf16=True)
    seen: dict[str, torch.dtype] = {}
    text = model.hf_base.text_model
    layer, tokens = text.encoder.layers[0], text.embeddings.token_embedding
    modules = {"matrix": layer.mlp.fc1, "norm": layer.layer_norm1, "tokens": tokens}
    for name, module in modules.items():
        module.register_forward_pre_hook(
            lambda module, _, name=name: seen.update({name: module.weight.dtype}) or None
        )
    model.set_train_mode({"image", "text"})
    terms = WeightedObjectives({"contrastive": (1.0, Contrastive())})
    with patch.object(accelerator, "autocast", lambda: torch.autocast("cpu", torch.bfloat16)):
        taken = step.compute_gradients(model, model, _batch(0, given), terms, None, 0, accelerator)
    fsdp.clip_gradients(model, None, inf, accelerator)
    weights = {name: weight for name, weight in model.weights().items() if weight.grad is not None}
    return InBf16(taken.loss, seen, {name: fsdp.full_tensor(weight.grad) for name, weight in weights.items()})


def _work(bases: dict[str, Path]) -> dict[str, Any]:
    world = collectives.process_count()
    place = bases["clip"].parent / f"checkpoints of {world}"
    ran: dict[str, Any] = {
        name: _run(SETTINGS[name], bases, place / name) for name in OF.get(world, SETTINGS)
    }
    return ran if world == 4 else {**ran, "bf16": _in_bf16(bases)}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {"clip": tiny_clip(folder / "clip"), "siglip": tiny_siglip(folder / "siglip", bias=-2.0)}


@pytest.fixture(scope="module", params=[2, 4])
def many(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, bases: dict[str, Path]
) -> list[dict[str, Ran]]:
    """What each of two, then of four processes has in the end."""
    return started(request.param, tmp_path_factory.mktemp("many"), _work, bases)


@pytest.fixture(scope="module")
def alone(bases: dict[str, Path]) -> dict[str, Ran]:
    """What one process has."""
    return _work(bases)


def test_shared_weights_learn_what_whole_ones_do(many: Any, alone: Any) -> None:
    for name, process in ((name, process[name]) for process in many for name in OF[len(many)]):
        one = alone[name]
        moved = [key for key, weight in one.weights.items() if not torch.equal(weight, one.start[key])]
        assert len(moved) > 8
        assert one.norms[0] > TRAIN.max_grad_norm  # so that scaling down is part of it
        assert process.losses == pytest.approx(one.losses, rel=1e-10)
        assert process.norms == pytest.approx(one.norms, rel=1e-10)
        assert process.emptied
        assert process.weights.keys() == one.weights.keys()
        for key, weight in one.weights.items():
            assert torch.allclose(process.weights[key], weight, rtol=0, atol=1e-9), (name, key)


def test_each_process_holds_its_part_of_weights_and_moments(many: Any, alone: Any) -> None:
    for process in many:
        for name in OF[len(many)]:
            share = 1 / len(many) + 0.1
            assert process[name].bytes <= share * alone[name].bytes
            assert process[name].numbers <= share * alone[name].numbers
            assert process[name].left == 0


def test_a_pass_keeps_activations_and_no_gathered_weights(many: Any, alone: Any) -> None:
    for process in many:
        for name in OF[len(many)]:
            # The last layer runs at all positions of a text, where it is gathered.
            assert process[name].activations <= 1.75 * alone[name].activations / len(many)


def test_what_is_saved_is_whole_and_lies_with_the_first_process(many: Any) -> None:
    for name in OF[len(many)]:
        first, *others = (process[name] for process in many)
        assert all(process.saved == {} for process in others)
        assert first.saved.keys() == first.weights.keys()
        assert all(torch.equal(first.saved[key], weight) for key, weight in first.weights.items())
        assert all(process[name].restored for process in many)


def test_shards_are_read_back_by_any_number_of_processes(many: Any, alone: Any, bases: Any) -> None:
    for name in OF[len(many)]:
        assert all(process[name].reread for process in many)
        first, path = (
            many[0][name],
            bases["clip"].parent / f"checkpoints of {len(many)}" / name / "step-000002",
        )
        assert checkpoint.verify_checkpoint(path) is None
        assert len(list(path.glob("shard-*.safetensors"))) == len(many)
        groups, state = checkpoint.load(path)  # whole, in this process
        assert state == {"step": 2}
        assert len(groups["weights"]) > 2
        assert all(torch.equal(first.saved[key], weight) for key, weight in groups["weights"].items())
        assert groups["optimizer"].keys() == first.moments.keys()
        assert all(torch.equal(first.moments[key], moment) for key, moment in groups["optimizer"].items())
        assert checkpoint.load_group(path, "weights").keys() == groups["weights"].keys()


def test_a_damaged_shard_is_no_checkpoint(many: Any, bases: Any, tmp_path: Path) -> None:
    saved = bases["clip"].parent / f"checkpoints of {len(many)}" / OF[len(many)][0] / "step-000002"
    path = Path(shutil.copytree(saved, tmp_path / "step-000002"))
    shard = sorted(path.glob("shard-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-8] + b"damaged!")
    assert "has changed" in (checkpoint.verify_checkpoint(path) or "")
    shard.unlink()
    assert "is missing" in (checkpoint.verify_checkpoint(path) or "")


def test_shards_need_shared_weights() -> None:
    with pytest.raises(
        ValueError, match=r"sharded_checkpoints: true saves what fsdp shards: set train.fsdp=true"
    ):
        TrainConfig(sharded_checkpoints=True)


def test_layers_are_gathered_in_bf16_and_their_gradients_summed_in_fp32(many: Any, alone: Any) -> None:
    if len(many) != 2:
        pytest.skip("two processes show it")
    one = alone["bf16"]
    assert one.computed_in["matrix"] == torch.float32  # unsharded: autocast rounds a copy
    longest = max(gradient.norm().item() for gradient in one.gradients.values())
    for process in (process["bf16"] for process in many):
        expected = {"matrix": torch.bfloat16, "norm": torch.float32, "tokens": torch.float32}
        assert process.computed_in == expected
        assert process.loss == pytest.approx(one.loss, rel=5e-3)
        assert process.gradients.keys() == one.gradients.keys()
        for name, gradient in one.gradients.items():
            assert process.gradients[name].dtype == torch.float32
            apart = (process.gradients[name] - gradient).norm().item()
            assert apart < 0.05 * max(gradient.norm().item(), 0.1 * longest), name


def test_one_process_shares_nothing(bases: dict[str, Path]) -> None:
    loaded = loading.load_model(bases["clip"])
    assert fsdp.shard(loaded, torch.device("cpu")) is loaded
    assert not fsdp.is_sharded(loaded)
    with fsdp.temporarily_gathered(loaded) as same:
        assert same is loaded
    assert min(weight.numel() for weight in loaded.weights().values()) > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"compile": True},
            "fsdp: true shards every tensor, which compile does not support: use only one of them",
        ),
        (
            {"optimizer": "adamw8bit"},
            "fsdp: true shards every tensor, which optimizer: adamw8bit does not support: use only one of them",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainConfig(fsdp=True, **options)


def test_a_run_goes_on_in_parts(recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun by one process, ended by two that share the weights: losses and weights as if by one."""
    options = [
        "strategy={full: {last_layers: 1}}",
        "train.micro_batch_size=3",
        "evaluate.bootstrap_samples=100",
    ]
    options += ["train.validate_every=2", "train.final_weights=best", "train.keep_checkpoints=9"]
    whole, shared, again = tmp_path / "whole", tmp_path / "shared", tmp_path / "again"
    asked: list[int] = []
    plain = fsdp.shard
    monkeypatch.setattr(fsdp, "shard", lambda *given, **options: asked.append(1) or plain(*given, **options))
    finetune.finetune(
        loading_config.load_recipe(str(recipe_file), [*options, "train.fsdp=true"]),
        RunOptions(folder=whole, quiet=True),
    )
    assert asked == [1]  # the recipe's key reaches the loop; one process has nothing to share
    shutil.copytree(whole, shared)
    for step_ in (6, 8):
        shutil.rmtree(shared / "checkpoints" / f"step-{step_:06d}")
    in_shards = ["train.fsdp=true", "train.sharded_checkpoints=true"]
    finetuned(recipe_file, shared, *options, *in_shards, resume=True)
    shutil.copytree(shared, again)
    shutil.rmtree(again / "checkpoints" / "step-000008")
    finetuned(recipe_file, again, *options, *in_shards, resume=True)  # from shards
    said = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (whole, shared)
    ]
    losses = [[line["loss"] for line in lines if "loss" in line] for lines in said]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert len(losses[1]) == 8
    looks = [[line["validation"]["loss"] for line in lines if "validation" in line] for lines in said]
    assert len(looks[1]) == 5  # the one before the first step included
    assert looks[1] == pytest.approx(looks[0], rel=1e-5)
    ends = [checkpoint.load(folder / "checkpoints" / "step-000008")[0] for folder in (whole, shared)]
    for group in ("weights", "optimizer"):
        assert ends[0][group].keys() == ends[1][group].keys()
        for name, tensor in ends[0][group].items():
            # The gradient of a key's bias is zero but for rounding, which Adam makes as long as any other.
            limit = 0.01 if "k_proj.bias" in name else 1e-4
            assert torch.allclose(ends[1][group][name], tensor, atol=limit), name
    models = [load_file(folder / "model" / "model.safetensors") for folder in (whole, shared)]
    assert models[0].keys() == models[1].keys()
    assert all(torch.allclose(models[1][name], weight, atol=0.01) for name, weight in models[0].items())
    # With the number of processes and the parts unchanged, not a bit.
    last = Path("checkpoints") / "step-000008"
    assert len(list((again / last).glob("shard-*.safetensors"))) == 2
    resumed, straight = (checkpoint.load(folder / last)[0] for folder in (again, shared))
    for group, tensors in straight.items():  # the headers of the files name their entries in any order
        assert all(torch.equal(resumed[group][name], tensor) for name, tensor in tensors.items()), group
    file = "model/model.safetensors"
    assert (again / file).read_bytes() == (shared / file).read_bytes()
