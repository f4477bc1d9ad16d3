"""Base model and LoRA adapter: found, looked over, put together, saved, merged.

An adapter is nothing without its base. So it is kept with the base's name and fingerprint (`BASE_FILE`), and one of
another base is rejected, naming both.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trainers.chat import tiny_llama
from trainers.chat.settings import Settings
from trainers.common import checkpoint, files, pretrained
from trainers.common.errors import InputError, reason, show
from trainers.common.pretrained import quiet

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ADAPTER = "adapter"
"""A checkpoint's folder that peft reads: ``PeftModel.from_pretrained(base, checkpoint / "adapter")``."""
ADAPTER_WEIGHTS, ADAPTER_CONFIG, BASE_FILE = "adapter_model.safetensors", "adapter_config.json", "base.json"


class Base(NamedTuple):
    """A base model.

    Attributes:
        name: its folder, its name on the hub, or the name of the one that is made here.
        folder: where its files are; None where it is made here.
        fingerprint: a SHA-256 of configuration, tokenizer and weights.
    """

    name: str
    folder: Path | None
    fingerprint: str


# ---- the base


def identify(chosen: Settings) -> Base:
    """The base that the settings name, its files looked over; torch is not needed.

    Raises:
        InputError: not there, or a file of it is damaged.
    """
    if chosen.model is None:
        name = tiny_llama.name(chosen.hidden_size, chosen.layers, chosen.heads)
        return Base(name, None, hashlib.sha256(f"{name} {tiny_llama.VERSION}".encode()).hexdigest())
    folder = pretrained.locate(chosen.model)
    pretrained.require_sound(folder)
    name = str(folder.resolve()) if pretrained.is_local(chosen.model) else chosen.model
    digest = hashlib.sha256()
    try:
        for path in sorted({*folder.glob("*.safetensors"), *folder.glob("*.json"), *folder.glob("*.jinja")}):
            blob = path.resolve().name  # in the hub's cache a file's name is its checksum, which was just checked
            known = path.suffix == ".safetensors" and re.fullmatch("[0-9a-f]{64}", blob)
            digest.update(f"{path.name} {blob if known else files.sha256(path)}\n".encode())
    except OSError as error:
        raise InputError(f"model {show(folder)}: {reason(error)}") from None
    return Base(name, folder, digest.hexdigest())


def require_base(owner: str, saved: Any, base: Base) -> None:
    """Hold the base that an adapter was trained on against the one it is to be put on.

    Args:
        owner: the adapter or checkpoint, for the message.
        saved: what stands in its `BASE_FILE`.
        base: of this run.

    Raises:
        InputError: they differ, naming both.
    """
    saved = saved if isinstance(saved, dict) else {}
    if saved.get("fingerprint") != base.fingerprint:
        theirs = f"{saved.get('name')!r} (fingerprint {str(saved.get('fingerprint'))[:12]})"
        raise InputError(
            f"{owner} is an adapter of the base model {theirs}, not of {base.name!r} "
            f"(fingerprint {base.fingerprint[:12]})"
        )


def load_tokenizer(base: Base) -> PreTrainedTokenizerBase:
    """The base's tokenizer.

    Raises:
        InputError: a file is missing or not what it should be; it has nothing to pad with.
    """
    if base.folder is None:
        return tiny_llama.tokenizer()
    from transformers import AutoTokenizer

    try:
        with quiet():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base.folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:  # what transformers raises for odd files
        raise InputError(f"model {show(base.name)}: its tokenizer: {' '.join(str(error).split())[:300]}") from None
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise InputError(f"model {show(base.name)}: its tokenizer has no padding token and no end token")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(
    base: Base, chosen: Settings, tokenizer: PreTrainedTokenizerBase, device: torch.device
) -> PreTrainedModel:
    """The base with its weights, fit for its tokenizer and ``max_length``.

    Raises:
        InputError: a weight is missing, of another shape or not sane; the vocabulary is larger than the embedding;
            there are fewer positions than ``max_length``.
    """
    if base.folder is None:
        model = tiny_llama.model(
            len(tokenizer), hidden_size=chosen.hidden_size, layers=chosen.layers, heads=chosen.heads
        )
        model.to(_number_type(chosen))
    else:
        model = _load(base, chosen, device)
    embedded = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > embedded:
        raise InputError(
            f"model {show(base.name)}: its tokenizer has {len(tokenizer)} tokens, its embedding {embedded}: no pair"
        )
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and chosen.max_length > positions:
        raise InputError(f"max_length = {chosen.max_length}: the model has positions for {positions} tokens")
    return model


def _load(base: Base, chosen: Settings, device: torch.device) -> PreTrainedModel:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"quantization_config": _four_bits(device)} if chosen.quantization == "4bit" else {}
    name = show(base.name)
    try:
        with quiet():
            model, info = AutoModelForCausalLM.from_pretrained(
                base.folder, local_files_only=True, use_safetensors=True, dtype=_number_type(chosen),
                output_loading_info=True, ignore_mismatched_sizes=True, **options,
            )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, ImportError, SafetensorError) as error:
        raise InputError(f"model {name}: {' '.join(str(error).split())[:300]}") from None
    lost = sorted(
        [*info["missing_keys"], *(key if isinstance(key, str) else key[0] for key in info["mismatched_keys"])]
    )
    if lost:
        raise InputError(f"model {name}: {len(lost)} weights missing or of another shape, first {lost[0]}")
    pretrained.require_sane(base.folder, model)
    return model  # type: ignore[no-any-return, unused-ignore]


def _number_type(chosen: Settings) -> torch.dtype:
    """Frozen weights are held in the number type that they are used in; the adapter's in fp32."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16}[chosen.precision]


def require_there(values: Mapping[str, Any]) -> None:
    """Reject settings that name what is not there: a model's folder, an adapter's, bitsandbytes. Torch is not needed.

    Raises:
        InputError: naming it.
    """
    if isinstance(values.get("model"), str):
        pretrained.require_local(values["model"])
    if isinstance(values.get("adapter"), str) and not Path(values["adapter"]).expanduser().is_dir():
        raise InputError(f"adapter {show(values['adapter'])}: no such folder")
    if values.get("quantization") == "4bit" and find_spec("bitsandbytes") is None:
        raise InputError("quantization = 4bit: needs bitsandbytes, which is not installed (pip install bitsandbytes)")


def _four_bits(device: torch.device) -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    if device.type != "cuda":
        raise InputError("quantization = 4bit: needs a CUDA device, and none is visible")
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # type: ignore[no-untyped-call, unused-ignore]  # fmt: skip


# ---- the adapter


def with_adapter(model: PreTrainedModel, chosen: Settings, base: Base) -> PeftModel:
    """The base with a new LoRA adapter, whose weights change nothing yet.

    Raises:
        InputError: the base has no such modules.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if chosen.quantization == "4bit":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=chosen.gradient_checkpointing)
    elif chosen.gradient_checkpointing:
        model.enable_input_require_grads()
    config = LoraConfig(
        r=chosen.lora_rank, lora_alpha=chosen.lora_alpha, lora_dropout=chosen.lora_dropout,
        target_modules=chosen.targets, task_type="CAUSAL_LM", base_model_name_or_path=base.name,
    )  # fmt: skip
    model.name_or_path = base.name  # what peft writes into the adapter's configuration
    try:
        with warnings.catch_warnings():  # peft asks transformers by an attribute's old name
            warnings.simplefilter("ignore", FutureWarning)
            adapted: PeftModel = get_peft_model(model, config)
    except ValueError as error:
        raise InputError(f"target_modules = {chosen.target_modules}: {' '.join(str(error).split())[:300]}") from None
    return adapted


def _weights_of(model: PeftModel) -> dict[str, torch.Tensor]:
    from peft import get_peft_model_state_dict

    return get_peft_model_state_dict(model, save_embedding_layers=False)  # type: ignore[no-any-return, unused-ignore]


def save_adapter(folder: Path, model: PeftModel, base: Base) -> None:
    """Write the adapter as peft reads it, with its base's name and fingerprint beside it."""
    from safetensors.torch import save_file

    folder.mkdir()
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in _weights_of(model).items()}
    with checkpoint.safetensors_errors():
        save_file(weights, str(folder / ADAPTER_WEIGHTS), metadata={"format": "pt"})
    config = model.peft_config["default"]
    training, config.inference_mode = config.inference_mode, True
    config.save_pretrained(str(folder))
    config.inference_mode = training
    about = {"name": base.name, "fingerprint": base.fingerprint}
    (folder / BASE_FILE).write_text(json.dumps(about), encoding="utf-8")


def load_adapter(folder: Path, model: PeftModel) -> None:
    """Read an adapter's weights into a model that has one of the same shape.

    Raises:
        InputError: the file is unreadable, or of another shape: naming the first weight that differs.
    """
    from peft import set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / ADAPTER_WEIGHTS
    try:
        stored = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise InputError(f"adapter {show(path)}: {error}") from None
    wanted = _weights_of(model)
    for name in sorted({*wanted, *stored}):
        there, here = (tuple(at[name].shape) if name in at else None for at in (stored, wanted))
        if there != here:
            raise InputError(f"adapter {show(path)} is of another model: {name} has shape {there} there, {here} here")
    set_peft_model_state_dict(model, stored)


def check_adapter(folder: Path, chosen: Settings, base: Base) -> None:
    """Reject an adapter that cannot be gone on from, before torch is imported.

    Raises:
        InputError: it is not there or unreadable; of another kind, rank or scale, or of another base, naming both.
    """
    name = f"adapter {show(folder)}"
    config = _json(folder / ADAPTER_CONFIG, name)
    if config.get("peft_type") != "LORA":
        raise InputError(f"{name}: of the kind {config.get('peft_type')!r}, not LORA")
    for field, setting in (("r", "lora_rank"), ("lora_alpha", "lora_alpha")):
        if config.get(field) != getattr(chosen, setting):
            raise InputError(f"{name}: its {field} is {config.get(field)!r}, {setting} = {getattr(chosen, setting)}")
    if (folder / BASE_FILE).exists():
        require_base(name, _json(folder / BASE_FILE, name), base)
    elif config.get("base_model_name_or_path") not in (None, "", base.name, chosen.model):
        theirs = config.get("base_model_name_or_path")
        raise InputError(f"{name} is an adapter of the base model {theirs!r}, not of {base.name!r}")


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{name}: {path.name}: {reason(error)}") from None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{name}: {path.name}: bad JSON")
    return value


def trained_of(model: PeftModel) -> nn.ParameterList:
    """The weights that change: the adapter's."""
    from torch import nn

    return nn.ParameterList([parameter for parameter in model.parameters() if parameter.requires_grad])


# ---- for those who use what was trained


def merged(model: PeftModel) -> PreTrainedModel:
    """Base and adapter as one model; the one with the adapter is of no use afterwards."""
    return model.merge_and_unload()  # type: ignore[no-any-return, operator, unused-ignore]


def save_model(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write a model as transformers reads it, whole or not at all; one that is there is replaced.

    Raises:
        TrainingFailed: the disk does not take it.
    """
    temporary = folder.with_name(files.TEMPORARY + folder.name)
    with files.saving(folder, temporary), checkpoint.safetensors_errors(), quiet():
        files.remove(temporary)
        temporary.mkdir()
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        for path in temporary.iterdir():
            files.sync_file(path)
        files.sync_folder(temporary)
        files.remove(folder)
        temporary.rename(folder)
        files.sync_folder(folder.parent)
