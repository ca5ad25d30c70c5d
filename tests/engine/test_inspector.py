"""What a lane shows of itself when it is looked into: sums, shapes, and what was planted is found."""

from __future__ import annotations

import gc
import gzip
import json
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from backend.engine import machine_peak as peaks
from backend.engine.inspect import importance, sensitivity
from backend.engine.inspect.attention import attention_weights, head_facts, map_tokens, packed_map
from backend.engine.inspect.fakequant import dynamic_int8, int4_groups, int8_rows
from backend.engine.inspect.operators import STEPS, profiled
from backend.engine.inspect.outliers import BINS, find_outliers
from backend.engine.inspect.partmap import weights_by_part
from backend.engine.inspect.sensitivity import Sensitivity
from backend.engine.inspect.work import measure_work
from backend.engine.inspector import Inspector
from backend.engine.memory import MemoryMeter
from backend.engine.timeline import Timeline, thinned
from backend.inspection import unpack_map
from backend.recipe.race import Race, Sampling
from backend.recipe.switches.mixed import HEAD
from backend.techniques.quantize.counting import weight_bytes
from backend.techniques.quantize.int4_linear import Int4Linear
from backend.techniques.quantize.int8_linear import Int8Linear

pytestmark = pytest.mark.alone

RACE = Race.read({"prompt": "Once", "variants": [{}]})


def test_weights_by_part_sum_to_the_model(subject_of):
    for tied in (False, True):
        subject = subject_of(tie_word_embeddings=tied)
        parts = weights_by_part(subject)
        assert sum(parts.values()) == weight_bytes(subject.model)
        assert parts["embed"] == 64 * 64 * 4
        assert parts["feed_forward"] == 2 * 3 * 64 * 96 * 4
        assert ("head" in parts) is not tied  # a shared matrix counts for the embedding


def test_work_is_what_the_shapes_need(subject_of, prompt):
    subject = subject_of()
    work = measure_work(subject, prompt(10))
    ffn = 3 * 64 * 96
    assert work["decode"]["feed_forward"]["flops"] == 2 * 2 * ffn  # 2 layers, one token
    assert work["prefill"]["feed_forward"]["flops"] == 10 * 2 * 2 * ffn
    assert work["decode"]["feed_forward"]["bytes"] == 2 * (4 * ffn + 4 * 3 * (64 + 96))
    linears = 64 * 64 * 2 + 64 * 32 * 2
    pairs = {"decode": 11, "prefill": 55}
    for shape, tokens in (("decode", 1), ("prefill", 10)):
        assert work[shape]["attention"]["flops"] == 2 * (2 * tokens * linears + 4 * 4 * 16 * pairs[shape])
    assert work["decode"]["cache"]["bytes"] == 2 * (2 * 2 * 16 * 4)
    assert work["decode"]["head"]["flops"] == work["prefill"]["head"]["flops"] == 2 * 64 * 64  # the last token alone


def test_a_sliding_layer_reads_its_window_only(subject_of, prompt):
    subject = subject_of("gemma")
    work = measure_work(subject, prompt(100))
    full, sliding = 101, 15  # tokens read: all, and what a window of 16 keeps before the new one
    one = 2 * 2 * 16 * 4
    linears = sum(p.nbytes for n, p in subject.model.named_parameters() if "self_attn" in n and "proj" in n)
    moved = work["decode"]["attention"]["bytes"] - linears - 2 * 4 * (2 * (64 + 64) + 2 * (64 + 32))
    assert one * (full + sliding - 1) <= moved <= one * (full + sliding + 1)


def test_the_profile_names_operators_and_leaves_a_trace(subject_of, prompt, tmp_path):
    subject = subject_of()
    for shape, runs in (("decode", STEPS), ("prefill", 1)):
        trace = tmp_path / f"{shape}.json.gz"
        found = profiled(subject, Sampling(), 1, prompt(12), shape, trace)
        names = [row[0] for row in found["rows"]]
        assert "aten::mm" in names or "aten::addmm" in names
        softmax = next(row for row in found["rows"] if "scaled_dot_product" in row[0])
        assert softmax[1] == 2 * runs  # a call a layer and run
        assert [row[2] for row in found["rows"][:-1]] == sorted((row[2] for row in found["rows"][:-1]), reverse=True)
        events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
        assert any(event.get("name") == softmax[0] for event in events)
        assert found["trace_bytes"] == trace.stat().st_size


def test_a_planted_outlier_is_found_in_its_layer_and_channel(subject_of, prompt):
    subject = subject_of()
    subject.sample_ids = prompt(80)
    quiet = find_outliers(subject)
    with torch.no_grad():
        subject.model.model.layers[1].input_layernorm.weight[7] = 300.0
    found = find_outliers(subject)
    worst = found["layers"][0]
    assert worst["name"].startswith("model.layers.1.self_attn.")
    assert worst["channel"] == 7
    before = next(one for one in quiet["layers"] if one["name"] == worst["name"])
    assert worst["ratio"] > 2 * before["ratio"]  # one channel of 64 bounds it: the channel fills the rms itself
    assert worst["zero_share"] > 0.5  # one scale for all: the rest is lost
    calm = next(one for one in found["layers"] if one["name"] == "model.layers.0.self_attn.q_proj")
    assert calm["zero_share"] < 0.2
    assert sum(worst["histogram"]) == 80 * 64
    assert len(found["edges"]) == BINS + 1
    assert len(found["layers"]) == 2 * 7 + 1


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_simulated_dynamic_int8_is_what_the_kernel_computes(scale):
    torch.manual_seed(0)
    from torch.ao.quantization import quantize_dynamic

    x = torch.randn(9, 64)
    x[3, 5] *= scale
    packed = quantize_dynamic(nn.Sequential(nn.Linear(64, 32)), {nn.Linear}, dtype=torch.qint8)[0]
    weight = packed.weight().dequantize()
    want, got = packed(x), F.linear(dynamic_int8(x), weight, packed.bias())
    assert (want - got).abs().max() < 1e-3 * want.abs().max()
    assert (want - F.linear(x, weight, packed.bias())).abs().max() > 3e-3 * want.abs().max()  # it does something


def test_simulated_int4_is_what_the_packed_layer_holds():
    torch.manual_seed(0)
    linear = nn.Linear(80, 32, bias=False)  # 80 is no multiple of the group
    rounded = int4_groups(linear.weight)
    packed = Int4Linear(linear, 32)
    x = torch.eye(80)
    assert (packed(x) - F.linear(x, rounded)).abs().max() < 0.01 * linear.weight.abs().max()
    assert (int4_groups(rounded) - rounded).abs().max() < 0.02 * linear.weight.abs().max()
    assert int4_groups(linear.weight)[0].unique().numel() <= 3 * 16


@pytest.mark.parametrize("shape", ["llama", "gemma"])
def test_attention_maps_are_causal_and_sum_to_one(subject_of, prompt, shape):
    subject = subject_of(shape)
    before = subject.model.config._attn_implementation
    maps = attention_weights(subject, prompt(24))
    assert len(maps) == 2
    for weights in maps:
        assert weights.shape == (4, 24, 24)
        assert torch.allclose(weights.float().sum(-1), torch.ones(4, 24), atol=2e-3)
        assert weights.float().triu(1).abs().max() == 0
    assert subject.model.config._attn_implementation == before
    found = unpack_map({"heads": 4, "tokens": 24, "packed": packed_map(maps[0])})
    assert abs(torch.from_numpy(found) - maps[0].float()).max() < 0.003


def test_maps_of_a_large_model_show_fewer_tokens(subject_of, prompt):
    subject = subject_of()
    assert map_tokens(subject, prompt(300)) == 128
    subject.model.config.num_hidden_layers = 5000
    assert map_tokens(subject, prompt(300)) == 14


def test_entropy_knows_a_single_token_from_all_alike():
    alike = torch.tril(torch.ones(1, 6, 6))
    alike = alike / alike.sum(-1, keepdim=True)
    single = torch.zeros(1, 6, 6)
    single[0, :, 0] = 1.0
    assert head_facts(alike)["entropy"] == [1.0]
    assert head_facts(single)["entropy"] == [0.0]
    assert head_facts(single)["first"] == [1.0]


def test_a_heads_gradient_is_the_slope_of_the_loss(subject_of, prompt):
    subject = subject_of()
    ids = prompt(32)
    with torch.no_grad():
        subject.model.model.layers[0].self_attn.o_proj.weight[:, 16:32] = 0  # head 1 adds nothing
    found = importance.head_gradients(subject, ids)
    assert found[0][1] == 0
    assert found[1][2] > 0

    def loss(gate: float) -> float:
        weight = subject.model.model.layers[1].self_attn.o_proj.weight
        kept = weight[:, 32:48].clone()
        with torch.no_grad():
            weight[:, 32:48] = gate * kept
            logits = subject.model(torch.tensor([ids])).logits[0, :-1]
            weight[:, 32:48] = kept
        return float(F.cross_entropy(logits, torch.tensor(ids[1:])))

    assert found[1][2] == pytest.approx(abs(loss(1.01) - loss(0.99)) / 0.02, rel=0.05)


def test_packed_layers_say_why_they_have_no_gradient_and_no_sensitivity(subject_of, prompt):
    subject = subject_of()
    subject.sample_ids = prompt(80)
    layer = subject.model.model.layers[1].mlp
    layer.up_proj = Int4Linear(layer.up_proj, 32)
    inspector = Inspector(subject, RACE, prompt(8), prompt(80))
    assert "model.layers.1.mlp.up_proj" in inspector.importance_texts()["reason"]
    assert "packed already" in inspector.sensitivity_units()["reason"]
    assert "reason" not in inspector.outliers()
    assert inspector.outliers()["layers"][0]["name"]


def test_a_layer_that_is_sensitive_by_construction_ranks_first(subject_of, prompt):
    subject = subject_of(num_hidden_layers=3)
    with torch.no_grad():
        for name, layer in subject.linears().items():
            if not name.startswith("model.layers.1."):
                layer.weight.copy_(int4_groups(layer.weight))  # already on the grid: rounding again changes little
    scored = Sensitivity(subject, prompt(80))
    assert scored.units == ["0", "1", "2", HEAD]
    assert len(scored.pairs) == 12
    kld = {unit: scored.measure("int4", unit)["kld"] for unit in scored.units}
    assert max(kld, key=kld.get) == "1"
    assert kld["1"] > 10 * max(kld["0"], kld["2"], kld[HEAD])
    assert not any("forward" in vars(layer) for layer in subject.linears().values())
    with torch.no_grad():
        # A large channel that no weight listens to: it changes nothing but the one scale, under which the rest is lost.
        subject.model.model.layers[2].input_layernorm.weight[3] = 5000.0
        block = subject.model.model.layers[2].self_attn
        for layer in (block.q_proj, block.k_proj, block.v_proj):
            layer.weight[:, 3] = 0
    scored = Sensitivity(subject, prompt(80))
    hurt = {unit: scored.measure("int8_dynamic", unit)["kld"] for unit in scored.units}
    assert max(hurt, key=hurt.get) == "2"


def test_int8_weights_alone_are_simulated_as_their_layers_compute():
    torch.manual_seed(0)
    layer = nn.Linear(100, 48)
    rows = torch.randn(32, 100)  # more rows than the packed kernel takes: exact but for the weights
    want = F.linear(rows, int8_rows(layer.weight), layer.bias)
    assert torch.allclose(Int8Linear(layer)(rows), want, atol=1e-5)


def test_sensitivity_to_eight_bits_is_below_that_to_four(subject_of, prompt):
    scored = Sensitivity(subject_of(num_hidden_layers=3), prompt(80))
    for unit in scored.units:
        assert 0 <= scored.measure("int8", unit)["kld"] < 0.1 * scored.measure("int4", unit)["kld"]


def test_a_head_is_split_where_there_is_text_to_choose_its_rows_by(subject_of, prompt):
    subject = subject_of(num_hidden_layers=2)
    subject.sample_ids = prompt(64)
    scored = Sensitivity(subject, prompt(80))
    assert scored.pairs[-1] == ("split", HEAD)
    kld = {scheme: scored.measure(scheme, HEAD)["kld"] for scheme in ("int8", "split", "int4")}
    assert kld["int8"] < kld["split"]


def test_random_weights_show_times_but_no_numbers(subject_of, prompt):
    from dataclasses import replace

    subject = subject_of()
    subject = replace(subject, facts=replace(subject.facts, random_weights=True))
    inspector = Inspector(subject, RACE, prompt(8), [])
    for verb in ("outliers", "attention", "importance_texts", "sensitivity_units"):
        assert "random" in getattr(inspector, verb)()["reason"]
    assert inspector.part_times()["decode"]["step_s"] > 0


def test_part_times_and_work_speak_of_the_same_parts(subject_of, prompt):
    found = Inspector(subject_of(), RACE, prompt(12), []).part_times()
    for shape in ("decode", "prefill"):
        assert {"attention", "feed_forward", "norm", "head"} <= set(found[shape]["parts"]) & set(found["work"][shape])
        assert len(found[shape]["layers"]) == 2


def test_the_timeline_sees_what_a_phase_takes():
    gc.collect()  # what earlier tests left must not be given back while this one reads
    timeline = Timeline(MemoryMeter())
    timeline.watch_memory("quiet")
    time.sleep(0.03)
    timeline.watch_memory("loud")
    block = torch.ones(64 << 20)  # 256 MiB
    time.sleep(0.05)
    del block
    found = timeline.end_watch()
    quiet, loud = found["phases"]
    assert loud["peak_bytes"] - quiet["peak_bytes"] > 150e6
    assert quiet["end_s"] <= loud["start_s"] < loud["end_s"]
    assert max(found["resident_bytes"]) > 150e6
    assert found["at_s"] == sorted(found["at_s"])


def test_thinning_keeps_every_peak():
    points = [(float(i), 1_000 if i == 777 else 1) for i in range(1001)]
    kept = thinned(points, 50)
    assert len(kept) <= 50
    assert (777.0, 1_000) in kept


def test_the_machines_peak_is_measured_once(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(peaks, "LARGEST", peaks.SMALLEST)
    first = peaks.machine_peak(torch.device("cpu"))
    assert first["kept"] is False
    assert first["read_bytes_per_s"] > 1e8
    assert first["flops_per_s"]["float32"] > 1e8
    second = peaks.machine_peak(torch.device("cpu"))
    assert second["kept"] is True
    assert second["flops_per_s"] == first["flops_per_s"]
    (home / "machine-peak.json").write_text("{")
    assert peaks.machine_peak(torch.device("cpu"))["kept"] is False  # a damaged file is measured anew


def test_a_type_without_a_kernel_has_no_peak():
    assert peaks.peak("bool", torch.device("cpu")) is None


@pytest.mark.real
def test_gemmas_outlier_layers_are_found(gemma_folder: Path):
    from backend.engine.load import load
    from backend.engine.text import encode
    from backend.modelref import ModelRef
    from backend.texts import held_out_text

    ref = ModelRef("gemma", "folder", gemma_folder)
    subject = load(ref)
    subject.sample_ids = encode(subject, held_out_text(ref).text[:4000])
    found = find_outliers(subject)
    worst = found["layers"][0]
    assert worst["ratio"] > 50
    assert worst["zero_share"] > 0.5
    spoiled = [one for one in found["layers"] if one["zero_share"] > 0.5]
    assert len(spoiled) >= 3
    assert sensitivity.why_not(subject) == ""
