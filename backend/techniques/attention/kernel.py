"""The attention kernel: which implementation computes scores, softmax and the weighted sum."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from backend.recipe.base import RecipeError
from backend.recipe.switches.attention import AttentionKernel
from backend.techniques.base import Effect, Subject
from backend.techniques.registry import technique

PROBE_TOKENS = 4


@technique(AttentionKernel)
class KernelChoice:
    """Sets the implementation through transformers and checks by the operations that one small call really ran."""

    def apply(self, subject: Subject, switch: AttentionKernel) -> None:
        """Set the implementation on the model and its parts.

        Raises:
            RecipeError: when its package is missing or the architecture cannot have it.
        """
        field, remedy = f"switches.{switch.kind}.name", "Choose sdpa or eager."
        try:
            subject.model.set_attn_implementation(switch.name)
        except (ImportError, ValueError) as error:
            first = str(error).strip().partition("\n")[0]
            raise RecipeError(field, switch.name, f"a kernel that works here ({first})", remedy) from None
        if _configured(subject.model) != switch.name:
            allowed = f"{_configured(subject.model)}, the only one of {type(subject.model).__name__}"
            raise RecipeError(field, switch.name, allowed, "Switch it off.")

    def read_back(self, subject: Subject, switch: AttentionKernel) -> Effect:
        """Read the live config, and the operations of a call with a few tokens."""
        configured, ran = _configured(subject.model), operations(subject)
        fused = [name for name in ran if "scaled_dot_product" in name or "flash" in name]
        expected = not fused if switch.name == "eager" else bool(fused)
        shown = fused[-1] if fused else "separate products and softmax"
        return Effect(
            kind=switch.kind,
            took_effect=configured == switch.name and expected,
            summary=f"{configured} attention, ran as {shown}",
            facts={"configured": configured, "ran": shown, "operations": ", ".join(ran)},
        )


def _configured(model: PreTrainedModel) -> str:
    return str(model.config.get_text_config(decoder=True)._attn_implementation)


@torch.no_grad()
def operations(subject: Subject) -> list[str]:
    """Names of the attention operations that one call of a few tokens ran, each once.

    Both levels are heard: the function that the model called and the kernels that it was carried out by. No
    inference mode here, in which a fused function would hide its kernels.
    """
    ids = torch.zeros((1, PROBE_TOKENS), dtype=torch.long, device=subject.device)
    heard: list[str] = []
    with _Functions(heard), _Kernels(heard):
        subject.model(input_ids=ids, use_cache=False)
    wanted = ("scaled_dot_product", "flash", "softmax")
    return list(dict.fromkeys(name for name in heard if any(part in name for part in wanted)))


class _Functions(TorchFunctionMode):
    """Hears the name of every torch function."""

    def __init__(self, heard: list[str]) -> None:
        super().__init__()
        self._heard = heard

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._heard.append(getattr(func, "__name__", str(func)))
        return func(*args, **(kwargs or {}))


class _Kernels(TorchDispatchMode):
    """Hears the name of every operator that is dispatched to a kernel."""

    def __init__(self, heard: list[str]) -> None:
        super().__init__()
        self._heard = heard

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._heard.append(str(func.name()).rpartition("::")[2])
        return func(*args, **(kwargs or {}))
