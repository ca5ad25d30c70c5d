"""The attention kernel: which implementation computes scores, softmax and the weighted sum."""

from __future__ import annotations

import torch
from transformers import DynamicCache, PreTrainedModel

from backend.recipe.base import RecipeError
from backend.recipe.switches.attention import ON_A_GPU, AttentionKernel
from backend.techniques.anatomy import encoder_layers
from backend.techniques.attention.backends import REGISTERED
from backend.techniques.attention.flex import NAME as FLEX
from backend.techniques.base import Effect, Subject
from backend.techniques.kernels import EAGER, Heard, listen
from backend.techniques.registry import technique

PROBE_TOKENS = 4
LONGER = 160  # tokens: beyond one block of flex attention, so that the number of blocks is known to change
FAMILIES = {  # how its kernels are named
    "eager": EAGER,
    "sdpa": "sdpa",
    "sdpa_math": "sdpa math",
    "sdpa_efficient": "sdpa efficient",
    "sdpa_flash": "sdpa flash",
    "sdpa_cudnn": "sdpa cuDNN",
    "flex": "flex",
    "flash_attention_2": "FlashAttention",
    "flash_attention_3": "FlashAttention 3",
}
THEIRS = {"flex": FLEX, **REGISTERED}  # what they are registered as with transformers


@technique(AttentionKernel)
class KernelChoice:
    """Sets the implementation through transformers and checks by the kernels that the profiler heard."""

    def apply(self, subject: Subject, switch: AttentionKernel) -> None:
        """Set the implementation on the model and its parts.

        Raises:
            RecipeError: when its package is missing, or the architecture or the device cannot have it.
        """
        field, remedy = f"switches.{switch.kind}.name", "Choose sdpa or eager."
        if switch.name in ON_A_GPU and subject.device.type != "cuda":
            raise RecipeError(field, switch.name, "a kernel of this device: this one needs a CUDA GPU", remedy)
        wanted = THEIRS.get(switch.name, switch.name)
        try:
            subject.model.set_attn_implementation(wanted)
        except (ImportError, ValueError) as error:
            first = str(error).strip().partition("\n")[0]
            raise RecipeError(field, switch.name, f"a kernel that works here ({first})", remedy) from None
        if switch.name == "flex":
            _compile(subject, field, remedy)
        if _configured(subject.model) != wanted:
            allowed = f"{_configured(subject.model)}, the only one of {type(subject.model).__name__}"
            raise RecipeError(field, switch.name, allowed, "Switch it off.")

    def read_back(self, subject: Subject, switch: AttentionKernel) -> Effect:
        """Name the kernels that ran in prefill and in a step; where nothing has run yet, in one small call.

        A compiled step may have melted eager attention into its own code, where no kernel can be told apart; prefill
        is never compiled, so it answers alone then.
        """
        run = subject.run
        heard = {"in prefill": listen_to_a_call(subject).kernels} if run is None else {}
        if run is not None:
            heard = {"in prefill": run.prefill_kernels, "in a step": run.decode_kernels}
        seen = {name: None for kernels in heard.values() for name in kernels}
        asked = FAMILIES[switch.name]
        fits = bool(heard["in prefill"]) and all(name.startswith(asked) for name in seen)
        ran = ", ".join(seen) or "no kernel that is known here"
        return Effect(
            kind=switch.kind,
            took_effect=fits,
            summary=f"{switch.name} attention, ran as {ran}" if fits else f"{_told(heard)}, not {switch.name}",
            facts={
                "configured": _configured(subject.model),
                "ran": ran,
                "calls": sum(heard["in prefill"].values()),
            },
        )


def _compile(subject: Subject, field: str, remedy: str) -> None:
    """Compile what a prompt and steps need, before any clock runs.

    Raises:
        RecipeError: where the compiler fails, and with its reason.
    """
    subject.progress(0.0, "compiling flex attention")
    try:
        few_tokens(subject)
    except (RuntimeError, OSError) as error:  # what torch's compiler and its C++ compiler raise
        subject.model.set_attn_implementation("sdpa")
        first = str(error).strip().partition("\n")[0][:200]
        raise RecipeError(field, "flex", f"a kernel that can be compiled here ({first})", remedy) from None
    subject.progress(1.0, "compiled flex attention")


@torch.inference_mode()
def few_tokens(subject: Subject) -> None:
    """A prompt and steps after it, of lengths that tell the compiler that they change; twice, as buckets differ."""
    ids = torch.zeros((1, LONGER), dtype=torch.long, device=subject.device)
    for tokens in (PROBE_TOKENS, LONGER):
        cache = None if encoder_layers(subject.model) is not None else DynamicCache(config=subject.model.config)
        extra = {} if cache is None else {"cache": cache, "use_cache": True}
        subject.model(input_ids=ids[:, :tokens], **extra)
        for _ in range(0 if cache is None else 3):
            subject.model(input_ids=ids[:, :1], **extra)


def _told(heard: dict[str, dict[str, int]]) -> str:
    """What ran where something else than the choice did: 'attention ran as sdpa flash in prefill, sdpa math in ...'."""
    parts = {when: " and ".join(kernels) for when, kernels in heard.items() if kernels}
    if len(set(parts.values())) <= 1:
        return f"attention ran as {next(iter(parts.values()), 'no kernel that is known here')}"
    return f"attention ran as {', '.join(f'{names} {when}' for when, names in parts.items())}"


def _configured(model: PreTrainedModel) -> str:
    return str(model.config.get_text_config(decoder=True)._attn_implementation)


@torch.inference_mode()
def listen_to_a_call(subject: Subject) -> Heard:
    """What the profiler hears while a few tokens pass through the model."""
    ids = torch.zeros((1, PROBE_TOKENS), dtype=torch.long, device=subject.device)
    return listen(lambda: subject.model(input_ids=ids, use_cache=False))
