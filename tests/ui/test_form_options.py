"""What a form offers of a switch on a model, and the reasons that it gives for the rest."""

from __future__ import annotations

from dataclasses import replace

from backend.recipe.facts import ModelFacts
from backend.recipe.switch import all_switches
from backend.ui.form.options import fitting, refused

FACTS = ModelFacts(
    name="storyteller", architecture="llama", layers=8, hidden=512, ffn=1376, heads=8, kv_heads=8, head_dim=64,
    vocab=768, context=1024, parameters=25_700_000, embedding_parameters=393_216,
)  # fmt: skip


def test_kernels_that_need_a_gpu_are_offered_where_there_is_one_and_share_a_reason_elsewhere() -> None:
    kernel = all_switches()["attention_kernel"]
    assert fitting(kernel, "name", FACTS) == ("eager", "sdpa", "sdpa_math", "sdpa_flash", "flex")
    told = refused(kernel, "name", FACTS)
    assert [line.split(":")[0] for line in told] == [
        "sdpa_efficient, sdpa_cudnn",
        "flash_attention_2, flash_attention_3",
    ]
    gpu = replace(FACTS, devices=("cuda:0", "cpu"))
    assert len(fitting(kernel, "name", gpu) or ()) == 9
    assert refused(kernel, "name", gpu) == ()
