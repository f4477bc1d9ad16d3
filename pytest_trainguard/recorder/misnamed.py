"""Inside a run that is looked at closely: what was to freeze a parameter or to set its rate, and has no such effect."""

from __future__ import annotations

import difflib

import torch

from pytest_trainguard.recorder.close_look import CloseLook
from pytest_trainguard.recorder.doors import Observer
from pytest_trainguard.recorder.surroundings import find_caller

FREEZES = "requires_grad"
LIKE = 0.85  # how alike two names are, of 1
RATES = {"learning_rate": "lr", "learning-rate": "lr", "learningrate": "lr", "weightdecay": "weight_decay"}


class Misnamed(Observer):
    """Reads the attributes of what trains. Its events are named `look misnamed`."""

    def __init__(self, look: CloseLook):
        self._look = look
        self._models: dict[int, torch.nn.Module] = {}  # by the id of their first parameter, so that it stays theirs
        self._told: set[tuple[str, str]] = set()

    def forward(self, module: torch.nn.Module, *, outermost: bool) -> None:
        first = next(module.parameters(), None) if outermost and torch.is_grad_enabled() else None
        if first is not None:
            self._models.setdefault(id(first), module)

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        for model in self._models.values():
            for name, parameter in model.named_parameters():
                for key, value in vars(parameter).items():
                    if parameter.requires_grad and value is False and _is_like(key, FREEZES):
                        self._tell("parameter", name, key, FREEZES)
            for name, module in model.named_modules():
                trains = any(parameter.requires_grad for parameter in module.parameters())
                for key, value in vars(module).items():
                    if trains and value is False and (key == FREEZES or _is_like(key, FREEZES)):
                        self._tell("module", name or type(module).__name__, key, FREEZES)
        if type(optimizer).__module__.startswith("torch.optim"):  # another may have any key
            for number, group in enumerate(optimizer.param_groups):
                for key in group.keys() - optimizer.defaults.keys() - {"params"}:
                    meant = RATES.get(str(key)) or next((k for k in optimizer.defaults if _is_like(str(key), k)), "")
                    if meant:
                        self._tell("group", f"param_groups[{number}]", str(key), meant)

    def _tell(self, sort: str, name: str, key: str, meant: str) -> None:
        if (name, key) not in self._told:
            self._told.add((name, key))
            self._look.write("misnamed", sort=sort, name=name, key=key, meant=meant, place=find_caller())


def _is_like(key: str, name: str) -> bool:
    return key != name and not key.startswith("_") and difflib.SequenceMatcher(None, key, name).ratio() >= LIKE
