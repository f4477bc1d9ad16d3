"""Cases 31 to 40: the settings."""

from __future__ import annotations

import contextlib
import math
import re
from pathlib import Path

from pytest_trainguard import (
    RUN_STEPS,
    CannotJudge,
    Cause,
    ConfigFuzz,
    Finding,
    GpuBudget,
    Guard,
    NotApplicable,
    Outcome,
    RunRequest,
    Wording,
    causes,
    edge_case,
    faults,
    noting,
    rejects,
    stops,
    survives,
    wording,
)
from pytest_trainguard.casework import effects, loss_terms, misspelt, unread
from pytest_trainguard.damage import settings_file, tokenizer

FAR_TOO_HIGH = 10.0
TEXT_FOR_NUMBER = Cause("text-for-number", "it takes a number for text", "number-as-written")
SPELLINGS = ("2e-5", "1e-3", "5e-2", "1e-1")
TOKENIZER = Wording("the tokenizer or its vocabulary", re.compile(r"tokeni[sz]er|vocab", re.I))
ENLARGED = Wording("an embedding that was enlarged", re.compile(r"(enlarg|resiz|extend|grow)\w*[^\n]*embedding", re.I))
DIVERGED = Wording("what diverged (the loss, a gradient)", re.compile(r"loss|grad|diverg|finite|\bnan\b|\binf", re.I))


@edge_case(
    "settings-file-missing",
    number=31,
    title="settings file missing",
    verdict="rejects",
    severity="misleads",
    brought_about="started by its command line with a settings file that isn't there, by absolute and relative path",
    expects="rejects, naming the path, before a model is built",
)
def test_settings_file_missing(guard: Guard) -> None:
    """`if path.exists()` around the reading of a file: with a slip in its name, a week of training on defaults.

    Started in the same way with its whole settings file it must train, so that it is the missing file that it rejects.
    """
    name = guard.needs.settings_file().name
    missing = (guard.folder / "none" / name, Path("configs") / "none" / name)
    started = [(f"started with the settings file {path}, which does not exist", path) for path in missing]
    for outcome, path in zip(_with_settings(guard, started), missing, strict=True):
        with noting():
            rejects(outcome, str(path), before="model")


@edge_case(
    "settings-file-unreadable",
    number=32,
    title="settings file unreadable",
    verdict="rejects",
    severity="misleads",
    brought_about="bad JSON, TOML or YAML: a stray character in the middle, the file cut off, NUL bytes",
    expects="rejects, naming file, line and column, before a model is built",
)
def test_settings_file_unreadable(guard: Guard) -> None:
    """`char 1042` is no place that a person can find; a merge that failed leaves `<<<<<<<` in the middle of a file.

    Of a file of NUL bytes, as a power cut leaves it, the file alone is to be named. What is left of a YAML file that
    was cut off is YAML mostly: that cannot be told.
    """
    variants = settings_file.break_settings_file(guard.needs.settings_file(), guard.folder)
    for variant, outcome in zip(variants, _with_settings(guard, [v[:2] for v in variants]), strict=True):
        with noting():
            rejects(outcome, *variant.naming, before="model")


def _with_settings(guard: Guard, started: list[tuple[str, Path]]) -> list[Outcome]:
    """Runs by the command line, each with a settings file; first one with the whole file, which has to train."""
    whole = guard.needs.settings_file()
    requests = [(f"started with its own settings in {whole.name}", whole), *started]
    first, *others = guard.run_all([RunRequest(did, settings_file=path, steps=2) for did, path in requests])
    if first.exit != 0 or not first.recording.steps:
        raise CannotJudge(f"its command does not train with a whole {whole.name}: {first.how}", first.output[-4000:])
    return others


@edge_case(
    "number-as-written",
    title="a number as people write it",
    verdict="survives",
    severity="misleads",
    brought_about="the learning rate in the settings file as 2e-5, which YAML 1.1 reads as text",
    expects="survives, with the learning rate that is written there",
)
def test_number_as_written(guard: Guard) -> None:
    """`learning_rate: 2e-5` is text to PyYAML, which wants `2.0e-5`: one run fails late, one takes a default.

    Source: hiyouga/LlamaFactory#4014.
    """
    field = guard.needs.setting("learning_rate")
    spelling = next((each for each in SPELLINGS if field.allows(float(each))), None)
    if spelling is None:
        raise NotApplicable(f"{field.path} allows none of {', '.join(SPELLINGS)}")
    plain, written = guard.folder / "plain", guard.folder / "written"
    files = [guard.needs.settings_file({field.path: float(spelling)}, plain)]
    files.append(guard.needs.settings_file({field.path: settings_file.STAND_IN}, written))
    settings_file.respell(files[1], spelling)
    did = [f"set {field.path} to {float(spelling)!r} in {files[0].name}", f"wrote {field.path} as {spelling} there"]
    number, text = guard.run_all([RunRequest(d, settings_file=f, steps=2) for d, f in zip(did, files, strict=True)])
    if number.exit != 0 or not number.recording.steps:
        raise CannotJudge(f"{number.did}: it does not train with that: {number.how}", number.output[-4000:])
    if text.exit != 0:
        told = f"it does not take {spelling} for the number that it is: {text.how}"
        early = not text.recording.steps
        raise Finding(text.did, told, text.last_words, grade="unclear" if early else "wastes", cause=TEXT_FOR_NUMBER)
    rates = [outcome.recording.steps[-1].lr if outcome.recording.steps else () for outcome in (number, text)]
    if rates[0] != rates[1]:
        told = f"it trained on with the learning rate {_first(rates[1])}, and not {_first(rates[0])}"
        raise Finding(text.did, told, text.last_words, cause=TEXT_FOR_NUMBER)


@edge_case(
    "misspelt-key",
    title="misspelt key",
    verdict="rejects",
    severity="misleads",
    brought_about="a setting by a misspelt name beside the right ones: in the settings file, as an option, in what the "
    "settings are made from",
    expects="rejects, naming the key, before a model is built; or trains on, and warns of the key by name",
)
def test_misspelt_key(guard: Guard) -> None:
    """`batch_sise: 64` in a file, and `config.get("batch_size", 8)` in the program: a week on the default.

    A program that takes settings of any name says so best by warning of those that it makes no use of.
    """
    key, right, value = misspelt.choose_key(guard)
    shown = f"set {key} = {value!r}, for {right}"
    requests = [RunRequest(f"{shown}, beside its own settings", settings={key: value}, steps=2)] * misspelt.reaches(
        guard
    )
    with contextlib.suppress(NotApplicable):
        file = guard.needs.settings_file({key: value}, guard.folder / "misspelt")
        requests.append(RunRequest(f"{shown}, in {file.name}", settings_file=file, steps=2))
    if not requests:
        raise NotApplicable(
            "its trainer picks settings out by their names, and hands on none that it does not know: hand them all on, "
            "main(run.settings), or name its command line"
        )
    for outcome in guard.run_all(requests):
        with noting():
            misspelt.check(outcome, key, right)


@edge_case(
    "setting-without-effect",
    title="setting without effect",
    verdict="survives",
    severity="misleads",
    brought_about="another seed; the learning rate, the limit of the gradient's norm, the batch size, accumulation, "
    "weight decay, warm-up and the weights of the loss's terms at another value, several in one run where each shows "
    "by itself, else one alone",
    expects="survives, and each changes something: losses, rates, norms, batches or files; what weighs a loss "
    "changes what is learnt",
)
def test_setting_without_effect(guard: Guard) -> None:
    """Five seeds, five runs, one result: `torch.manual_seed(42)` stood in a module that was imported last.

    Only settings whose effect the recording shows are tried, and only where it must show: clipping below the norms that
    were seen, a batch of less rows than there are, a warm-up where the rate varies at all. That other settings of the
    program do change something is the control. A number that is read nowhere is advice, where a run with another one is
    the same: it may be left over. What weighs a term of the loss must change what is learnt, where it
    changes the loss.
    """
    with noting():
        unread.require_read(guard)
    for finding in loss_terms.find_cut_off(guard):
        with noting():
            raise finding
    for trial, outcome in effects.find_idle(guard):
        with noting():
            raise effects.tell(trial, outcome)


def _first(rates: tuple[float, ...]) -> str:
    return f"{rates[0]:g}" if rates else "of no step"


@edge_case(
    "max-length-too-small",
    number=33,
    title="max_length too small",
    verdict="rejects/survives",
    severity="misleads",
    brought_about="0 and 1, below the shortest example; the least that the settings allow",
    expects="rejects, naming field and value; the least that is allowed may also be trained with",
)
def test_max_length_too_small(guard: Guard) -> None:
    """With a prompt that fills all of `max_length` no answer is left: the mean over no tokens is NaN, or 0 for days."""
    field = guard.needs.setting("max_length")
    least = math.ceil(field.bounds.get("ge", math.floor(field.bounds.get("gt", 0)) + 1))
    values = [0, 1, *([least] if least > 1 else [])]
    outcomes = guard.run_all(
        [
            RunRequest(f"set {field.path} = {value}", settings={field.path: value}, time_limit=guard.patience)
            for value in values
        ],
        side_by_side=3,
    )
    for value, outcome in zip(values, outcomes, strict=True):
        with noting():
            if value == least > 1 and outcome.exit == 0:
                survives(outcome)
            else:
                rejects(
                    outcome,
                    wording.field_name(field.path.rpartition(".")[2]),
                    wording.number(value, "the value"),
                    cause=causes.UNCHECKED_SETTINGS,
                )


@edge_case(
    "max-length-too-large",
    number=34,
    title="max_length too large for the GPU",
    verdict="survives",
    severity="wastes",
    brought_about="two steps at the production settings, on rows of full length, traced and held against --gpu-budget",
    expects="fits; where it does not, the largest length that fits is named",
)
def test_max_length_too_large(gpu_budget: GpuBudget) -> None:
    """The sample's rows were short; the first batch of long ones came in the third hour, and did not fit."""
    gpu_budget.fits("max_length")


@edge_case(
    "batch-size-0",
    number=35,
    title="batch size 0",
    verdict="rejects",
    severity="misleads",
    brought_about="0, negative, fraction, text, NaN; whatever the stated range leaves out",
    expects="rejects, naming field and range, before a model is built",
)
def test_batch_size_0(config_fuzz: ConfigFuzz) -> None:
    """An unchecked batch size fails deep in the loader, after the model was loaded, or is cut to a whole number."""
    config_fuzz.rejects("batch_size", 0, -1, 2.5, "many", math.nan)


@edge_case(
    "batch-size-too-large",
    number=36,
    title="batch size too large for the GPU",
    verdict="survives",
    severity="wastes",
    brought_about="two steps at the production settings, on rows of full length, traced and held against --gpu-budget",
    expects="fits; where it does not, the largest batch that fits is named",
)
def test_batch_size_too_large(gpu_budget: GpuBudget) -> None:
    """What had fitted 80 GiB was launched on a card with 40; the second step, with the optimizer's state, failed."""
    gpu_budget.fits("batch_size")


@edge_case(
    "learning-rate-0",
    number=37,
    title="learning rate 0",
    verdict="rejects",
    severity="misleads",
    brought_about="0, negative, NaN, infinity; whatever the stated range leaves out",
    expects="rejects, naming field and range, before a model is built",
)
def test_learning_rate_0(config_fuzz: ConfigFuzz) -> None:
    """With a learning rate of 0 a run looks healthy for days and learns nothing; `lr < 0` is False for NaN."""
    config_fuzz.rejects("learning_rate", 0.0, -0.001, math.nan, math.inf)


@edge_case(
    "learning-rate-far-too-high",
    number=38,
    title="learning rate far too high",
    verdict="rejects/stops",
    severity="misleads",
    brought_about="10, and just above the stated range; the highest that is allowed",
    expects="rejects, naming field and range; inside the range a diverging loss stops the run",
)
def test_learning_rate_far_too_high(config_fuzz: ConfigFuzz, guard: Guard) -> None:
    """A slipped exponent, `1e1` for `1e-1`: the loss is NaN after two steps, and the GPU is paid for until morning."""
    field = guard.needs.setting("learning_rate")
    high = field.bounds.get("le", field.bounds.get("lt"))
    highest = FAR_TOO_HIGH
    if high is not None:
        config_fuzz.rejects(field.path, *(rate for rate in (FAR_TOO_HIGH, high * 1.01) if rate > high))
        highest = high if "le" in field.bounds else high * 0.99
    outcome = guard.run(
        f"trained with {field.path} = {highest:g}, the highest that is allowed"
        if high is not None
        else f"trained with {field.path} = {highest:g}; its settings state no upper bound",
        settings={field.path: highest},
        steps=3 * RUN_STEPS,
    )
    if outcome.exit == 0:
        survives(outcome)
    elif outcome.exit > 0 and not outcome.recording.steps:  # rejected, by a bound that its settings do not state
        rejects(outcome, wording.field_name(field.path.rpartition(".")[2]))
    else:
        stops(outcome, DIVERGED)


@edge_case(
    "unknown-model-name",
    number=39,
    title="unknown model name",
    verdict="rejects",
    severity="misleads",
    brought_about="names in no registry, where the network refuses and where it never answers",
    expects="rejects, naming it, before a model is built and without a wait for the network",
)
def test_unknown_model_name(guard: Guard) -> None:
    """A slip in a model's name, on a node without a way out: five attempts with growing pauses, then a time-out."""
    field = guard.needs.setting("model")
    tried = [
        ("no-such-model", "the network never answers", faults.offline(silent=True)),
        ("nobody/no-such-model", "the network never answers", faults.offline(silent=True)),
        ("nobody/no-such-model", "every connection is refused", faults.offline()),
    ]
    outcomes = guard.run_all(
        [
            RunRequest(
                f"set {field.path} to {name}, a name in no registry; {network}",
                settings={field.path: name},
                fault=fault,
                time_limit=guard.patience / 2,
            )
            for name, network, fault in tried
        ],
        side_by_side=3,
    )
    for outcome, (name, _, _) in zip(outcomes, tried, strict=True):
        with noting():
            asked = sorted({event["address"] for event in outcome.recording.of("network")})
            if outcome.timed_out and asked:
                raise Finding(
                    outcome.did,
                    f"it waits for the network: asked {', '.join(asked[:3])}, and had not ended after "
                    f"{outcome.seconds:.0f} s (an undisturbed run takes {guard.reference.outcome.seconds:.1f})",
                    outcome.stack,
                    grade="wastes",
                )
            rejects(outcome, name, before="model")


@edge_case(
    "tokenizer-and-model-disagree",
    number=40,
    title="tokenizer and model disagree",
    verdict="rejects/survives",
    severity="wastes",
    brought_about="a base model whose tokenizer has words of the data for tokens, beyond the rows of its embedding",
    expects="rejects, naming the tokenizer, before the first step; or enlarges the embedding, and says so",
)
def test_tokenizer_and_model_disagree(guard: Guard) -> None:
    """`add_tokens` without `resize_token_embeddings`: on a GPU a device-side assert, hours after the start."""
    field = guard.needs.base_model_setting()
    model = guard.needs.base_model(field)
    grown = tokenizer.outgrow_embedding(model, guard.needs.data(), guard.folder)
    shown = ", ".join(map(repr, grown.words[:3]))
    did = (
        f"gave the tokenizer of the base model {grown.tokens} tokens ({shown} and others of the data's words are new), "
        f"its embedding has {grown.rows} rows"
    )
    pair, outcome = guard.run_all(
        [
            RunRequest(f"set {field.path} to {model.name}, a small base model", settings={field.path: str(model)}),
            RunRequest(did, settings={field.path: str(grown.path)}, time_limit=guard.patience),
        ]
    )
    if pair.exit != 0:
        last = (pair.last_words.splitlines() or [pair.how])[-1]
        raise NotApplicable(
            f"it does not start from {model}: make_model() is to make one that it takes ({last})",
            guard.needs.BASE_MODEL,
        )
    if outcome.exit == 0:
        survives(outcome, ENLARGED)
    else:
        rejects(outcome, TOKENIZER)
