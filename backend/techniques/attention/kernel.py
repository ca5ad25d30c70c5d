"""The attention kernel: which implementation computes scores, softmax and the weighted sum."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from backend.recipe.base import RecipeError
from backend.recipe.switches.attention import AttentionKernel
from backend.techniques.base import Effect, Subject
from backend.techniques.kernels import EAGER, Heard, listen
from backend.techniques.registry import technique

PROBE_TOKENS = 4
FAMILIES = {"eager": EAGER, "sdpa": "sdpa", "flash_attention_2": "FlashAttention"}  # how its kernels are named


@technique(AttentionKernel)
class KernelChoice:
    """Sets the implementation through transformers and checks by the kernels that the profiler heard."""

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
        """Name the kernels that ran in prefill and in a step; where nothing has run yet, in one small call.

        A compiled step may have melted eager attention into its own code, where no kernel can be told apart; prefill
        is never compiled, so it answers alone then.
        """
        run = subject.run
        if run is None:
            prefill, decode = listen_to_a_call(subject).kernels, None
        else:
            prefill, decode = run.prefill_kernels, run.decode_kernels
        seen = {**prefill, **(decode or {})}
        fits = bool(prefill) and all(name.startswith(FAMILIES[switch.name]) for name in seen)
        ran = ", ".join(seen) or "no kernel that is known here"
        return Effect(
            kind=switch.kind,
            took_effect=fits,
            summary=f"{switch.name} attention, ran as {ran}" if fits else f"attention ran as {ran}, not {switch.name}",
            facts={"configured": _configured(subject.model), "ran": ran, "calls": sum(prefill.values())},
        )


def _configured(model: PreTrainedModel) -> str:
    return str(model.config.get_text_config(decoder=True)._attn_implementation)


@torch.inference_mode()
def listen_to_a_call(subject: Subject) -> Heard:
    """What the profiler hears while a few tokens pass through the model."""
    ids = torch.zeros((1, PROBE_TOKENS), dtype=torch.long, device=subject.device)
    return listen(lambda: subject.model(input_ids=ids, use_cache=False))
