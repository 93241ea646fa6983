"""Many devices on paper: the model by hand, and a plan that says it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

from domainclip.config import loading
from domainclip.errors import RecipeError
from domainclip.pipelines.inputs import load_inputs
from domainclip.pipelines.plan import cluster as plan_cluster
from domainclip.pipelines.plan import make_plan
from domainclip.pipelines.plan.cluster import Network, Profile, estimate
from domainclip.pipelines.training_setup import make_setup
from domainclip.training import micro_batch_size

PROFILE = Profile(
    pair=0.01, fixed=0.1, encode=0.004, logit=1e-6, update=0.2,
    weights=1000, learning=400, width=16, saved=5000.0,
)  # fmt: skip
NETWORK = Network(bandwidth=1e4, latency=0.001)


def test_one_device_sends_nothing() -> None:
    found = estimate(PROFILE, NETWORK, devices=1, batch=64)
    assert found.sending == found.sent == 0
    # One pass of 64 pairs, 64 x 64 combinations, one update.
    assert found.computing == pytest.approx(0.1 + 0.64 + 4096e-6 + 0.2)
    assert found.pairs_per_second == pytest.approx(64 / found.seconds)
    assert found.memory == 4 * 1000 + 12 * 400 + 64 * 5000 + 2 * (2 * 64 * 16 * 4)


def test_four_devices_by_hand() -> None:
    found = estimate(PROFILE, NETWORK, devices=4, batch=64)
    assert found.computing == pytest.approx(0.1 + 0.16 + 16 * 64e-6 + 0.2)
    # Embeddings of both sides come (3/4 of 8,192 bytes), their gradients and the weights' go and come (twice
    # 3/4 of 8,192 and of 1,600).
    sent = 0.75 * 8192 + 1.5 * 8192 + 1.5 * 1600
    assert found.sent == pytest.approx(sent)
    assert found.sending == pytest.approx(sent / 1e4 + (3 + 6 + 6) * 0.001 + 8 * 0.001)


def test_micro_batches_encode_again() -> None:
    whole, parts = (estimate(PROFILE, NETWORK, devices=1, batch=64, micro_batch=held) for held in (None, 16))
    assert parts.computing - whole.computing == pytest.approx(3 * 0.1 + 48 * 0.004)
    assert whole.memory - parts.memory == 48 * 5000
    # More than there is to hold is all.
    assert estimate(PROFILE, NETWORK, devices=4, batch=64, micro_batch=1000) == estimate(
        PROFILE, NETWORK, devices=4, batch=64
    )


def test_shared_weights_cost_traffic_and_save_memory() -> None:
    plain, shared = (estimate(PROFILE, NETWORK, devices=4, batch=64, shard=shard) for shard in (False, True))
    assert plain.memory - shared.memory == pytest.approx(0.75 * (4 * 1000 + 12 * 400))
    # Whole weights for forward and backward, gradients summed to where they belong, instead of both ways.
    assert shared.sent - plain.sent == pytest.approx(2 * 0.75 * 4000 + 0.75 * 1600 - 1.5 * 1600)
    assert plain.computing - shared.computing == pytest.approx(0.2 * 0.75)


def test_devices_that_share_cores_compute_slower() -> None:
    one, two = (estimate(PROFILE, NETWORK, devices=4, batch=64, crowded=crowded) for crowded in (1.0, 2.0))
    assert two.computing == 2 * one.computing
    assert two.sending == one.sending


def test_an_uneven_batch_is_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        estimate(PROFILE, NETWORK, devices=7, batch=64)
    assert str(caught.value) == (
        "train.batch_size: 64 cannot be shared equally by 7 devices: take a multiple of 7"
    )


def test_a_profile_is_measured_and_leaves_no_trace(recipe_file: Path) -> None:
    ready = load_inputs(loading.load_recipe(str(recipe_file), ["strategy=locked_image"]), "train")
    setup = make_setup(ready)
    before = {name: weight.detach().clone() for name, weight in setup.model.weights().items()}
    found = plan_cluster.measure(
        setup, Accelerator(cpu=True), lambda n: make_plan._benchmark_batch(setup, 0, n), held=8
    )
    assert min(found.pair, found.encode, found.logit, found.update, found.saved) > 0
    assert found.fixed >= 0
    assert found.weights == sum(weight.numel() for weight in before.values())
    assert 0 < found.learning < found.weights
    for name, weight in setup.model.weights().items():
        assert (weight == before[name]).all(), name
        assert weight.grad is None


def test_passes_of_the_held_pairs_are_measured(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of as many as memory and PASS_SECONDS allow; a line through both gives the time of the larger."""
    ready = load_inputs(loading.load_recipe(str(recipe_file), ["strategy=locked_image"]), "train")
    setup = make_setup(ready)
    seconds = {1: 0.25, 2: 0.5, 4: 1.0, 8: 2.0, 16: 6.0, 32: 16.0}  # a pair costs more in a large pass
    passes: list[int] = []

    def compute_gradients(_: object, __: object, batch: Any, *___: object) -> None:
        passes.append(len(batch.keys))

    def seconds_per_call(call: Callable[[], object], *_: object) -> float:
        passes.clear()
        call()
        return seconds[passes[-1]] if passes else 0.0

    monkeypatch.setattr(plan_cluster.step, "compute_gradients", compute_gradients)
    monkeypatch.setattr(plan_cluster, "seconds_per_call", seconds_per_call)

    def profile(held: int) -> Profile:
        make_batch = partial(make_plan._benchmark_batch, setup, 0)
        return plan_cluster.measure(setup, Accelerator(cpu=True), make_batch, held)

    for held, longest, expected in ((8, 5.0, 8), (32, 30.0, 32), (32, 5.0, 16), (32, 1.0, 4)):
        monkeypatch.setattr(plan_cluster, "PASS_SECONDS", longest)
        found = profile(held)
        assert found.fixed + expected * found.pair == pytest.approx(seconds[expected])
    monkeypatch.setattr(plan_cluster.micro_batch_size, "available_memory", lambda _: 0)
    found = profile(32)
    assert found.fixed + 4 * found.pair == pytest.approx(seconds[4])


def test_auto_is_decided_from_the_batch_of_a_device(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve pairs fit and each device has sixteen: a batch of eight would be held whole."""
    setup = make_setup(load_inputs(loading.load_recipe(str(recipe_file)), "train"))
    learning = setup.weight_counts[0]
    monkeypatch.setattr(micro_batch_size, "activation_bytes", lambda _, batch, __: 1000 * len(batch.keys))
    monkeypatch.setattr(micro_batch_size, "available_memory", lambda _: 2 * (12 * learning + 12_000))
    monkeypatch.setattr(micro_batch_size, "_seconds", lambda *_: 1.0)
    held: list[int] = []
    monkeypatch.setattr(plan_cluster, "measure", lambda *_, held: PROFILE)
    plain = plan_cluster.estimate
    monkeypatch.setattr(
        plan_cluster,
        "estimate",
        lambda *given, micro_batch, **more: (
            held.append(micro_batch) or plain(*given, micro_batch=micro_batch, **more)
        ),
    )
    cluster = make_plan.Cluster(2, NETWORK)
    make_plan._cluster_lines(setup, Accelerator(cpu=True), cluster, steps=1, batch=32)
    assert held == [8]


def test_a_plan_says_what_many_devices_take(recipe_file: Path) -> None:
    cluster = make_plan.Cluster(8, Network(25e9, 20e-6))
    lines = dict(
        make_plan.plan(loading.load_recipe(str(recipe_file)), benchmark=False, cluster=cluster).lines
    )
    assert lines["8 devices like this one"].startswith("about ")
    assert lines["8 devices like this one"].endswith("minutes of training")
    assert " at 25 GB/s" in lines["a step there"]
    assert lines["memory of each"].endswith("GiB")
    shared = dict(
        make_plan.plan(loading.load_recipe(str(recipe_file), ["train.fsdp=true"]), False, cluster).lines
    )
    assert shared["memory of each"].endswith("GiB, weights shared out")


@pytest.mark.parametrize("probe", [True, False])
def test_a_plan_for_many_devices_asks_the_teachers(recipe_file: Path, base: Path, probe: bool) -> None:
    said = f"objectives={{contrastive: {{}}, distillation: {{teachers: [{base}]}}}}"
    cluster = make_plan.Cluster(8, Network(25e9, 20e-6))
    lines = dict(make_plan.plan(loading.load_recipe(str(recipe_file), [said]), probe, cluster).lines)
    assert ("speed" in lines, "a step there" in lines) == (probe, True)
