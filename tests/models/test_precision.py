"""The precision of embeddings: by device, restored outside, and its distance from fp32."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from domainclip.models.precision import computing_in, evaluation_precision, largest_cosine_distance


@pytest.mark.parametrize(("bf16", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_only_where_a_gpu_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, bf16: bool, expected: str
) -> None:
    assert evaluation_precision("auto") == "fp32"  # no GPU here
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16 or including_emulation
    )
    assert evaluation_precision("auto") == expected
    assert evaluation_precision("tf32") == "tf32"


def test_the_precision_outside_is_restored() -> None:
    weight, cpu = torch.ones(2, 2), torch.device("cpu")
    before = torch.get_float32_matmul_precision()
    with computing_in("tf32", cpu):
        assert torch.get_float32_matmul_precision() == "high"
        with computing_in("fp32", cpu):  # an evaluation in fp32 inside a training in tf32
            assert torch.get_float32_matmul_precision() == "highest"
        with computing_in("bf16", cpu):
            assert (weight @ weight).dtype == torch.bfloat16
        assert (weight @ weight).dtype == torch.float32
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


def test_the_distance_is_that_of_the_worst_row() -> None:
    exact = np.array([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [0.0, 0.0]]], np.float32)
    rows = exact.copy()
    assert largest_cosine_distance(rows, exact) == 0.0
    rows[0, 1] = [3.0, 4.0]  # the cosine to (0, 2) is 4 / 5
    assert largest_cosine_distance(rows, exact) == pytest.approx(0.2)
