"""The checkpoint: weights and optimizer of a training, whole or not there, in safetensors."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from backend.recipe.base import RecipeError
from backend.recipe.training import Training
from backend.trainingfolder import STATE, checkpoints

MODEL, OPTIMIZER = "model.safetensors", "optimizer.safetensors"
_PART = re.compile(r"checkpoint-\d+\.part")


def write_checkpoint(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> int:
    """Write a checkpoint beside the last one, then let it take its place. Returns its bytes.

    Args:
        folder: of the training.
        state: plain data; `step` is the number of steps taken.
    Raises:
        OSError: when the disk is full; the last checkpoint is as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.iterdir():
        if _PART.fullmatch(left.name):  # of a process that was ended at it
            shutil.rmtree(left)
    part = folder / f"checkpoint-{state['step']}.part"
    part.mkdir()
    try:
        save_file(weights_of(model), part / MODEL)
        save_file(_moments(model, optimizer), part / OPTIMIZER)
        (part / STATE).write_text(json.dumps(state), encoding="utf-8")
        size = sum(file.stat().st_size for file in part.iterdir())
        for file in part.iterdir():
            _flush(file)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    before = checkpoints(folder)
    done = folder / f"checkpoint-{state['step']}"
    if done in before:  # the same step again
        before.remove(done)
        shutil.rmtree(done)
    part.rename(done)
    for old in before:
        shutil.rmtree(old)
    return size


def _flush(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and kept buffer once, by its first name: tied ones share."""
    found = {name: value.detach() for name, value in model.named_parameters()}
    kept = set(model.state_dict())
    found |= {name: value for name, value in model.named_buffers() if name in kept and name not in found}
    return {name: value.cpu().contiguous() for name, value in found.items()}


def _moments(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What the optimizer holds, as `parameter's name:moment`."""
    names: dict[torch.Tensor, str] = {value: name for name, value in model.named_parameters()}
    held = {}
    for parameter, moments in optimizer.state.items():
        for moment, value in moments.items():
            held[f"{names[parameter]}:{moment}"] = torch.as_tensor(value).detach().cpu().contiguous()
    return held


def read_checkpoint(
    folder: Path, asked: Training, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any] | None:
    """Fill model and optimizer from the last checkpoint; its state, or None where there is none.

    Raises:
        RecipeError: when it belongs to another recipe, or cannot be read.
    """
    found = checkpoints(folder)
    if not found:
        return None
    try:
        state: dict[str, Any] = json.loads((found[-1] / STATE).read_text(encoding="utf-8"))
        weights, moments = load_file(found[-1] / MODEL), load_file(found[-1] / OPTIMIZER)
    except (OSError, ValueError) as error:
        remedy = f"Remove the folder {found[-1]} to begin anew."
        raise RecipeError("name", asked.name, f"a checkpoint that can be read: {error}", remedy) from error
    _fill(model, optimizer, weights, moments)
    return state


def _fill(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    weights: dict[str, torch.Tensor],
    moments: dict[str, torch.Tensor],
) -> None:
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)
    for key, value in moments.items():
        name, _, moment = key.rpartition(":")
        parameter = own[name]
        on = value if moment == "step" else value.to(parameter.device)
        optimizer.state[parameter][moment] = on
