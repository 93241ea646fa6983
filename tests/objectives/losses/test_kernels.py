"""The kernels by hand: losses and gradients of two rows and three columns, with an excluded combination."""

from __future__ import annotations

from math import exp, log

import pytest
import torch

from domainclip.objectives.losses import blockwise

LOGITS = [[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]]
TARGET = torch.tensor([0, 1])
EXCLUDED = torch.tensor([[False, False, True], [False, False, False]])


def logits() -> torch.Tensor:
    return torch.tensor(LOGITS, dtype=torch.float64)


def close(found: torch.Tensor, expected: list[float] | list[list[float]]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_cross_entropy() -> None:
    losses, gradients = blockwise.cross_entropy(logits(), TARGET, EXCLUDED)
    first, second = 1 + exp(-1), 1 + exp(-3) + exp(-2)  # sums of exp over the exp of the target
    close(losses, [log(first), log(second)])
    close(
        gradients, [[1 / first - 1, exp(-1) / first, 0], [exp(-3) / second, 1 / second - 1, exp(-2) / second]]
    )


def test_soft_cross_entropy_leaves_excluded_columns_out() -> None:
    targets = torch.tensor([[0.75, 0.25, 0.0], [0.0, 0.5, 0.5]], dtype=torch.float64)
    kernel = blockwise.soft_cross_entropy(lambda target, excluded: targets)
    losses, gradients = kernel(logits(), TARGET, EXCLUDED)
    first, second = exp(1) + 1, 1 + exp(3) + exp(1)
    close(losses, [log(first) - 0.75, log(second) - 2.0])
    close(
        gradients,
        [
            [exp(1) / first - 0.75, 1 / first - 0.25, 0],
            [1 / second, exp(3) / second - 0.5, exp(1) / second - 0.5],
        ],
    )


def test_sigmoid_pairs_sums_over_the_columns_of_a_row() -> None:
    def softplus(z: float) -> float:
        return log(1 + exp(z))

    def sigmoid(z: float) -> float:
        return 1 / (1 + exp(-z))

    losses, gradients = blockwise.sigmoid_pairs(logits(), TARGET, EXCLUDED)
    close(losses, [softplus(-1) + softplus(0), softplus(0) + softplus(-3) + softplus(1)])
    close(gradients, [[-sigmoid(-1), 0.5, 0], [0.5, -sigmoid(-3), sigmoid(1)]])


def test_losses_of_rows_have_the_first_column_as_target() -> None:
    eye = torch.eye(2, dtype=torch.float64)
    found = blockwise.loss_per_row(blockwise.cross_entropy, eye, eye, torch.tensor(3.0, dtype=torch.float64))
    close(found, [log(1 + exp(-3))] * 2)


@pytest.mark.parametrize("trained", ["rows", "columns", "scale"])
def test_each_input_has_its_gradient_where_the_others_are_frozen(trained: str) -> None:
    draw = torch.Generator().manual_seed(0)
    inputs = {
        "rows": torch.randn(3, 4, dtype=torch.float64, generator=draw),
        "columns": torch.randn(3, 4, dtype=torch.float64, generator=draw),
        "scale": torch.tensor(2.0, dtype=torch.float64),
    }
    inputs[trained].requires_grad_()
    loss = blockwise.mean_over_rows(blockwise.cross_entropy, **inputs)
    dense = inputs["scale"] * inputs["rows"] @ inputs["columns"].T
    expected = torch.nn.functional.cross_entropy(dense, torch.arange(3))
    (found,), (wanted,) = (torch.autograd.grad(value, inputs[trained]) for value in (loss, expected))
    torch.testing.assert_close(found, wanted)
