"""Pretrained weights and tokenizers: found without waiting for a network, looked over, loaded quietly."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.common import checkpoint, files
from trainers.common.errors import InputError, reason, show

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HUB_SECONDS = 1.0
"""In which the model hub must answer at all."""
LARGEST_WEIGHT = 1e5
"""Trained weights stay far below; a flipped bit in an exponent makes one of 1e38."""
CHARACTERS_PER_TOKEN = 32
"""Text is cut to so many characters a token of ``max_length`` before it is tokenised."""


def is_local(name: str) -> bool:
    """Whether a model's name can only be a path here: hub names are ``name`` or ``owner/name``."""
    parts = name.split("/")
    return (
        name.startswith((".", "~", os.sep)) or len(parts) > 2 or name.endswith(os.sep) or os.path.isabs(name)
        or os.path.lexists(name) or (len(parts) == 2 and os.path.isdir(parts[0]))
    )  # fmt: skip


def require_local(name: str) -> None:
    """Reject a path that is not there, without looking further.

    Raises:
        InputError: ``name`` is a path, and no folder.
    """
    if "\0" in name or not name.strip():
        raise InputError(f"model {name!r}: not a name")
    if is_local(name) and not os.path.isdir(os.path.expanduser(name)):
        raise InputError(f"model {show(name)}: no such folder")


def locate(name: str) -> Path:
    """The folder with a model's files: a path as it is, a hub name from the local cache or from the hub.

    Raises:
        InputError: not there; or the hub does not answer within `HUB_SECONDS` or knows no such model.
    """
    require_local(name)
    if is_local(name):
        return Path(name).expanduser()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except HFValidationError:
        raise InputError(f"model {show(name)}: no such folder, and no name of a model") from None
    except LocalEntryNotFoundError:
        pass
    if not _hub_answers():
        raise InputError(
            f"model {show(name)}: no such folder, not in the local cache, and the model hub does not answer"
        )
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]))
    except Exception as error:  # httpx's, the hub's, the disk's: a dozen unrelated types, all meaning the same here
        raise InputError(f"model {show(name)}: {' '.join(str(error).split())[:300]}") from None


def _hub_answers() -> bool:
    """One request, in a thread: looking a host up has no time limit of its own."""
    from huggingface_hub import constants, get_session

    answers: list[Any] = []

    def ask() -> None:
        with contextlib.suppress(Exception):  # no network, a refused connection, HF_HUB_OFFLINE: no answer
            answers.append(get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS))

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    return bool(answers)


def require_sound(folder: Path) -> None:
    """Look a model's files over without loading them.

    A checkpoint of these programs is held against its manifest, a file of the hub's cache against the
    checksum that is its name; any other weights at least have a whole header and the size that it says.

    Raises:
        InputError: naming the file.
    """
    if (folder / checkpoint.MANIFEST).exists():
        try:
            checkpoint.verify(folder)
        except checkpoint.Damaged as damage:
            raise InputError(f"model {show(folder)} is damaged: {damage}") from None
    from safetensors import SafetensorError, safe_open

    try:
        value = json.loads((folder / "config.json").read_bytes())
    except OSError as error:
        raise InputError(f"model {show(folder / 'config.json')}: {reason(error)}") from None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"model {show(folder / 'config.json')}: bad JSON")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise InputError(f"model {show(folder)}: no .safetensors file in it")
    for path in weights:
        try:
            with safe_open(str(path), "np") as stored:
                stored.keys()
            blob = path.resolve().name
            if re.fullmatch("[0-9a-f]{64}", blob) and files.sha256(path) != blob:
                raise InputError(f"model {show(path)}: checksum differs")
        except (SafetensorError, OSError) as error:
            raise InputError(f"model {show(path)}: {error}") from None


def require_sane(folder: Path, model: PreTrainedModel) -> None:
    """Look at every weight that was loaded from a folder.

    Raises:
        InputError: one holds NaN, infinity or a value that no training makes; its file is named.
    """
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool((tensor.abs() < LARGEST_WEIGHT).all()):  # NaN is not less either
            where = show(_file_of(folder, key))
            raise InputError(
                f"model {where}: weight {key} holds NaN, infinity or a value over {LARGEST_WEIGHT:g}: damaged?"
            )


def _file_of(folder: Path, key: str) -> Path:
    """The file in which a weight stands; names in files may lack the head's prefix. The folder where none has it."""
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(str(path), "np") as stored:
            if any(key == name or key.endswith(f".{name}") for name in stored.keys()):  # noqa: SIM118
                return path
    return folder


def pad_with_something(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Where a tokenizer has no padding token, its end token is that."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
        model.config.pad_token_id = tokenizer.pad_token_id


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """A tokenizer as it was saved."""
    from transformers import AutoTokenizer

    with quiet():
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and notes from transformers inside: the program says what matters itself."""
    from transformers.utils import logging as notes

    verbosity, bars = notes.get_verbosity(), notes.is_progress_bar_enabled()
    notes.set_verbosity_error()
    notes.disable_progress_bar()
    try:
        yield
    finally:
        notes.set_verbosity(verbosity)
        if bars:
            notes.enable_progress_bar()


def require_fit(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, max_length: int) -> None:
    """Tokenizer, model and ``max_length`` must agree.

    Raises:
        InputError: the vocabulary is larger than the embedding, or there are fewer positions than
            ``max_length``.
    """
    embedded = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > embedded:
        raise InputError(f"tokenizer has {len(tokenizer)} tokens, the model's embedding {embedded}: no pair")
    if tokenizer.pad_token is None:
        raise InputError("tokenizer has no padding token and no end token")
    positions = getattr(model.config, "max_position_embeddings", None)
    roberta_like = model.config.model_type in ("roberta", "xlm-roberta", "camembert", "longformer")
    if positions is not None and max_length > positions - 2 * roberta_like:
        raise InputError(
            f"max_length = {max_length}: the model has positions for {positions - 2 * roberta_like} tokens"
        )
