"""What comes of an operation is asked of torch once for each form of its arguments, and is the same from then on."""

import pytest
import torch

from pytest_trainguard.memory.traced import forms
from pytest_trainguard.memory.traced.fakecuda import FakeMode
from pytest_trainguard.recorder.tensors import tensors_in

aten = torch.ops.aten


class Asked(FakeMode):
    """A fake mode that counts what it is asked."""

    def __init__(self):
        super().__init__()
        self.questions = 0

    def dispatch(self, func, types, args=(), kwargs=None):
        self.questions += 1
        return super().dispatch(func, types, args, kwargs)


@pytest.fixture
def mode():
    return Asked()


@pytest.fixture
def known(mode):
    return forms.Forms(mode)


def _fake(mode, *shape, **options):
    with mode:
        return torch.empty(*shape, **options)


def _described(value):
    if isinstance(value, torch.Tensor):
        size = value.untyped_storage().nbytes()
        return (type(value), value.shape, value.stride(), value.storage_offset(), value.dtype, value.device, size)
    return [type(value), *map(_described, value)] if isinstance(value, tuple | list) else value


def _matrix(mode):
    return _fake(mode, 6, 8)


CALLS = {
    "elementwise": lambda m: (aten.exp.default, (_matrix(m),), {}),
    "with a number": lambda m: (aten.mul.Tensor, (_matrix(m), 2.0), {}),
    "of a transposed one": lambda m: (aten.add.Tensor, (_matrix(m).t(), _matrix(m).t()), {}),
    "of a part": lambda m: (aten.relu.default, (_matrix(m)[1:, 2:5],), {}),
    "in another type": lambda m: (aten._to_copy.default, (_matrix(m),), {"dtype": torch.bfloat16}),
    "in another layout": lambda m: (aten.clone.default, (_fake(m, 2, 3, 4, 4),),
                                    {"memory_format": torch.channels_last}),
    "a factory": lambda m: (aten.new_zeros.default, (_matrix(m), [3, 4]), {"dtype": torch.int64}),
    "a reduction": lambda m: (aten.sum.dim_IntList, (_matrix(m), [1], True), {}),
    "several": lambda m: (aten.native_layer_norm.default, (_matrix(m), [8], _fake(m, 8), _fake(m, 8), 1e-5), {}),
    "with none of some": lambda m: (aten.native_layer_norm_backward.default,
                                    (_matrix(m), _matrix(m), [8], _fake(m, 6, 1), _fake(m, 6, 1), _fake(m, 8), None,
                                     [True, True, False]), {}),
    "a list": lambda m: (aten._foreach_mul.Scalar, ([_matrix(m), _fake(m, 3)], 2.0), {}),
    "indexed": lambda m: (aten.index.Tensor, (_matrix(m), [None, _fake(m, 5, dtype=torch.int64)]), {}),
    "joined": lambda m: (aten.cat.default, ([_matrix(m), _matrix(m)], 1), {}),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_second_time_the_same_comes_of_it_and_nothing_is_asked(mode, known, call):
    func, args, kwargs = call(mode)
    with mode:
        wanted = func(*args, **kwargs)
    first = known.run(func, args, kwargs)
    func, args, kwargs = call(mode)  # other tensors of the same form
    asked = mode.questions
    again = known.run(func, args, kwargs)
    assert mode.questions == asked
    assert _described(first) == _described(wanted)
    assert _described(again) == _described(wanted)
    memory = [tensor.untyped_storage()._cdata for tensor in (*tensors_in(first), *tensors_in(again), *tensors_in(args))]
    assert len(set(memory)) == len(memory)  # each has its own


def test_in_place_it_is_the_argument_itself(mode, known):
    rows, other, places = _matrix(mode), _matrix(mode), _fake(mode, 6, 8, dtype=torch.int64)
    for func, more in ((aten.add_.Tensor, (other,)), (aten.scatter_add_.default, (0, places, other))):
        assert known.run(func, (rows, *more), {}) is rows
        asked = mode.questions
        assert known.run(func, (other, *more), {}) is other
        assert mode.questions == asked
    assert known.run(aten._foreach_mul_.Scalar, ([rows, other], 2.0), {}) is None
    assert known.run(aten._foreach_mul_.Scalar, ([other, rows], 2.0), {}) is None


def test_numbers_that_are_equal_and_of_other_types_are_other_forms(mode, known):
    rows, whole = _matrix(mode), {"dtype": None}
    for number, kind in ((1, torch.int64), (1.0, torch.float32), (True, torch.bool)) * 2:
        assert known.run(aten.full_like.default, (rows, number), whole).dtype is torch.float32
        assert known.run(aten.full.default, ([2], number), {"device": "cpu"} | whole).dtype is kind


def test_other_shapes_and_other_defaults_are_asked_anew(mode, known):
    assert known.run(aten.exp.default, (_fake(mode, 3, 4),), {}).shape == (3, 4)
    assert known.run(aten.exp.default, (_fake(mode, 4, 3),), {}).shape == (4, 3)
    rows = _fake(mode, 2, dtype=torch.int64)
    assert known.run(aten.div.Tensor, (rows, rows), {}).dtype is torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert known.run(aten.div.Tensor, (rows, rows), {}).dtype is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_shares_memory_or_looks_at_values_is_asked_every_time(mode, known):
    rows = _matrix(mode)
    with mode:
        constant = torch.tensor([[1.0]])
    for func, args in (
        (aten.split.Tensor, (rows, 3)),  # views
        (aten._unsafe_view.default, (rows.t(), [8, 6, 1])),
        (aten.exp.default, (constant,)),  # its value may be known, and then that of the result
        (aten.mul.Tensor, (rows, torch.tensor(2.0))),  # a tensor in memory
        (aten.resize_.default, (_matrix(mode), [2, 2])),
        (aten.unsqueeze_.default, (_matrix(mode), 0)),
    ):
        known.run(func, args, {})
        before = len(known._known)
        asked = mode.questions
        known.run(func, args, {})
        assert len(known._known) == before == 0, func
        assert mode.questions > asked or func is aten._unsafe_view.default, func


def test_a_shape_that_depends_on_values_is_refused_every_time(mode, known):
    rows, mask = _matrix(mode), _fake(mode, 6, dtype=torch.bool)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            known.run(aten.index.Tensor, (rows, [mask]), {})
        with pytest.raises(RuntimeError):
            known.run(aten.nonzero.default, (mask,), {})
        with pytest.raises(RuntimeError):
            known.run(aten.add.Tensor, (rows, _fake(mode, 5)), {})
    assert not known._known


def test_as_many_forms_are_kept_as_fit(mode, known, monkeypatch):
    monkeypatch.setattr(forms, "MOST_KNOWN", 3)
    for size in range(1, 9):
        assert known.run(aten.exp.default, (_fake(mode, size),), {}).shape == (size,)
        assert len(known._known) <= 3
