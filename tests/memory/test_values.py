"""Values that fake tensors carry, the files they are saved in, the kernels chosen for them: without a patch."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pytest_trainguard.memory.traced import values


def fake(*shape, dtype=torch.float32):
    with FakeTensorMode(allow_non_fake_inputs=True):
        return torch.empty(*shape, dtype=dtype)


def test_a_value_is_shared_by_views_and_void_once_something_unknown_is_written():
    tensor, view = fake(4, dtype=torch.int64), fake(2, dtype=torch.int64)
    known = torch.arange(4)
    values.remember_values(tensor, known)
    values.remember_values(view, known[:2])
    assert values.find_value(view).tolist() == [0, 1]
    values.find_value(tensor).add_(1)
    assert values.find_value(view).tolist() == [1, 2]
    values.forget_value(tensor)
    assert values.find_value(tensor) is None
    assert values.find_value(view) is None


def test_only_small_floats_are_kept_and_vectors():
    assert values.is_worth_keeping(torch.zeros(100, 100))
    assert not values.is_worth_keeping(torch.zeros(1000, 1000))
    assert values.is_worth_keeping(torch.zeros(1_000_000))  # a random number for each edge
    assert values.is_worth_keeping(torch.zeros(1000, 1000, dtype=torch.int64))
    assert not values.is_worth_keeping(torch.zeros((), dtype=torch.int64).expand(10**5, 10**5))


def test_numbers_are_taken_to_be_finite():
    x, aten = fake(3), torch.ops.aten
    flags = fake(3, dtype=torch.bool)
    assert values.assume_finite(aten.eq.Tensor, (x, x), flags).all()
    assert not values.assume_finite(aten.ne.Tensor, (x, x), flags).any()
    assert values.assume_finite(aten.ne.Scalar, (x, float("inf")), flags).all()
    assert not values.assume_finite(aten.eq.Scalar, (x, float("inf")), flags).any()
    assert values.assume_finite(aten.eq.Scalar, (x, 1.0), flags) is None
    assert values.assume_finite(aten.gt.Scalar, (x, 1.0), flags) is None


def test_what_is_made_up_is_a_loss_of_one_and_the_class_zero():
    assert values.make_up_value(fake(2)).tolist() == [1.0, 1.0]
    assert values.make_up_value(fake(2, dtype=torch.int64)).tolist() == [0, 0]


def test_a_hollow_file_is_one_that_safetensors_reads(tmp_path):
    from safetensors import safe_open

    from pytest_trainguard.memory.traced import fake_checkpoints

    path = tmp_path / "model.safetensors"
    fake_checkpoints.write_fake_checkpoint(
        {"b": fake(1000, 1000), "a": fake(3, dtype=torch.bfloat16)}, str(path), {"format": "pt"}
    )
    assert path.stat().st_size > 4_000_000
    assert path.stat().st_blocks * 512 < 100_000  # a hole
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert file.get_tensor("b").shape == (1000, 1000)
        assert file.get_tensor("a").dtype is torch.bfloat16
    whole = fake_checkpoints.make_content({"a": fake(3, dtype=torch.bfloat16)}, None, whole=True)
    assert whole.endswith(b"\0" * 6)


@pytest.mark.parametrize(
    ("capability", "dtype", "width", "masked", "kernel"),
    [
        ((8, 0), torch.bfloat16, 64, False, "flash"),
        ((8, 0), torch.bfloat16, 64, True, "efficient"),
        ((8, 0), torch.bfloat16, 300, False, "math"),
        ((8, 0), torch.float32, 64, False, "efficient"),
        ((8, 0), torch.float64, 64, False, "math"),
        ((8, 0), torch.float16, 60, False, "flash"),  # padded to 64
        ((8, 0), torch.float16, 60, True, "math"),
        ((9, 0), torch.bfloat16, 64, True, "cudnn"),
        ((9, 0), torch.bfloat16, 256, False, "flash"),
        ((7, 5), torch.float16, 64, False, "efficient"),
        ((7, 5), torch.bfloat16, 64, False, "math"),
        ((10, 0), torch.float16, 128, False, "cudnn"),
        ((8, 9), torch.float16, 64, False, "flash"),
    ],
)
def test_attention_takes_the_first_kernel_in_the_cards_order_that_can(capability, dtype, width, masked, kernel):
    from pytest_trainguard.memory.traced.attention import KernelChooser

    parts = [fake(2, 4, 32, width, dtype=dtype) for _ in range(3)]
    mask = fake(2, 1, 32, 32, dtype=torch.bool) if masked else None
    assert KernelChooser(capability).choose(*parts, mask, keeps=True) == kernel
