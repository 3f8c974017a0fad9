from __future__ import annotations

from typing import Any, get_args

import pytest

torch = pytest.importorskip("torch")

from openworks.engines.batched.linear import (  # noqa: E402 # after the skip
    DenseLinear,
    Int8Linear,
    Precision,
    activation_dtype,
    choose_precision,
    int8_fault,
    make_linear,
    quantise_rows,
)

_LARGE = 10**9
_needs_int8 = pytest.mark.skipif(int8_fault() is not None, reason=str(int8_fault()))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _random(*shape: int, seed: int = 0) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_row_is_quantised_by_its_own_largest_value() -> None:
    x = torch.tensor([[0.5, -1.0, 0.25, 0.0], [400.0, 100.0, -50.0, 0.0]])
    quantised, scales = quantise_rows(x)
    assert quantised.dtype == torch.uint8
    assert quantised.tolist() == [[192, 1, 160, 128], [255, 160, 112, 128]]
    torch.testing.assert_close(scales, torch.tensor([[1 / 127], [400 / 127]]))


def test_a_row_of_zeros_is_quantised_to_zeros() -> None:
    quantised, scales = quantise_rows(torch.zeros(2, 3))
    assert quantised.tolist() == [[128] * 3] * 2
    assert torch.isfinite(scales).all()


@_needs_int8
def test_int8_is_within_two_percent_of_float() -> None:
    weight, bias, x = _random(160, 256), _random(160, seed=1), _random(7, 256, seed=2)
    found = Int8Linear(weight, bias)(x)
    expected = x @ weight.t() + bias
    assert float((found - expected).norm() / expected.norm()) < 0.02


@_needs_int8
@pytest.mark.parametrize("num_rows", [1, 2, 5, 33])
def test_an_int8_row_is_the_same_to_the_bit_whatever_else_is_in_the_batch(num_rows: int) -> None:
    linear = Int8Linear(_random(96, 320), _random(96, seed=1))
    mates = _random(40, 320, seed=2) * 50
    row = _random(1, 320, seed=3)
    alone = linear(row)
    batch = torch.cat([mates[: num_rows - 1], row, mates[num_rows:]])
    assert torch.equal(linear(batch)[num_rows - 1], alone[0])


@pytest.mark.parametrize("precision", get_args(Precision))
def test_what_a_linear_layer_returns_may_be_written_into(precision: Precision) -> None:
    linear = make_linear(_random(24, 16), _random(24), precision, "cpu")
    x = _random(3, 16).to(activation_dtype(precision))
    first = linear(x)
    kept = first.clone()
    first.zero_()
    assert torch.equal(linear(x), kept)
    assert kept.shape == (3, linear.out_features)
    assert kept.dtype == activation_dtype(precision)


def test_auto_takes_float32_for_a_small_model() -> None:
    assert choose_precision("auto", "cpu", model_bytes=1000)[0] == "float32"


@_needs_int8
def test_auto_takes_int8_for_a_large_model_where_it_is_exact() -> None:
    assert choose_precision("auto", "cpu", model_bytes=_LARGE)[0] == "int8"


def test_a_device_other_than_the_processor_has_no_int8() -> None:
    precision, reason = choose_precision("int8", "cuda", model_bytes=_LARGE)
    assert precision == "bfloat16"
    assert "cuda" in reason


@pytest.mark.parametrize("wanted", ["float32", "bfloat16"])
def test_a_float_type_is_had_as_asked_for(wanted: Precision) -> None:
    assert choose_precision(wanted, "cpu", model_bytes=_LARGE) == (wanted, "as asked for")


def test_kernels_that_saturate_are_found_out() -> None:
    class Saturating(DenseLinear):
        def __call__(self, x: Any) -> Any:
            return super().__call__(x).clamp_(max=128.0)

    fault = int8_fault(lambda weight, bias: Saturating(weight, bias))
    assert fault is not None
    assert "VNNI" in fault


def test_kernels_that_are_wrong_are_found_out() -> None:
    fault = int8_fault(lambda weight, bias: DenseLinear(weight * 1.1, bias))
    assert fault is not None
    assert "wrong" in fault


def test_a_torch_without_the_kernels_is_found_out() -> None:
    def make(weight: Any, bias: Any) -> DenseLinear:
        raise AttributeError("no such operator")

    fault = int8_fault(make)
    assert fault is not None
    assert "AttributeError" in fault
