"""Settings types seen from outside: their fields, the ranges they state, and the role that a field plays.

Understands pydantic models, attrs classes, dataclasses (ranges as `typing.Annotated[int, annotated_types.Ge(1)]` or as
`field(metadata={"ge": 1, "le": 128})`, in any of the spellings in `SPELLINGS`) and plain mappings (which state no
ranges). Nothing here validates: whether a program rejects a bad value is what the harness wants to find out.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["ROLES", "Field", "build", "fields_of", "merge", "role", "value_at"]

# The parts that a setting can play in a case, and the names by which a field is recognised without being told.
ROLES: dict[str, tuple[str, ...]] = {
    "batch_size": (
        "batch_size",
        "train_batch_size",
        "per_device_train_batch_size",
        "micro_batch_size",
        "per_device_batch_size",
        "per_gpu_train_batch_size",
        "device_batch_size",
        "train_micro_batch_size",
        "mini_batch_size",
        "batchsize",
    ),
    "learning_rate": ("learning_rate", "lr", "base_lr", "init_lr", "initial_lr", "peak_lr", "max_lr"),
    "max_length": (
        "max_length",
        "max_seq_length",
        "max_seq_len",
        "block_size",
        "sequence_length",
        "max_len",
        "seq_len",
        "seq_length",
        "context_length",
        "n_positions",
        "model_max_length",
        "max_sequence_length",
    ),
    "model": ("model", "model_path", "model_name_or_path", "base_model", "base_model_path", "model_name"),
    "workers": ("num_workers", "dataloader_num_workers", "workers"),
    "hang_timeout": ("hang_timeout", "step_timeout", "watchdog_timeout"),
    "save_every": (
        "save_every",
        "save_steps",
        "checkpoint_every",
        "save_interval",
        "checkpointing_steps",
        "ckpt_every",
        "checkpoint_steps",
        "checkpoint_interval",
        "ckpt_interval",
        "ckpt_steps",
        "save_every_n_steps",
        "save_every_steps",
        "every_n_train_steps",
        "save_freq",
        "checkpoint_freq",
    ),
    "eval_every": (
        "eval_every",
        "eval_steps",
        "eval_interval",
        "validate_every",
        "val_check_interval",
        "evaluate_every",
        "val_every",
        "val_interval",
        "validation_interval",
        "eval_freq",
        "eval_every_steps",
        "eval_every_n_steps",
    ),
    "validation_fraction": (
        "validation_fraction",
        "validation_split",
        "val_fraction",
        "val_split",
        "eval_fraction",
        "val_ratio",
        "validation_ratio",
        "valid_fraction",
        "valid_split",
        "holdout_fraction",
    ),
    "validation_data": (
        "validation_data",
        "validation_file",
        "val_data",
        "eval_data",
        "eval_file",
        "dev_data",
        "val_file",
        "valid_data",
        "valid_file",
        "dev_file",
    ),
    "accumulation": (
        "gradient_accumulation",
        "gradient_accumulation_steps",
        "accumulate_grad_batches",
        "grad_accumulation_steps",
        "grad_accumulation",
        "grad_accum_steps",
        "grad_accum",
        "accumulation_steps",
        "accum_steps",
        "accum_iter",
    ),
    "epochs": ("epochs", "max_epochs", "num_epochs", "num_train_epochs", "n_epochs", "total_epochs"),
    "precision": ("precision", "mixed_precision", "dtype"),
    "device": ("device", "accelerator"),
    "hidden_size": ("hidden_size", "hidden_dim", "hidden", "d_model", "n_embd", "embed_dim", "hidden_units"),
    "layers": ("layers", "num_layers", "num_hidden_layers", "n_layer", "n_layers"),
    "adapter": ("adapter", "adapter_path", "lora_path", "peft_path", "adapter_name_or_path"),
    "checkpointing": ("gradient_checkpointing", "checkpointing", "activation_checkpointing", "checkpoint_activations"),
    "optimizer": ("optim", "optimizer"),
    "fused": ("fused", "fused_optimizer"),
}
_KINDS = {bool: "bool", int: "int", float: "float", str: "str"}
BOUNDS = ("ge", "gt", "le", "lt", "multiple_of")
# How people write the bounds of a range in a field's metadata; both may be in it.
SPELLINGS = {
    **{name: name for name in BOUNDS},
    **dict.fromkeys(("min", "minimum", "min_value", "low", "lower", "lower_bound"), "ge"),
    **dict.fromkeys(("max", "maximum", "max_value", "high", "upper", "upper_bound"), "le"),
    "exclusive_minimum": "gt",
    "exclusive_maximum": "lt",
}
PAIRS = ("bounds", "range", "limits", "interval")  # (lowest, highest), both in it
COMPARED = {">=": "ge", ">": "gt", "<=": "le", "<": "lt"}  # as the validators of attrs write it


@dataclass(frozen=True)
class Field:
    """One setting, as its type states it.

    Attributes:
        path: the name; dotted where settings are nested.
        kind: `int`, `float`, `bool`, `str`, `choice`, or `other` for what the harness leaves alone.
        bounds: of `ge`, `gt`, `le`, `lt`, `multiple_of` those that are stated.
        choices: the values of a Literal or an Enum.
        optional: None is among its values.
        default: where it has one that can be written as JSON.
    """

    path: str
    kind: str
    bounds: dict[str, float] = dataclasses.field(default_factory=dict)
    choices: tuple[object, ...] = ()
    optional: bool = False
    default: object = None

    @property
    def range(self) -> str:
        """The range in words: `1 ≤ value ≤ 128`, `one of 'a', 'b'`, or nothing."""
        if self.choices:
            return "one of " + ", ".join(repr(choice) for choice in self.choices)
        low = next((f"{self.bounds[b]:g} {s} " for b, s in (("ge", "≤"), ("gt", "<")) if b in self.bounds), "")
        high = next((f" {s} {self.bounds[b]:g}" for b, s in (("le", "≤"), ("lt", "<")) if b in self.bounds), "")
        return f"{low}value{high}" if low or high else ""

    def allows(self, value: float) -> bool:
        """Whether a number lies within the bounds that are stated."""
        bounds, inf = self.bounds, float("inf")
        within = bounds.get("ge", -inf) <= value <= bounds.get("le", inf)
        return within and bounds.get("gt", -inf) < value < bounds.get("lt", inf)


def fields_of(config: object) -> list[Field]:
    """The fields that a settings type (or mapping) states, nested ones by dotted path."""
    return list(_fields(config, ""))


def _fields(config: object, prefix: str) -> Iterator[Field]:
    if isinstance(config, Mapping):
        for name, value in config.items():
            if isinstance(value, Mapping):
                yield from _fields(value, f"{prefix}{name}.")
            else:
                kind = type(value).__name__ if type(value) in (bool, int, float, str) else "other"
                yield Field(f"{prefix}{name}", kind, default=_plain(value))
    elif hasattr(config, "model_fields"):  # a pydantic model; pydantic itself need not be imported for this
        for name, info in config.model_fields.items():
            yield from _field(prefix + name, info.annotation, list(info.metadata), info.default)
    elif dataclasses.is_dataclass(config):
        hints = typing.get_type_hints(config, include_extras=True)
        for item in dataclasses.fields(config):
            stated = [_read_metadata(item.metadata)]
            yield from _field(prefix + item.name, hints[item.name], stated, item.default)
    elif hasattr(config, "__attrs_attrs__"):
        hints = typing.get_type_hints(config, include_extras=True)
        for item in config.__attrs_attrs__:
            stated = [_read_metadata(item.metadata), *_read_validators(item.validator)]
            yield from _field(prefix + item.name, hints.get(item.name, item.type), stated, item.default)


def _read_metadata(metadata: Mapping[Any, object]) -> types.SimpleNamespace:
    """What a field's metadata states of its range and choices, in the terms of annotated-types."""
    found = {bound: metadata[name] for name, bound in SPELLINGS.items() if name in metadata}
    for name in PAIRS:
        pair = metadata.get(name)
        if isinstance(pair, list | tuple) and len(pair) == 2:
            found |= {bound: value for bound, value in zip(("ge", "le"), pair, strict=True) if value is not None}
    choices = metadata.get("choices")
    return types.SimpleNamespace(**found, choices=tuple(choices) if isinstance(choices, list | tuple) else ())


def _read_validators(validator: Any) -> Iterator[types.SimpleNamespace]:
    """The same of an attrs field's validators: a comparison, one of several values, or several of these."""
    for inner in getattr(validator, "_validators", ()):
        yield from _read_validators(inner)
    operation, options = getattr(validator, "compare_op", None), getattr(validator, "options", ())
    if operation in COMPARED:
        yield types.SimpleNamespace(**{COMPARED[operation]: validator.bound}, choices=())
    if isinstance(options, list | tuple | set | frozenset) and options:
        yield types.SimpleNamespace(choices=tuple(options))


def _field(path: str, annotation: object, metadata: Sequence[object], default: object) -> Iterator[Field]:
    optional = False
    while True:
        origin = typing.get_origin(annotation)
        if origin is typing.Annotated:
            metadata = [*metadata, *typing.get_args(annotation)[1:]]
            annotation = typing.get_args(annotation)[0]
        elif origin in (typing.Union, types.UnionType):
            inner = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
            optional = optional or len(inner) < len(typing.get_args(annotation))
            if len(inner) != 1:
                annotation = None
                break
            annotation = inner[0]
        else:
            break
    if hasattr(annotation, "model_fields") or (isinstance(annotation, type) and dataclasses.is_dataclass(annotation)):
        yield from _fields(annotation, f"{path}.")
        return
    choices: tuple[object, ...] = ()
    if typing.get_origin(annotation) is typing.Literal:
        choices = typing.get_args(annotation)
    elif isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        choices = tuple(member.value for member in annotation)
    stated = (getattr(item, "choices", ()) for item in metadata)
    choices = choices or next((found for found in stated if isinstance(found, tuple) and found), ())
    kind = "choice" if choices else next((name for one, name in _KINDS.items() if annotation is one), "other")
    yield Field(path, kind, _bounds(metadata), choices, optional, _plain(default))


def _bounds(metadata: Sequence[object]) -> dict[str, float]:
    """The bounds among annotated-types objects, groups of them (`Interval`), and pydantic's own metadata."""
    found: dict[str, float] = {}
    # pydantic's `Field(ge=1)`, where the annotation is a dataclass's own, holds them one level down.
    flat = [inner for item in metadata for inner in [item, *getattr(item, "metadata", ())]]
    for item in flat:
        for bound in BOUNDS:
            value = getattr(item, bound, None)
            if isinstance(value, int | float) and not isinstance(value, bool):
                found[bound] = value
    return found


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, bool | int | float | str) else None


def role(name: str, fields: Sequence[Field], told: Mapping[str, str]) -> Field | None:
    """The field that plays a role: the one the trainer names, else one whose name is known for it."""
    wanted = (told[name],) if name in told else ROLES.get(name, ())
    for path in wanted:
        for field in fields:
            if field.path == path or (name not in told and field.path.rpartition(".")[2] == path):
                return field
    return None


def build(config: Any, values: Mapping[str, object]) -> Any:
    """The program's own settings object from plain values; a plain dict where it has no type.

    Raises:
        Exception: whatever the type raises for values that it rejects; TypeError for a name it does not know.
    """
    if config is None or isinstance(config, Mapping):
        return merge(config or {}, values)
    if hasattr(config, "model_fields"):
        return config(**values)
    hints = typing.get_type_hints(config)
    nested = {
        name: build(hints[name], value)
        for name, value in values.items()
        if isinstance(value, Mapping) and dataclasses.is_dataclass(hints.get(name))
    }
    return config(**{**values, **nested})


def value_at(values: Mapping[str, object], path: str) -> object:
    """The value at a dotted path; None where there is none."""
    found: object = values
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def merge(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """`base` with the values of `over`, nested mappings merged and dotted names spread out."""
    merged = dict(base)
    for name, value in over.items():
        first, dot, rest = name.partition(".")
        if dot:
            first, value = first, {rest: value}
        below = merged.get(first)
        if isinstance(value, Mapping):
            value = merge(below if isinstance(below, Mapping) else {}, value)
        merged[first] = value
    return merged
