"""Settings at two values that are far apart: what a run of other values shows in the recording, and what it does not.

A run is dear, so settings share one where each shows in a quantity of its own: the learning rate in the rates, the
batch size in the batches, clipping in the norm of what is stepped with. What did not show there is set alone in a
second run, which decides: it is held against the undisturbed run in all that is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from pytest_trainguard import faults
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.contract.settings import Field
from pytest_trainguard.launch.protocol import RUN_STEPS, SEED, RunRequest
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.verdicts.errors import Finding, NotApplicable

__all__ = ["find_idle", "reaches", "tell"]

TINY_NORM = 1e-6  # of a gradient that is clipped to it
HALF = 0.5  # of the norm that was stepped with undisturbed: what a limit must lie below to be reached for certain
STRONG_DECAY = (10.0, 1.0, 0.5, 0.1)
# Settings by the names that they go by: no role of them is asked for anywhere else.
NAMES = {
    "clipping": ("max_grad_norm", "grad_clip", "clip_grad_norm", "gradient_clip_val", "gradient_clipping",
                 "grad_norm_clip", "clip_norm", "max_norm", "gradient_clip_norm", "clip_grad", "grad_clip_norm",
                 "gradient_clip"),
    "weight_decay": ("weight_decay", "wd", "l2", "weight_decay_rate"),
    "warmup": ("warmup_steps", "num_warmup_steps", "lr_warmup_steps", "warmup_iters", "warmup"),
    "seed": ("seed", "random_seed"),
}  # fmt: skip
WITH_DECAY = ("adam", "sgd", "lamb", "lion", "rmsprop")  # in the name of an optimizer: it takes a weight decay


@dataclass(frozen=True)
class Trial:
    """One setting at another value.

    Attributes:
        name: as it is called in a finding.
        value: the other value.
        before: the value of an ordinary run.
        shows: whether a run in which it has the other value, beside others of other settings, shows that.
        settings: by dotted path; the seed of a run is none.
        seed: of the run.
    """

    name: str
    value: object
    before: object
    shows: Callable[[Outcome], bool]
    settings: dict[str, object] = field(default_factory=dict)
    seed: int = SEED

    @property
    def is_seed(self) -> bool:
        """Whether it is a seed, of a run or by its name: a program without random numbers has no use for one."""
        return self.seed != SEED or any(path.rpartition(".")[2] in NAMES["seed"] for path in self.settings)


def trials(guard: Guard) -> list[list[Trial]]:
    """What can be tried, in groups that may share a run: each shows there in what the others of it leave alone."""
    reference = guard.needs.repeatable_run()
    found = dict(_all(guard, reference))
    groups = (("learning_rate", "clipping", "batch_size"), ("accumulation", "warmup"), ("weight_decay",), ("seed",))
    grouped = [[found[name] for name in group if name in found] for group in groups]
    return [group for group in grouped if group]


def _all(guard: Guard, reference: Outcome) -> Iterator[tuple[str, Trial]]:
    settings = guard.subject.settings
    steps = reference.recording.steps
    roles = {name: settings.role(name) for name in ("learning_rate", "batch_size", "accumulation", "optimizer")}
    named = {what: _named(settings.fields, names) for what, names in NAMES.items()}

    def trial(setting: Field | None, values: Sequence[float], shows: Callable[[Outcome], bool]) -> Iterator[Trial]:
        if setting is None or not reaches(guard, setting):
            return
        before = settings.tiny(setting)
        usable = [value for value in values if setting.allows(value) and value != before]
        if usable and setting.kind in ("int", "float") and not isinstance(before, bool):
            value = int(usable[0]) if setting.kind == "int" else usable[0]
            yield Trial(setting.path, value, before, shows, {setting.path: value})

    rate = roles["learning_rate"]
    usual = settings.tiny(rate) if rate else None
    if isinstance(usual, float | int) and usual:
        for made in trial(rate, (usual / 10, usual / 2, usual * 2), lambda o: _rates(o) != _rates(reference)):
            yield "learning_rate", made
    norms = [step.grad_norm for step in steps]
    low = min((norm for norm in norms if norm > 0), default=0.0)
    clip = named["clipping"]
    limits = [limit for limit in (TINY_NORM, clip.bounds.get("ge", 1.0) if clip else 1.0) if limit < HALF * low]
    for made in trial(clip, limits, lambda o: _largest(o) <= HALF * low):
        yield "clipping", made
    rows = guard.reference.rows_of_a_step
    size = settings.tiny(roles["batch_size"]) if roles["batch_size"] else 0
    if isinstance(size, int) and 2 <= size <= rows:
        for made in trial(roles["batch_size"], (size // 2,), lambda o: _batches(o) != _batches(reference)):
            yield "batch_size", made
    if rows >= 2:
        for made in trial(roles["accumulation"], (2, 1), lambda o: _passes(o) != _passes(reference)):
            yield "accumulation", made
    if len({step.lr for step in steps}) > 1:  # else the schedule may well be a constant one, which knows no warm-up
        for made in trial(named["warmup"], (RUN_STEPS - 2, 0), lambda o: _rates(o) != _rates(reference)):
            yield "warmup", made
    optimizer = settings.tiny(roles["optimizer"]) if roles["optimizer"] else "adam"
    if any(name in str(optimizer).lower() for name in WITH_DECAY):
        for made in trial(named["weight_decay"], (*STRONG_DECAY, 0.0), lambda o: differs(o, reference)):
            yield "weight_decay", made
    if guard.subject.description.takes_seed:
        yield "seed", Trial("the run's seed", SEED + 1, SEED, lambda o: differs(o, reference), seed=SEED + 1)
    else:
        for made in trial(named["seed"], (1, 2), lambda o: differs(o, reference)):
            yield "seed", made


def _named(fields: Sequence[Field], names: Sequence[str]) -> Field | None:
    return next((one for name in names for one in fields if one.path.rpartition(".")[2] == name), None)


def reaches(guard: Guard, setting: Field) -> bool:
    """Whether the program is given this setting: a command has a place for each, or one for all."""
    command = guard.subject.description.command
    if isinstance(guard.subject.spec, str) or command is None:
        return True
    return any(f"{{{place}}}" in command for place in ("settings", "config", setting.path, setting.path.split(".")[-1]))


def find_idle(guard: Guard) -> list[tuple[Trial, Outcome]]:
    """The settings that change nothing, each with the run in which it alone had another value.

    Raises:
        NotApplicable: no setting can be tried, or none of all changes anything, so that none may come to the program.
    """
    groups = trials(guard)
    if not groups:
        raise NotApplicable(
            "no setting is known of which the recording would show the effect: name those for the learning rate and "
            'the batch size, fields = {"learning_rate": "...", "batch_size": "..."}',
            'name its settings, fields = {"learning_rate": "..."}' if guard.subject.settings.fields else "",
        )
    reference = guard.reference.outcome
    together = guard.run_all([_request(group) for group in groups])
    unseen = [
        trial
        for group, outcome in zip(groups, together, strict=True)
        for trial in group
        if outcome.exit != 0 or not trial.shows(outcome)
    ]
    alone = [trial for trial in unseen if [trial] not in groups]  # the others had a run of their own
    outcomes = dict(zip((id(trial) for trial in alone), guard.run_all([_request([t]) for t in alone]), strict=True))
    outcomes |= {id(group[0]): outcome for group, outcome in zip(groups, together, strict=True) if len(group) == 1}
    idle = [(trial, outcomes[id(trial)]) for trial in unseen if _is_idle(outcomes[id(trial)], reference)]
    if len(idle) == sum(map(len, groups)):
        raise NotApplicable(
            f"none of {', '.join(trial.name for trial, _ in idle)} changes anything that is recorded: do its settings "
            "come to the program?"
        )
    return [(trial, outcome) for trial, outcome in idle if not trial.is_seed or _draws(guard)]


def _request(group: Sequence[Trial]) -> RunRequest:
    did = ", ".join(f"set {trial.name} = {trial.value!r} (before: {trial.before!r})" for trial in group)
    changed = {path: value for trial in group for path, value in trial.settings.items()}
    return RunRequest(did, settings=changed, seed=max(trial.seed for trial in group), states=True)


def _is_idle(outcome: Outcome, reference: Outcome) -> bool:
    return outcome.exit == 0 and not differs(outcome, reference)


def _draws(guard: Guard) -> bool:
    """Whether its random numbers matter: with other seeds than it sets, it trains otherwise."""
    request = RunRequest("had every seed that it sets be another one", fault=faults.reseed(), states=True)
    (outcome,) = guard.run_all([request])
    return outcome.exit == 0 and differs(outcome, guard.reference.outcome)


def differs(outcome: Outcome, reference: Outcome) -> bool:
    """Whether anything that is recorded of the steps differs, or what is written to the output folder."""
    ours, theirs = ([_all_of(one)] for one in (outcome, reference))
    return ours != theirs


def _all_of(outcome: Outcome) -> list[object]:
    of_steps = [
        (str(s.losses), str(s.grad_norm), s.lr, str(s.moved), s.batches, s.length, s.eval_forwards, s.dtype, s.autocast)
        for s in outcome.recording.steps
    ]  # text: a NaN is like another
    return [*of_steps, sorted(name for name in outcome.left() if name in outcome.after)]


def _rates(outcome: Outcome) -> list[tuple[float, ...]]:
    return [step.lr for step in outcome.recording.steps]


def _batches(outcome: Outcome) -> list[int]:
    return [max(step.batches, default=0) for step in outcome.recording.steps]


def _passes(outcome: Outcome) -> list[int]:
    return [len(step.batches) for step in outcome.recording.steps]


def _largest(outcome: Outcome) -> float:
    return max((step.grad_norm for step in outcome.recording.steps), default=float("inf"))


def tell(trial: Trial, outcome: Outcome) -> Finding:
    """What to say of a setting that changes nothing."""
    told = (
        f"{trial.name} has no effect: with {trial.value!r} in the place of {trial.before!r} every loss, learning rate, "
        "gradient norm, batch and file is as before, to the bit, while other settings do change them"
    )
    if trial.is_seed:
        told = (
            f"{told}. It is no program without random numbers: with other seeds than those that it sets by itself it "
            "trains otherwise. Several seeds are one run, then, several times: seed with the number that is given"
        )
    else:
        told = f"{told}: it is read and never used, or something else is used in its place"
    return Finding(outcome.did, told, outcome.last_words)
