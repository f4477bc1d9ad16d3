"""Inside a run that is looked at closely: what follows a model's weights without being stepped by an optimizer."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import torch

from pytest_trainguard.recorder.close_look import CloseLook
from pytest_trainguard.recorder.doors import Observer
from pytest_trainguard.recorder.project import own_modules
from pytest_trainguard.recorder.states import digest
from pytest_trainguard.recorder.surroundings import find_caller

ROUNDING = {torch.float64: 1e-14, torch.float32: 1e-6}  # of a value, in a few operations
COARSE = 2e-2  # of values with fewer bits
UPDATES = re.compile("update_parameters")
# What a program calls the step from which on it averages.
BEGINS = re.compile(
    r"(?<![a-z])(ema|avg|average|swa)\w*(start|begin|after|warm)|(start|begin|after|warm)\w*_(ema|avg|average|swa)(?![a-z])"
)


class Averages(Observer):
    """Follows copies of what an optimizer steps.

    Its events are named `look averaged`, `look follows` and, of what is evaluated, `look evaluated`.
    """

    def __init__(self, look: CloseLook):
        self._look = look
        self._stepped: set[int] = set()  # numbers of what an optimizer holds
        self._before: dict[int, torch.Tensor] = {}  # what everything was as the step before began
        self._is_updated: bool | None = None
        self._starts: dict[int, str] = {}  # what each was before the first step: a digest, by number
        self._moved: dict[int, str] = {}  # what each was after the last step, of what is stepped and has moved by then
        # By name: each batch norm of what trains, and the mean of its statistics before the first step.
        self._norms: dict[str, tuple[torch.nn.modules.batchnorm._NormBase, torch.Tensor]] = {}

    def forward(self, module: torch.nn.Module, *, outermost: bool) -> None:
        if outermost and torch.is_grad_enabled() and not self._stepped and not torch.compiler.is_compiling():
            for name, norm in _norms_of(module):
                self._norms.setdefault(name, (norm, norm.running_mean.clone()))

    def forwarded(
        self, module: torch.nn.Module, inputs: tuple[object, ...], output: object, *, outermost: bool
    ) -> None:
        if not outermost or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return
        self._tell_statistics(module)
        if isinstance(module, torch.optim.swa_utils.AveragedModel):
            if self._is_updated is None:
                self._is_updated = _is_written_somewhere(UPDATES)
            times = int(module.n_averaged)
            self._look.write("averaged", times=times, written=self._is_updated, place=find_caller())
        elif self._moved:
            self._tell_evaluated(module)

    def _tell_statistics(self, module: torch.nn.Module) -> None:
        """Whether a copy is evaluated by its own statistics, and whether these are still what the model began with."""
        if module.training:
            return
        pairs = [(name, norm, *self._norms[name]) for name, norm in _norms_of(module) if name in self._norms]
        moved = [one for one in pairs if one[1] is not one[2] and not torch.equal(one[2].running_mean, one[3])]
        if moved:
            stale = [name for name, norm, _, begun in moved if torch.equal(norm.running_mean, begun)]
            self._look.write("statistics", norms=len(moved), stale=stale, place=find_caller())

    def _tell_evaluated(self, module: torch.nn.Module) -> None:
        """Whether the weights in a pass without gradients are those of the start, though the trained ones moved.

        They may be the model's own, for which others were put in, or those of a copy with the same names.
        """
        held = {id(parameter) for parameter in module.parameters()}
        mine = [one for one in self._look.parameters() if id(one[2]) in held and one[1]]
        own = any(number in self._moved for number, _, _ in mine)
        pairs = [(number, tensor) for number, _, tensor in mine if number in self._moved]
        if not own:
            trained = {name: (number, of) for number, name, of in self._look.parameters() if number in self._moved}
            copied = [(trained[name], tensor) for _, name, tensor in mine if name in trained]
            pairs = [(number, tensor) for (number, of), tensor in copied if of.shape == tensor.shape]
            if not trained or len(pairs) < len(trained):
                return  # another model
        if pairs:
            begun = all(digest(tensor) == self._starts[number] for number, tensor in pairs)
            late = begun and _is_written_somewhere(BEGINS)
            other = not own or any(digest(tensor) != self._moved[number] for number, tensor in pairs)
            self._look.write("evaluated", as_begun=begun, own=own, other=other, late=late, place=find_caller())

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        now = {number: digest(tensor) for number, _, tensor in self._look.parameters() if number in self._stepped}
        self._moved = {number: value for number, value in now.items() if value != self._starts.get(number, value)}

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        followed = list(self._look.parameters())
        self._stepped |= {number for number, _, tensor in followed if id(tensor) in held}
        for number, _, tensor in followed:
            if number not in self._starts:
                self._starts[number] = digest(tensor)
        leaders: dict[str, list[tuple[int, torch.Tensor]]] = {}
        for number, name, tensor in followed:
            if number in self._stepped and name:
                leaders.setdefault(name, []).append((number, tensor))
        moved = outside = 0
        shown: dict[str, Any] = {}
        for number, name, tensor in followed:
            mine = leaders.get(name, [])
            if number in self._stepped or len(mine) != 1 or not tensor.is_leaf or number not in self._before:
                continue
            if tensor.grad is not None:
                continue  # it learns by itself
            leader = self._before.get(mine[0][0]), mine[0][1]
            if leader[0] is None or leader[0].shape != tensor.shape or not tensor.is_floating_point():
                continue
            went, astray = _compare(self._before[number], tensor, leader[0], leader[1])
            moved, outside = moved + int(went.sum()), outside + int(astray.sum())
            if not shown and bool(astray.any()):
                place = int(astray.reshape(-1).float().argmax())
                values = (self._before[number], leader[1], tensor)
                shown = {"name": name, "values": [float(one.detach().reshape(-1)[place]) for one in values]}
        if moved:
            self._look.write("follows", moved=moved, outside=outside, **shown)
        self._before = {number: tensor.detach().clone() for number, _, tensor in followed}


def _compare(
    before: torch.Tensor, now: torch.Tensor, leader_before: torch.Tensor, leader: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which values moved, and which of these left what lies between themselves and the leader's."""
    three = torch.stack([part.detach().to(before.device) for part in (before, leader_before, leader)])
    slack = three.abs().amax(0) * ROUNDING.get(before.dtype, COARSE)
    value = now.detach()
    went = value != before
    return went, went & ((value < three.amin(0) - slack) | (value > three.amax(0) + slack))


def _is_written_somewhere(name: re.Pattern[str]) -> bool:
    """A name of this form stands in one of the modules of the team's own that are loaded."""
    for module in own_modules():
        file = Path(str(module.__file__))
        with contextlib.suppress(OSError):
            if file.suffix == ".py" and name.search(file.read_text(encoding="utf-8", errors="replace")):
                return True
    return False


def _norms_of(module: torch.nn.Module) -> list[tuple[str, Any]]:
    """The batch norms of a model that keep statistics, by their names without those of wrappers."""
    kind = torch.nn.modules.batchnorm._NormBase
    found = [(name, one) for name, one in module.named_modules() if isinstance(one, kind)]
    return [(name.removeprefix("module."), one) for name, one in found if one.running_mean is not None]
