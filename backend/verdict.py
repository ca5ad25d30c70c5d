"""The verdict: what a race showed, with its intervals, as plain data. Sentences are made in `ui/words.py`.

    {"lanes": {name: {
        "speed": {"ratio", "low", "high", "pairs", "within_noise"},    tokens a second, variant / baseline (> 1 faster)
        "ttft":  {... the same, baseline / variant},
        "tokens_per_s", "tpot_s", "ttft_s", "e2e_s": {"p50", "p95", "p99", "mean"},
        "memory": {"ratio", "bytes", "baseline_bytes"},                 held: weights + KV, baseline / variant
        "peak_ratio",
        "kld": {"mean", "median", "p99", "max", "tokens"}, "kld_prefill": {...}, "top1", "top1_prefill",
        "perplexity": {"value", "baseline", "ratio", "low", "high", "protocol"},
        "answers": {"right", "asked", "share", "baseline_share", "within_noise"},
        "identical_tokens": int, "first_divergence": int | None, "rouge_l": float,
        "cost_per_million": float, "baseline_cost_per_million": float,
        "speculation": {"acceptance_rate", "mean_acceptance_length", "draft_cost_share", "break_even", "verify_cost"},
        "weight_read_share": float | None,   measured share of a step that reading weights takes (see words.py)
        "alarms": [str], "simulated": bool, "effects": [...]}},
     "baseline": {"tokens_per_s", ... the same figures without ratios},
     "notes": [str]}

Keys are absent where nothing was measured.
"""
