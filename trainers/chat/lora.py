"""Fine-tunes a chat model with LoRA on rows of messages.

    python -m trainers.chat.lora --output-dir runs/lora

trains a tiny Llama on syllogisms (`trainers.chat.syllogisms`), with no network and no GPU; ``--model`` and
``--data`` take its place. From top to bottom: what is checked before a model is loaded, the run.
`trainers.chat.settings` has the settings, `trainers.chat.trainer` the training, `trainers.common.program` the
command line.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.chat import adapter
from trainers.chat.adapter import ADAPTER, Base
from trainers.chat.resume import Begun, Position, begin
from trainers.chat.rows import ChatFile, Syllogisms
from trainers.chat.settings import Settings
from trainers.chat.tokens import Encoder
from trainers.common import checkpoint, files, progress, resume
from trainers.common.errors import InputError, TrainingFailed, show
from trainers.common.optimization import pick_device
from trainers.common.process import Run
from trainers.common.program import PathLike, Places, Program
from trainers.common.progress import Record
from trainers.common.rows import Split, check_path, split_by_content

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from trainers.chat.trainer import ChatTrainer

PRELOAD = (
    "torch", "torch._dynamo", "torch.utils.data", "tqdm", "tokenizers", "jinja2", "safetensors.torch", "accelerate",
    "peft", "transformers.models.auto.tokenization_auto", "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama", "transformers.trainer",
    "trainers.chat.trainer", "trainers.chat.preload",
)  # fmt: skip
"""What a run imports late. A server from which many runs are forked imports these once."""

BASE_FOLDER, MERGED_FOLDER = "base", "merged"


# ---- before a model is loaded


def check_data(path: PathLike) -> Path:
    """A path that is worth opening: a ``.jsonl`` file.

    Raises:
        InputError: it is missing, a folder, a circular link, something not a plain file, or has another suffix.
    """
    checked = check_path(path)
    if checked.is_dir():
        raise InputError(f"data {show(path)}: a folder where a .jsonl file belongs")
    return checked


def open_rows(run: Run, path: Path | None, chosen: Settings) -> tuple[ChatFile | Syllogisms, Split]:
    """The rows, all of them checked, and which of them are held out.

    Raises:
        InputError: the rows are not as they must be, one line a fault.
    """
    run.stage = "reading the data"
    table: ChatFile | Syllogisms
    if path is None:
        table = Syllogisms(chosen.syllogism_level, chosen.syllogism_rows, chosen.data_seed)
    else:
        table = ChatFile(path, lambda line: setattr(run, "stage", f"reading the data, line {line}"))
    split = split_by_content(table, chosen.validation_fraction)
    run.say(f"{len(split.train)} rows to train on, {len(split.validation)} to validate on")
    if not split.validation:
        run.say("validation is skipped: no row is held out")
    return table, split


# ---- the run


def train(run: Run, chosen: Settings, places: Places) -> None:
    """Everything from the data to the merged model. The output folder's lock is held."""
    run.stage = "looking for the model"
    base = adapter.identify(chosen)
    if chosen.adapter is not None:
        adapter.check_adapter(Path(chosen.adapter).expanduser(), chosen, base)
    table, split = open_rows(run, places.data, chosen)
    data = {"fingerprint": table.fingerprint, "seed": chosen.seed, "held_out": chosen.validation_fraction}
    begun = begin(run, chosen, places, base, len(split.train), data)
    run.status.step = begun.done.step
    if begun.done.step >= begun.plan.last:
        run.say(f"already trained: step {begun.done.step} of {begun.plan.last}, nothing to do")
        if begun.found is not None and begun.found.path.parent.resolve() == places.output_dir.resolve():
            # Its checkpoint may say that it was to go on: with fewer epochs than before, this is its end.
            progress.note_end(places.output_dir, begun.done.step, begun.plan.last)
        if chosen.merge and not (places.output_dir / MERGED_FOLDER).exists():  # ended before it came to that
            tokenizer, model = build(run, chosen, base, begun)
            export(run, places.output_dir, begun.done, model, tokenizer)
        return
    tokenizer, model = build(run, chosen, base, begun)
    encoder = Encoder(tokenizer, chosen.max_length)
    require_template(encoder, table)
    facts = {
        "program": run.program,
        "model": chosen.described(),
        "base": {"name": base.name, "fingerprint": base.fingerprint},
        "data": data,
    }
    from trainers.chat.trainer import ChatTrainer, Task

    task = Task(model, base, encoder, table, split)
    trainer = ChatTrainer(run, chosen, places.output_dir, begun, facts, task)
    accept(run, chosen, places, begun, base, model, tokenizer)
    record = Record(places.output_dir, trainer.numbers, trainer.collapse.events, described(chosen, places, trainer))
    record.write("running", begun.done)
    try:
        trainer.fit()
    finally:
        trainer.bar.close()
    if chosen.merge:
        export(run, places.output_dir, begun.done, model, tokenizer)
    done = begun.done
    if done.rows_truncated:
        run.say(f"{done.rows_truncated} of {done.rows_seen} rows seen were truncated")
    record.write("finished", done)
    run.say(f"finished at step {done.step}; results in {show(places.output_dir)}")


def build(run: Run, chosen: Settings, base: Base, begun: Begun) -> tuple[PreTrainedTokenizerBase, PeftModel]:
    """Tokenizer and model on its device, the adapter new, or as it was saved."""
    run.stage = "importing torch"
    if chosen.num_workers:  # a tokenizer that runs in threads does not survive the fork of a loader worker
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(f"WORLD_SIZE = {os.environ['WORLD_SIZE']}: this program trains in one process, on one GPU")
    device = pick_device(chosen.device, run.say)
    run.stage = "building the model"
    tokenizer = adapter.load_tokenizer(base)
    loaded = adapter.load_base(base, chosen, tokenizer, device)
    checkpoint.seed_random(chosen.seed)
    model = adapter.with_adapter(loaded, chosen, base)
    run.stage = "loading the adapter"
    if begun.found is not None:
        adapter.load_adapter(begun.found.path / ADAPTER, model)
    elif chosen.adapter is not None:
        adapter.load_adapter(Path(chosen.adapter).expanduser(), model)
        run.say(f"going on from the adapter {show(chosen.adapter)}")
    run.stage = f"moving the model to {device}"
    if chosen.quantization == "none":  # the other is where it belongs since it was loaded
        model.to(device)
    return tokenizer, model


def require_template(encoder: Encoder, table: ChatFile | Syllogisms) -> None:
    """The chat template must take every order of roles that there is.

    Raises:
        InputError: it does not, naming a row.
    """
    from jinja2 import TemplateError

    for shape, index in table.shapes.items():
        try:
            encoder(table[index])
        except (TemplateError, TrainingFailed) as error:
            raise InputError(f"row {index + 1} of the data ({', '.join(shape)}): {error}") from None


def accept(
    run: Run,
    chosen: Settings,
    places: Places,
    begun: Begun,
    base: Base,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """From here on the run is accepted, and writes."""
    run.stage = "looking for room"
    output_dir = places.output_dir
    checkpoint.require_room(output_dir, adapter.trained_of(model), chosen.keep_last, run.say)
    files.remove_leftovers(output_dir)
    resume.set_aside(output_dir, begun.done.step, run.say)
    files.write_json(output_dir / "settings.json", chosen.model_dump())
    if base.folder is None:  # else nobody could use its adapters
        import torch

        made_again = adapter.load_base(base, chosen, tokenizer, torch.device("cpu"))  # always the same one
        adapter.save_model(output_dir / BASE_FOLDER, made_again, tokenizer)
    trained = sum(parameter.numel() for parameter in adapter.trained_of(model).parameters())
    run.say(
        f"{base.name}: {trained} of {sum(parameter.numel() for parameter in model.parameters())} parameters are "
        f"trained, steps {begun.done.step + 1} to {begun.plan.last}"
    )


def export(run: Run, output_dir: Path, done: Position, model: PeftModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Base and best adapter (the last, without a validation) as one model."""
    run.stage = "merging"
    folder = output_dir / f"checkpoint-{done.best_step}"
    if not folder.exists():  # no validation; or the best was before, and elsewhere
        folder = output_dir / f"checkpoint-{done.step}"
    adapter.load_adapter(folder / ADAPTER, model)
    adapter.save_model(output_dir / MERGED_FOLDER, adapter.merged(model), tokenizer)
    run.say(f"{folder.name} merged into {show(output_dir / MERGED_FOLDER)}")


def described(chosen: Settings, places: Places, trainer: ChatTrainer) -> dict[str, Any]:
    """What ``training_metadata.json`` says of the run and does not change meanwhile."""
    return {
        **trainer.facts,
        "device": str(trainer.args.device),
        "seed": chosen.seed,
        "last_step": trainer.begun.plan.last,
        "train_rows": len(trainer.task.split.train),
        "validation_rows": len(trainer.task.split.validation),
        "effective_batch_size": chosen.effective_batch_size,
        "source": show(places.data) if places.data else "syllogisms",
    }


PROGRAM = Program(
    "trainers.chat.lora",
    (__doc__ or "").split("\n\n")[0],
    Settings,
    train,
    'a .jsonl of {"messages": [{"role", "content"}, ...]}; default: syllogisms',
    prechecks=(adapter.require_there,),
    check_data=check_data,
)
main, launch = PROGRAM.main, PROGRAM.launch

if __name__ == "__main__":
    sys.exit(main())
