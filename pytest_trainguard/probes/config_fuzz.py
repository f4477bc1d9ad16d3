"""`config_fuzz`: settings inside and outside the ranges that the program itself states.

Hypothesis makes the values, and shrinks what fails to the smallest settings that do. Its profile and
`--hypothesis-seed` count as for any other test; what it keeps is in the session's folder, not in the project's. It is
imported when the fixture is used.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.contract.settings import Field
from pytest_trainguard.harm import rank
from pytest_trainguard.launch.protocol import RUN_STEPS, RunRequest
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.verdicts import causes, wording
from pytest_trainguard.verdicts.errors import Finding, NotApplicable, VerdictError
from pytest_trainguard.verdicts.gathering import gathering, note, noting
from pytest_trainguard.verdicts.kinds import rejects, survives
from pytest_trainguard.verdicts.wording import Named, Wording

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

T = TypeVar("T")
OUTSIDE = 6  # values that hypothesis makes for one field; each is a run
SHRINKING = 40  # further runs that may go into making a failure smaller
FAR = 1000  # how far outside a range values lie at most
ACCEPTED_STEPS = 2  # optimizer steps of settings that must work
NO_FIELDS = (
    "its settings state no ranges: give them, for example Annotated[int, annotated_types.Interval(ge=1, le=128)]"
)


class ConfigFuzz:
    """Try settings on the real program: wrong ones must be rejected by name, right ones must train."""

    def __init__(self, guard: Guard, nodeid: str):
        self.guard, self.nodeid = guard, nodeid

    def rejects(self, role_or_path: str, *examples: object) -> None:
        """Wrong values of one field are rejected before a model is built, and nothing is written.

        The value that will be launched must itself be in the stated range.
        The message names the field, and for a number outside a stated range that range. After `examples` come the edges
        of what the field's type states: the first number beyond each bound, NaN and infinities, a fraction for a whole
        number, null. Then hypothesis makes values further out, and text. Where the settings are a
        plain mapping, which states nothing, the examples are all that is tried.

        Args:
            role_or_path: a role (`settings.ROLES`) or a field's dotted path.
            examples: values that are wrong whatever the type states.

        Raises:
            NotApplicable: no field plays the role, with what to add.
            Finding: a value was not rejected in that way.
        """
        field = self._field(role_or_path)
        self._check_production(field)
        values = list(examples)
        if self._typed:
            tried = {repr(value) for value in values}
            values += [value for value in _edges(field) if repr(value) not in tried]
        outcomes = self.guard.run_all([_request({field.path: value}) for value in values])
        for value, outcome in zip(values, outcomes, strict=True):
            with noting():
                _check_rejected(outcome, field, value)
        outside = _outside(field) if self._typed else None
        if outside is not None:
            self._search(
                f"rejects {field.path}",
                outside,
                lambda value: _check_rejected(self._run({field.path: value}), field, value),
                OUTSIDE,
            )

    def accepts(self, examples: int = 5) -> None:
        """Settings inside the stated ranges start and take a step.

        Numbers are kept between half and twice what the tiny settings have, so that a run stays small; choices are
        free, but for the device, and true and false are both tried. A run that wants a GPU is not held against the
        program, and neither is a clean rejection that names two settings or more: those that do not go together. Of a
        flag that is turned, a clean rejection of it alone will do (`resume`, with nothing to resume from), and so will
        a run without a step (`evaluate_only`).

        Args:
            examples: how many different settings are tried.

        Raises:
            NotApplicable: no field states a range that could be tried.
            Finding: a run fails, with the smallest settings that make it fail.
        """
        from hypothesis import strategies as st

        device = self.guard.subject.settings.role("device")
        tried = {
            field.path: inside
            for field in self.guard.subject.settings.fields
            if field != device and (inside := _inside(field, self.guard.subject.settings.tiny(field))) is not None
        }
        if not tried:
            raise NotApplicable(NO_FIELDS)
        # Nothing set is the smallest of settings: those are known to work, and a failure shrinks towards them, each
        # setting by itself. (The optional keys of `fixed_dictionaries` depend on each other, and shrinking gets stuck.)
        maybe = {path: st.one_of(st.none(), inside, inside) for path, inside in tried.items()}
        some = st.fixed_dictionaries(maybe).map(_set)
        self._search("accepts", some, lambda values: self._check_accepted(values), examples)

    def _check_production(self, field: Field) -> None:
        """What will be launched is inside the range that the program itself states."""
        value = self.guard.subject.settings.production(field)
        if _beyond_range(field, value) is not None:
            raise Finding(
                "read the production settings",
                f"{field.path} = {value} is not in its range, {field.range}",
                grade="wastes",
            )

    def _check_accepted(self, values: dict[str, object]) -> None:
        outcome = self._run(values, steps=ACCEPTED_STEPS)
        if outcome.exit > 0 and re.search(r"\b(cuda|gpus?)\b", outcome.message, re.I):
            return
        fields = [
            field for field in self.guard.subject.settings.fields if wording.names(outcome.complaint, _called(field))
        ]
        turned = self._turned(values)
        together = len(fields) > 1 or any(field in turned for field in fields)
        if outcome.exit > 0 and together and not outcome.recording.built_model:
            return
        if outcome.exit == 0 and turned and not outcome.recording.steps:
            return
        if outcome.exit == 0 and outcome.recording.scales:  # a gradient scaler may skip the first steps
            return
        survives(outcome)

    def _turned(self, values: dict[str, object]) -> list[Field]:
        """The flags among ``values`` that are not as in the tiny settings."""
        settings = self.guard.subject.settings
        flags = [field for field in settings.fields if field.kind == "bool" and field.path in values]
        return [field for field in flags if values[field.path] != settings.tiny(field)]

    @property
    def _typed(self) -> bool:
        """The settings type states ranges, for some field at least."""
        return any(field.bounds or field.choices for field in self.guard.subject.settings.fields)

    def _field(self, role_or_path: str) -> Field:
        for field in self.guard.subject.settings.fields:
            if field.path == role_or_path:
                return field
        return self.guard.needs.setting(role_or_path)

    def _run(self, values: dict[str, object], steps: int = RUN_STEPS) -> Outcome:
        return self.guard.run_all([_request(values, steps)])[0]

    def _search(self, what: str, strategy: SearchStrategy[T], check: Callable[[T], None], examples: int) -> None:
        """Have hypothesis look for a value that `check` raises a finding for, and raise that of the smallest one."""
        import hypothesis.configuration

        hypothesis.configuration.set_hypothesis_home_dir(self.guard.subject.folder / "hypothesis")
        known: dict[str, Finding | None] = {}
        stopped: list[VerdictError] = []

        def fails(value: T) -> bool:
            key = repr(value)
            if key not in known:
                if stopped or len(known) >= examples + SHRINKING:
                    return False  # enough: what was found so far is small enough
                known[key] = None
                try:
                    with gathering() as found, noting():
                        check(value)
                    known[key] = Finding.joined(found) if found else None
                except VerdictError as error:  # says nothing of the settings: not to be shrunk
                    stopped.append(error)
            return known[key] is not None

        profile = hypothesis.settings.default
        assert profile is not None
        try:
            found = hypothesis.find(
                strategy,
                fails,
                settings=hypothesis.settings(
                    profile,
                    max_examples=min(examples, profile.max_examples),
                    deadline=None,
                    phases=[phase for phase in profile.phases if phase is not hypothesis.Phase.explain],
                ),
                database_key=f"{self.nodeid} {what}".encode(),
            )
        except hypothesis.errors.NoSuchExample:
            pass
        else:
            smallest = known[repr(found)]
            assert smallest is not None
            # What shrank to the smallest may be no more than unclear, where a larger value did harm.
            graver = [each for each in known.values() if each and rank(each.grade) < rank(smallest.grade)]
            note(min(graver, key=lambda each: rank(each.grade), default=smallest))
        if stopped:
            raise stopped[0]


def _request(values: dict[str, object], steps: int = RUN_STEPS) -> RunRequest:
    shown = ", ".join(f"{path} = {_shown(value)}" for path, value in values.items())
    return RunRequest(f"set {shown}" if shown else "left all settings as they are", settings=values, steps=steps)


def _set(values: dict[str, object]) -> dict[str, object]:
    return {path: value for path, value in values.items() if value is not None}


def _check_rejected(outcome: Outcome, field: Field, value: object) -> None:
    naming: list[Named] = [_called(field)]
    beyond = _beyond_range(field, value)
    if beyond is not None:
        naming.append(_range(field, beyond, outcome.complaint))
    rejects(outcome, *naming, before="model", cause=causes.UNCHECKED_SETTINGS)


def _called(field: Field) -> Wording:
    """A field by its name; of a nested one the last part will do."""
    return wording.field_name(field.path.rpartition(".")[2])


def _beyond_range(field: Field, value: object) -> float | None:
    """The value, where it is a finite number beyond a stated bound."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    bounds = field.bounds
    beyond = (
        value < bounds.get("ge", -math.inf)
        or value <= bounds.get("gt", -math.inf)
        or value > bounds.get("le", math.inf)
        or value >= bounds.get("lt", math.inf)
    )
    return value if beyond else None


_NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d_,]*(?:\.\d+)?(?:e[-+]?\d+)?", re.I)
_COMPARED = re.compile(
    r"[<>≤≥]|greater|less|more|larger|smaller|higher|lower|least|most|between|from|over|under|above|below|exceed|min|max|"
    r"range|up to|must be",
    re.I,
)


def _range(field: Field, value: float, message: str) -> Wording:
    """A bound of the range, in whatever words: "at least 1", "1 to 128", "positive"."""
    said = f"the range ({field.range})"
    bounds = [bound for name, bound in field.bounds.items() if name != "multiple_of"]
    numbers = [_number(text) for text in _NUMBER.findall(message)]
    in_words = 0 in bounds and re.search(r"positive|non-?\W?negative", message, re.I)
    named = _COMPARED.search(message) and any(bound in numbers for bound in bounds)
    return Wording(said, re.compile("" if in_words or named else r"(?!)"))


def _number(text: str) -> float:
    return float(text.rstrip(",_").replace(",", "").replace("_", ""))


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _edges(field: Field) -> list[object]:
    """The first values outside what a field states, one of each kind."""
    edges: list[object] = []
    bounds = field.bounds
    if field.kind == "int":
        least, most = _whole(bounds)
        edges += [] if least is None else [least - 1]
        edges += [] if most is None else [most + 1]
        edges.append((1 if least is None else least) + 0.5)
    elif field.kind == "float":
        edges += [bounds["gt"]] if "gt" in bounds else []
        edges += [math.nextafter(bounds["ge"], -math.inf)] if "ge" in bounds else []
        edges += [bounds["lt"]] if "lt" in bounds else []
        edges += [math.nextafter(bounds["le"], math.inf)] if "le" in bounds else []
    if field.kind in ("int", "float"):
        # Not true and false: pydantic, unless told to be strict, reads them as 1 and 0, and says so.
        edges += [math.nan, math.inf, -math.inf]
    elif field.kind == "bool":
        edges += [2, "perhaps"]  # not 0, 1, "yes" and "no": many a sound program reads them
    if field.kind in ("int", "float", "bool", "choice") and not field.optional:
        edges.append(None)
    return edges


def _outside(field: Field) -> SearchStrategy[object] | None:
    """Values outside what a field states; None where it states nothing that could be left."""
    from hypothesis import strategies as st

    if field.kind == "choice":
        return _words("abcdefgh").map(lambda word: f"no-{word}")
    if field.kind not in ("int", "float"):
        return None
    # No text that could be read as a number: "1e-4" from a YAML file is a number to many a sound program.
    return st.one_of(*_beyond(field), _words("bcdghkmpqruvwxz"))


def _words(letters: str) -> SearchStrategy[str]:
    """Words of some letters. Not `st.text`, which first sorts all of Unicode by category, for a second or two."""
    from hypothesis import strategies as st

    return st.lists(st.sampled_from(letters), min_size=1, max_size=8).map("".join)


def _beyond(field: Field) -> list[SearchStrategy[float]]:
    """Numbers beyond the bounds; for whole numbers also fractions within them."""
    from hypothesis import strategies as st

    bounds = field.bounds
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if field.kind == "float":
        found: list[SearchStrategy[float]] = []
        if low is not None:
            found.append(st.floats(low - FAR, low, exclude_max="ge" in bounds, allow_subnormal=False))
        if high is not None:
            found.append(st.floats(high, high + FAR, exclude_min="le" in bounds, allow_subnormal=False))
        return found
    least, most = _whole(bounds)
    first = least if least is not None else 1 if most is None else most - FAR
    found = [st.integers(first, first + FAR if most is None else max(most - 1, first)).map(lambda n: n + 0.5)]
    if least is not None:
        found.append(st.integers(least - FAR, least - 1))
    if most is not None:
        found.append(st.integers(most + 1, most + FAR))
    return found


def _whole(bounds: dict[str, float]) -> tuple[int | None, int | None]:
    """The smallest and the largest whole number within bounds; None on an open side."""
    least = math.ceil(bounds["ge"]) if "ge" in bounds else math.floor(bounds["gt"]) + 1 if "gt" in bounds else None
    most = math.floor(bounds["le"]) if "le" in bounds else math.ceil(bounds["lt"]) - 1 if "lt" in bounds else None
    return least, most


def _inside(field: Field, tiny: object) -> SearchStrategy[object] | None:
    """Values that a field states to be right, near its tiny value; None where it states none, or has no such value."""
    from hypothesis import strategies as st

    if field.kind == "choice":
        return st.sampled_from(field.choices)
    if field.kind == "bool" and isinstance(tiny, bool):
        return st.booleans()
    if not field.bounds or isinstance(tiny, bool) or not isinstance(tiny, int | float):
        return None
    bounds = field.bounds
    near = sorted((tiny / 2, tiny * 2))
    if field.kind == "int":
        least, most = _whole(bounds)
        unit = int(bounds.get("multiple_of", 1))
        first = max(math.ceil(near[0]), near[0] if least is None else least)
        last = min(math.floor(near[1]), near[1] if most is None else most)
        first, last = math.ceil(first / unit), math.floor(last / unit)
        return st.integers(first, last).map(lambda n: n * unit) if first <= last else None
    if field.kind != "float" or "multiple_of" in bounds:
        return None
    low, high = bounds.get("ge", bounds.get("gt", -math.inf)), bounds.get("le", bounds.get("lt", math.inf))
    first, last = max(near[0], low), min(near[1], high)
    over, under = first == bounds.get("gt"), last == bounds.get("lt")
    if first > last or (first == last and (over or under)):
        return None
    return st.floats(first, last, exclude_min=over, exclude_max=under)
