"""Prepares training data: each function as text, tokens and program graph, in a folder that trainers take.

    python -m trainers.code.prepare --output-dir prepared
    python -m trainers.code.gnn --data prepared

From top to bottom: the settings, the two ways to start, where rows come from, one row, one shard, the run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field

from trainers.code import misuse
from trainers.code.graph import program_graph
from trainers.code.node_features import NodeFeatures, load_encoder
from trainers.code.prepared import (
    CUT,
    FORMAT_VERSION,
    MANIFEST,
    TOKENIZER,
    TRUNCATED,
    UNPARSED,
    is_prepared,
)
from trainers.code.rows import RowFile, Rows, signed_key
from trainers.code.settings import DataSettings
from trainers.code.tokenizer import SMALLEST_VOCABULARY, require_length, train_tokenizer
from trainers.common import files, pretrained, settings
from trainers.common.errors import Faults, InputError, show
from trainers.common.lock import RunLock
from trainers.common.process import Run, supervise
from trainers.common.program import PathLike
from trainers.common.rows import check_path, split_by_content

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

NAME = "trainers.code.prepare"
STARTED = "started.json"
"""Stands in the folder until it is finished: whose half-done work this is."""
SHOWN = 20
"""So many rows of a kind are named on the terminal; the manifest names all that are no Python."""
ENCODED = 32
"""Rows that the encoder reads at once."""


class Settings(DataSettings):
    """Settings of this program."""

    vocab_size: int = Field(
        4096,
        ge=SMALLEST_VOCABULARY,
        le=1_000_000,
        description="the tokenizer's largest vocabulary (without encoder)",
    )
    max_length: int = Field(512, ge=8, le=32_768, description="tokens of a function that are kept")
    max_nodes: int = Field(512, ge=8, le=1_000_000, description="nodes of a graph that are kept")
    encoder: str | None = Field(
        None, description="pretrained model whose hidden states become node features: a folder, or a name on the hub"
    )
    shard_rows: int = Field(4096, ge=1, le=1_000_000, description="rows in one file")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {NAME}",
        description=(__doc__ or "").split("\n\n")[0],
        epilog="Exit codes: 0 success, 1 failed, 2 bad settings or data, 130 / 143 ended by SIGINT / SIGTERM; "
        "started again, it goes on where it was.",
        allow_abbrev=False,
    )
    parser.add_argument("--settings", metavar="FILE", help="settings in TOML or JSON; flags override them")
    parser.add_argument("--data", metavar="PATH", help="a .jsonl of rows, or a folder of Python; default: the library")
    parser.add_argument("--output-dir", metavar="FOLDER", default="prepared", help="default %(default)s")
    settings.add_flags(parser.add_argument_group("settings"), Settings)
    flags = vars(parser.parse_args(argv))

    def body(run: Run) -> None:
        values = settings.read_file(flags["settings"]) if flags["settings"] is not None else {}
        start(run, values | settings.from_flags(Settings, flags), flags["data"], flags["output_dir"])

    return supervise(NAME, body)


def launch(
    values: Mapping[str, Any] | None = None, *, data: PathLike | None = None, output_dir: PathLike = "prepared"
) -> int:
    """The same program for a caller in Python; returns the exit code.

    Args:
        values: settings by field name; what is left out has its default.
        data: a ``.jsonl`` file or a folder of Python; the standard library if left out.
        output_dir: for the prepared data.
    """
    return supervise(NAME, lambda run: start(run, values or {}, data, output_dir))


def start(run: Run, values: Mapping[str, Any], data: PathLike | None, output_dir: PathLike) -> None:
    """Check all that can be checked at no cost, all at once; then take the folder's lock and prepare.

    Raises:
        InputError: one line for each fault; nothing has been written.
    """
    run.stage = "checking the settings"
    faults = Faults()
    chosen = faults.gather(lambda: settings.check(Settings, values))
    path = faults.gather(lambda: check_path(data)) if data is not None else None
    if isinstance(values.get("encoder"), str):
        faults.gather(lambda: pretrained.require_local(values["encoder"]))
    if path is not None and path.is_dir() and is_prepared(path):
        faults.lines.append(f"data {show(path)}: is prepared already")
    faults.require_none()
    with RunLock(Path(output_dir)) as lock:
        run.last_act = lock.forget
        prepare(run, chosen, path, Path(output_dir))


# ---- where rows come from


class Source(NamedTuple):
    """Rows to be prepared.

    Attributes:
        table: all rows.
        taken: the numbers of those that are prepared, in order.
        held_out: which of them are for validation.
        dropped: how many there were, and how many were left out, by reason.
    """

    table: Rows
    taken: Sequence[int]
    held_out: frozenset[int]
    dropped: dict[str, int]


def read(run: Run, chosen: Settings, path: Path | None) -> Source:
    """Check all rows, drop those that came before, and split the rest by module."""
    run.stage = "reading the data"
    if path is not None and path.is_file():
        if chosen.more_code is not None:
            raise InputError(f"more_code = {chosen.more_code!r}: only where rows are made from Python source")
        return _from_file(run, chosen, RowFile(path))
    corpus = misuse.open_corpus(run, path, chosen)
    dropped = {"functions that came before": corpus.duplicates, "functions without a twin": corpus.without_twin}
    dropped |= {"functions that are too long": corpus.too_long, "files that are no Python": len(corpus.unparsed)}
    return Source(corpus, range(len(corpus)), frozenset(corpus.split.validation), dropped)


def _from_file(run: Run, chosen: Settings, file: RowFile) -> Source:
    first: dict[int, int] = {}
    taken = array("Q")
    again, other = 0, []
    for index, key in enumerate(file.keys):
        before = first.setdefault(key, index)
        if before == index:
            taken.append(index)
        elif file.labels[before] == file.labels[index]:
            again += 1
        else:
            other.append(f"row {index + 1} has the code of row {before + 1} and another label: left out")
    del first
    for line in other[:SHOWN]:
        run.say(line)
    modules = _modules(file, taken)
    if modules is None:
        side = set(split_by_content(file, chosen.validation_fraction).validation)
        held_out = frozenset(side.intersection(taken))
    else:
        places = misuse.split_by_module(modules, chosen.validation_fraction, chosen.data_seed).validation
        held_out = frozenset(taken[place] for place in places)
    dropped = {"rows that came before": again, "rows that came before with another label": len(other)}
    for what, count in dropped.items():
        if count:
            run.say(f"{count} {what} were left out")
    return Source(file, taken, held_out, dropped)


def _modules(file: RowFile, taken: Sequence[int]) -> list[str] | None:
    """The field ``module`` of each row, if all have one."""
    names: list[str] = []
    for index in taken:
        name = file.extra(index, "module")
        if not isinstance(name, str):
            return None
        names.append(sys.intern(name))
    return names


# ---- one row


class Views(NamedTuple):
    """What is kept of one row, as tensors; see `trainers.code.prepared`."""

    code: torch.Tensor
    tokens: torch.Tensor
    x: torch.Tensor
    edges: torch.Tensor
    edge_type: torch.Tensor
    flags: int
    fault: str | None


def views(
    code: str, label: int, chosen: Settings, tokens: list[int], subtokens: Callable[[str], list[int]]
) -> tuple[Views, program_graph.ProgramGraph]:
    """One row as text, tokens and graph."""
    import torch

    graph = program_graph.read(code, chosen.max_nodes)
    made = program_graph.to_data(graph, subtokens, label)
    flags = TRUNCATED * (len(tokens) > chosen.max_length) + CUT * graph.cut + UNPARSED * (graph.fault is not None)
    return Views(
        torch.frombuffer(bytearray(code.encode("utf-8")), dtype=torch.uint8),
        torch.tensor(tokens[: chosen.max_length], dtype=torch.int32),
        made.x.int(),
        made.edge_index.t().int(),
        made.edge_type.to(torch.uint8),
        flags,
        graph.fault,
    ), graph


# ---- the run


def prepare(run: Run, chosen: Settings, path: Path | None, output_dir: Path) -> None:
    """Everything from the data to the manifest. The output folder's lock is held."""
    source = read(run, chosen, path)
    made_of = {"settings": chosen.model_dump(), "source": source.table.fingerprint, "format_version": FORMAT_VERSION}
    if not _may_go_on(run, output_dir, made_of):
        return
    if chosen.encoder is not None:
        run.stage = "looking for the encoder"
        pretrained.require_sound(pretrained.locate(chosen.encoder))
    run.stage = "importing torch"
    from tqdm import tqdm

    tokenizer, features = _tools(run, chosen, source, output_dir)
    files.remove_leftovers(output_dir)
    files.write_json(output_dir / STARTED, made_of)
    if not (output_dir / TOKENIZER).exists():
        _save_tokenizer(tokenizer, output_dir / TOKENIZER)
    subtokens = program_graph.subtokens_of(tokenizer)
    shards = list(_shards(source.taken, chosen.shard_rows))
    with tqdm(total=len(source.taken), desc="preparing", unit="function", disable=None) as bar:
        for name, numbers in shards:
            run.stage = f"preparing {name}"
            if not (output_dir / name).exists():  # else it is whole: it got its name last
                _write_shard(output_dir / name, source, numbers, chosen, tokenizer, subtokens, features)
            bar.update(len(numbers))
    run.stage = "writing the manifest"
    _finish(run, chosen, source, made_of, [name for name, _ in shards], output_dir, features)


def _may_go_on(run: Run, output_dir: Path, made_of: dict[str, Any]) -> bool:
    """Whether there is something left to do in a folder that is fresh, or half-done with the same data and settings.

    Raises:
        InputError: the folder is of other data or settings, or holds something else.
    """
    name = f"output folder {show(output_dir)}"
    for file in (MANIFEST, STARTED):
        try:
            told = json.loads((output_dir / file).read_bytes())
            before = {key: told[key] for key in made_of}
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{name}: {file} is damaged: remove the folder, or choose another") from None
        for key, value in {**made_of, **made_of["settings"]}.items():
            there = before["settings"].get(key) if key in made_of["settings"] else before[key]
            if there != value and key != "settings":
                raise InputError(
                    f"{name} is prepared of other data or settings: {key} is {there!r} there and {value!r} here"
                )
        if file == MANIFEST:
            run.say(f"already prepared: {show(output_dir)}")
            return False
        run.say(f"going on with what is done in {show(output_dir)}")
        return True
    strangers = [entry.name for entry in output_dir.iterdir() if not entry.name.startswith(files.TEMPORARY)]
    if [entry for entry in strangers if entry != "run.lock"]:
        raise InputError(f"{name}: holds other files: choose an empty or a new one")
    return True


def _tools(
    run: Run, chosen: Settings, source: Source, output_dir: Path
) -> tuple[PreTrainedTokenizerBase, NodeFeatures | None]:
    """The tokenizer, and the encoder if one is asked for."""
    train = [index for index in source.taken if index not in source.held_out]
    if chosen.encoder is not None:
        run.stage = "loading the encoder"
        tokenizer, model = load_encoder(pretrained.locate(chosen.encoder))
        pretrained.require_fit(tokenizer, model, chosen.max_length)
        features = NodeFeatures(tokenizer, model, chosen.max_length)
    elif (output_dir / TOKENIZER).exists():
        tokenizer, features = pretrained.load_tokenizer(output_dir / TOKENIZER), None
    else:
        run.stage = "training the tokenizer"
        tokenizer = train_tokenizer(source.table, train, chosen.vocab_size, chosen.max_length)
        features = None
    shortest = [source.table[index].code for index in sorted(train, key=source.table.size)[:4]]
    require_length(tokenizer, shortest, chosen.max_length)
    program_graph.require_nodes(shortest, chosen.max_nodes)
    return tokenizer, features


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    temporary = folder.with_name(files.TEMPORARY + folder.name)
    with files.saving(folder, temporary):
        tokenizer.save_pretrained(temporary)
        for file in temporary.iterdir():
            files.sync_file(file)
        os.rename(temporary, folder)
        files.sync_folder(folder.parent)


def _shards(taken: Sequence[int], size: int) -> Iterator[tuple[str, Sequence[int]]]:
    for number, first in enumerate(range(0, len(taken), size)):
        yield f"shard-{number:05d}.safetensors", taken[first : first + size]


def _write_shard(
    file: Path,
    source: Source,
    numbers: Sequence[int],
    chosen: Settings,
    tokenizer: PreTrainedTokenizerBase,
    subtokens: Callable[[str], list[int]],
    features: NodeFeatures | None,
) -> None:
    """Some rows, their tensors one after the other, as one file."""
    import torch
    from safetensors.torch import save

    kept: list[Views] = []
    labels: list[int] = []
    keys: list[int] = []
    states: list[torch.Tensor] = []
    for first in range(0, len(numbers), ENCODED):
        rows = [source.table[index] for index in numbers[first : first + ENCODED]]
        codes = [row.code for row in rows]
        most = chosen.max_length * pretrained.CHARACTERS_PER_TOKEN
        ids = tokenizer([code[: most + 1] for code in codes], verbose=False)["input_ids"]
        pairs = [views(row.code, row.label, chosen, tokens, subtokens) for row, tokens in zip(rows, ids, strict=True)]
        kept += [view for view, _ in pairs]
        labels += [row.label for row in rows]
        keys += [signed_key(code) for code in codes]
        if features is not None:
            states += features(codes, [graph for _, graph in pairs])
    tensors = {
        "labels": torch.tensor(labels, dtype=torch.int8),
        "keys": torch.tensor(keys),
        "flags": torch.tensor([view.flags for view in kept], dtype=torch.uint8),
        "held_out": torch.tensor([index in source.held_out for index in numbers]),
        "edge_type": torch.cat([view.edge_type for view in kept]),
    }
    for name in ("code", "tokens", "x", "edges"):
        parts = [getattr(view, name) for view in kept]
        tensors[name] = torch.cat(parts)
        sizes = torch.tensor([0, *(len(part) for part in parts)])
        tensors[f"{name}_begins"] = sizes.cumsum(0)
    if features is not None:
        tensors["features"] = torch.cat(states)
    files.write_bytes(file, save(tensors))


def _finish(
    run: Run,
    chosen: Settings,
    source: Source,
    made_of: dict[str, Any],
    shards: list[str],
    output_dir: Path,
    features: NodeFeatures | None,
) -> None:
    """Count what the shards hold, name what is no Python, and write the manifest."""
    from safetensors import safe_open

    balance = {side: Counter[int]() for side in ("train", "validation")}
    odd: Counter[str] = Counter()
    unparsed: list[str] = []
    sizes: dict[str, int] = {}
    place = 0
    for shard in shards:
        with safe_open(str(output_dir / shard), "pt") as stored:
            labels, flags, held_out = (stored.get_tensor(name).tolist() for name in ("labels", "flags", "held_out"))
        sizes[shard] = len(labels)
        for label, flag, aside in zip(labels, flags, held_out, strict=True):
            balance["validation" if aside else "train"][label] += 1
            odd.update({"truncated": bool(flag & TRUNCATED), "cut": bool(flag & CUT)})
            if flag & UNPARSED:
                index = source.taken[place]
                unparsed.append(
                    f"row {index + 1}: {program_graph.read(source.table[index].code, chosen.max_nodes).fault}"
                )
            place += 1
    written = [output_dir / shard for shard in shards]
    written += sorted(file for file in (output_dir / TOKENIZER).rglob("*") if file.is_file())
    counts = {"rows": place, **odd, "unparsed": len(unparsed), "left_out": source.dropped}
    files.write_json(
        output_dir / MANIFEST,
        {
            **made_of,
            "fingerprint": hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest(),
            "together": source.table.together,
            "feature_size": features.width if features else 0,
            "counts": counts,
            "class_balance": {side: {str(label): count[label] for label in (0, 1)} for side, count in balance.items()},
            "unparsed": unparsed,
            "shards": shards,
            "rows_in_shards": sizes,
            "files": {
                file.relative_to(output_dir).as_posix(): {"bytes": file.stat().st_size, "sha256": files.sha256(file)}
                for file in written
            },
        },
    )
    files.remove(output_dir / STARTED)
    for fault in unparsed[:SHOWN]:
        run.say(f"no Python, its graph is of its tokens alone: {fault}")
    if len(unparsed) > SHOWN:
        run.say(f"and {len(unparsed) - SHOWN} more; all are named in {MANIFEST}")
    for side, count in balance.items():
        rows = count.total()
        share = f"{count[1] / rows:.1%} of them of class 1" if rows else "none"
        run.say(f"{side}: {rows} rows, {share}")
    run.say(
        f"{place} rows prepared, {odd['truncated']} of them with more tokens and {odd['cut']} with more nodes than are "
        f"kept, {len(unparsed)} no Python; {show(output_dir)}"
    )


if __name__ == "__main__":
    sys.exit(main())
