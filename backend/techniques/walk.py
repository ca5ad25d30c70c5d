"""A calibration text on its way through a decoder, one layer at a time: what enters the matrices of one layer is heard
and forgotten before the next one, so that a large model needs the Hessians of one layer only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from backend.recipe.base import RecipeError
from backend.techniques.anatomy import stack
from backend.techniques.base import CalibrationText, Subject
from backend.techniques.calibrate import WINDOW


@dataclass
class Heard:
    """What entered one or more matrices of a layer, summed over the text."""

    hessian: Tensor  # (K, K) float32: 2 / T times the sum of x x^T
    mean: Tensor  # (K,) float32: mean of |x|

    @property
    def usable(self) -> bool:
        """False where nothing but zeros entered, or something that is no number."""
        return bool(torch.isfinite(self.hessian).all()) and bool((self.hessian.diagonal() > 0).any())


class Walk:
    """The windows of a text before the layer that is next."""

    def __init__(self, subject: Subject, kind: str, text: CalibrationText) -> None:
        """Run every window up to the first layer.

        Raises:
            RecipeError: naming the switch `kind`, for a decoder of an unknown build, or weights that are no numbers.
        """
        refuse_broken(subject, kind)
        self.layers = stack(subject.model, kind)
        names = {id(module): name for name, module in subject.model.named_modules()}
        self.names = {id(m): names[id(m)] for layer in self.layers for m in layer.modules() if isinstance(m, nn.Linear)}
        self.windows = windows_of(text)
        self.tokens = sum(len(window) for window in self.windows)
        self._subject = subject
        self._beside: list[dict[str, Any]] = []  # what each layer is given beside its input: the same for all windows
        self.states = self._first(self.windows)  # (1, T, hidden) of every window

    @torch.inference_mode()
    def _first(self, windows: list[list[int]]) -> list[Tensor]:
        states: list[Tensor] = []

        def note(layer: nn.Module, args: tuple[Any, ...], beside: dict[str, Any]) -> None:
            if layer is self.layers[0]:
                states.append(args[0] if args else beside["hidden_states"])
                if self._beside:
                    raise _Reached  # the first window alone goes through all layers
            self._beside.append({name: value for name, value in beside.items() if name != "hidden_states"})

        handles = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in self.layers]
        try:
            for window in windows:
                ids = torch.tensor([window], device=self._subject.device)
                try:
                    self._subject.model(input_ids=ids, use_cache=False, logits_to_keep=1)
                except _Reached:
                    continue
        finally:
            for handle in handles:
                handle.remove()
        return states

    def readers(self, index: int) -> list[dict[str, nn.Linear]]:
        """The linear layers of a decoder layer in the order in which they run, those with one input together."""
        groups: dict[int, dict[str, nn.Linear]] = {}
        inputs: list[Tensor] = []  # held, so that no other tensor gets the id of one

        def note(module: nn.Linear, args: tuple[Any, ...]) -> None:
            inputs.append(args[0])
            groups.setdefault(id(args[0]), {})[self.names[id(module)]] = module

        linears = [module for module in self.layers[index].modules() if isinstance(module, nn.Linear)]
        handles = [module.register_forward_pre_hook(note) for module in linears]
        try:
            self._run(index, self.states[0])
        finally:
            for handle in handles:
                handle.remove()
        return list(groups.values())

    def hear(self, index: int, layers: Mapping[str, nn.Linear]) -> dict[str, Heard]:
        """Run all windows through a decoder layer as it is now; what entered each of these linear layers."""
        sums = {name: _Sum(self.tokens) for name in layers}
        self._listen(index, layers, lambda name, x: sums[name].add(x))
        return {name: found.heard() for name, found in sums.items()}

    def hear_squares(self, index: int, layers: Mapping[str, nn.Linear]) -> dict[str, Tensor]:
        """The same run, but only the sum of the squares of what entered each of these linear layers, (K,) float32."""
        sums: dict[str, Tensor] = {}

        def add(name: str, x: Tensor) -> None:
            squares = x.flatten(0, -2).float().square().sum(dim=0)
            sums[name] = sums[name] + squares if name in sums else squares

        self._listen(index, layers, add)
        return sums

    def _listen(self, index: int, layers: Mapping[str, nn.Linear], note: Callable[[str, Tensor], None]) -> None:
        def hook(name: str) -> Any:
            return lambda layer, args: note(name, args[0])

        handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
        try:
            for state in self.states:
                self._run(index, state)
        finally:
            for handle in handles:
                handle.remove()

    def leave(self, index: int) -> None:
        """Go through a decoder layer as it is now: the next one gets what it writes."""
        self.states = [self._run(index, state) for state in self.states]

    @torch.inference_mode()
    def _run(self, index: int, state: Tensor) -> Tensor:
        out = self.layers[index](state, **self._beside[index])
        return out[0] if isinstance(out, tuple) else out

    @torch.inference_mode()
    def hear_head(self) -> Heard:
        """What enters the output head in the model as it is now; the head itself is not run."""
        base, found = self._subject.model.base_model, _Sum(self.tokens)
        for window in self.windows:
            ids = torch.tensor([window], device=self._subject.device)
            found.add(base(input_ids=ids, use_cache=False).last_hidden_state)
        return found.heard()


def windows_of(text: CalibrationText) -> list[list[int]]:
    """The text in windows of one length; a shorter rest is left out."""
    windows = [text.ids[at : at + WINDOW] for at in range(0, len(text.ids), WINDOW)]
    return [window for window in windows if len(window) == min(WINDOW, len(text.ids))]


def refuse_broken(subject: Subject, kind: str) -> None:
    """A matrix with a NaN makes everything behind it NaN: there is nothing to calibrate on or to rank.

    Raises:
        RecipeError: naming the first such matrix.
    """
    for name, layer in subject.linears().items():
        if not torch.isfinite(layer.weight.sum()) and not torch.isfinite(layer.weight).all():  # a sum is faster
            raise RecipeError(
                f"switches.{kind}",
                name,
                "finite weights: some of this layer are none",
                "Load a sound copy of the model.",
            )


class _Sum:
    """Adds up what enters one matrix."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.hessian = self.mean = torch.zeros(0)

    def add(self, x: Tensor) -> None:
        """Another (..., K)."""
        x = x.flatten(0, -2).float()  # (T, K)
        if not self.mean.numel():
            self.hessian, self.mean = x.new_zeros(x.shape[1], x.shape[1]), x.new_zeros(x.shape[1])
        self.hessian.addmm_(x.T, x, alpha=2 / self.tokens)
        self.mean += x.abs().sum(dim=0) / self.tokens

    def heard(self) -> Heard:
        return Heard(self.hessian, self.mean)


class _Reached(Exception):
    """The first layer was reached; the rest of the call is not needed."""
