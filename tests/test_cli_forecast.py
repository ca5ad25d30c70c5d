"""`python -m backend forecast`: from every sort of config, in tables and JSON; and a line for each that is bad."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backend.cli_forecast import add_arguments, run, told
from backend.known_machines import KNOWN_MACHINES
from backend.machine import machine_key, peak_file

ROOT = Path(__file__).resolve().parents[1]
TYPED = {
    "model_type": "llama", "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8,
    "num_attention_heads": 8, "vocab_size": 768, "max_position_embeddings": 1024, "tie_word_embeddings": True,
}  # fmt: skip


def forecast(*arguments: str) -> int:
    import argparse

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(list(arguments)))


def predicted(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert forecast(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def measured_machine(home: Path) -> None:
    """As if the worker had measured this machine."""
    facts = {"threads": 2, "device": "cpu", "buffer_bytes": 1 << 30, "read_bytes_per_s": 2e10, "copy_bytes_per_s": 1e10,
             "reads": [[1 << 20, 8e10]], "flops_per_s": {"float32": 1e11, "bfloat16": 4e11}}  # fmt: skip
    peak_file().write_text(json.dumps({machine_key("cpu", 2): facts}))


def test_the_command_runs_without_torch(home: Path) -> None:
    line = "import sys; sys.argv=['forecast', 'shape:llama-8b']; from backend.cli_forecast import main; code = main()"
    check = f"{line}; assert 'torch' not in sys.modules; sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "8,030,261,248 parameters" in done.stdout
    assert "predicted" in done.stdout


def test_every_sort_of_config_is_forecast(
    home: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.prediction.free_bytes", lambda device: 10**10)  # it changes from one to the next
    typed = predicted(capsys, json.dumps(TYPED))
    assert typed == predicted(capsys, f"shape:{json.dumps(TYPED)}")
    parts = typed["lanes"]["base"]["parameters"]
    assert parts["attention"] == 8 * 4 * 512 * 512
    assert parts["feed-forward"] == 8 * 3 * 512 * 1376
    assert parts["embedding"] == 768 * 512
    assert sum(parts.values()) == typed["parameters"]
    folder = predicted(capsys, str(tiny_folder))
    assert folder["lanes"]["base"]["weights_bytes"] == 4 * folder["parameters"]


def test_without_a_measured_machine_no_speed_is_made_up(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = predicted(capsys, "shape:llama-1b")
    assert found["here"] is None
    assert found["lanes"]["base"]["tokens_per_s"] is None
    assert "not been measured yet" in told(found)
    assert len(found["elsewhere"]) == len(KNOWN_MACHINES)


def test_the_ceiling_here_comes_from_the_measured_bandwidth(
    measured_machine: None, capsys: pytest.CaptureFixture[str]
) -> None:
    lanes = predicted(capsys, "shape:llama-1b", "--context", "256")["lanes"]
    for lane in lanes.values():
        assert lane["tokens_per_s"] == pytest.approx(8e10 / lane["moved_bytes"] * lane["round_tokens"]) or lane[
            "tokens_per_s"
        ] == pytest.approx(2e10 / lane["moved_bytes"])
    speeds = [lane["tokens_per_s"] for lane in lanes.values()]
    assert speeds == sorted(speeds)


def test_context_and_recipe_move_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = '{"switches": {"kv_heads": {"count": 2}}}'
    short, long = (predicted(capsys, "shape:llama-1b", "--context", n, "--recipe", recipe) for n in ("128", "4096"))
    assert [lane["label"] for lane in short["lanes"].values()] == ["unchanged", "GQA 2"]
    for found in (short, long):
        base, few = found["lanes"]["base"], found["lanes"]["A"]
        assert base["kv_bytes"] == 4 * few["kv_bytes"] == base["kv_bytes_per_token"] * found["context"]
    assert long["lanes"]["base"]["run_bytes"] > short["lanes"]["base"]["run_bytes"]
    preset = predicted(capsys, "storyteller", "--recipe", "storyteller-int8-and-draft")
    assert preset["lanes"]["A"]["round_tokens"] > 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (['{"model_type": "llama", "hidden_size": 64}'], ("num_hidden_layers", "missing", "Set num_hidden_layers")),
        ([json.dumps(TYPED | {"hidden_size": "wide"})], ("hidden_size is wide", "whole number")),
        ([json.dumps(TYPED | {"hidden_size": 10**30})], ("hidden_size", "1 to 1,000,000,000")),
        ([json.dumps(TYPED | {"model_type": "frobnicator"})], ("model_type is frobnicator", "llama", "race it")),
        (['{"model_type": "lla\0ma"}'], ("\\x00", "JSON")),
        ([json.dumps({"model_type": "lla\0ma"})], ("model_type is lla\\\\x00ma",)),
        (["folder\0name"], ("NUL",)),
        (['{"model_type": ' + '{"a": ' * 5000], ("Correct the JSON",)),
        (["shape:llama-1b", "--context", "0"], ("--context", "1 to 131072")),
        (["shape:llama-1b", "--context", "10", "--prompt-tokens", "11"], ("--prompt-tokens", "1 to 10")),
        (["shape:llama-1b", "--recipe", '{"switches": {"nonsense": {}}}'], ("switches.nonsense",)),
        (["shape:llama-1b", "--recipe", '{"switches": {"kv_heads": {"count": 3}}}'], ("switches.kv_heads", "divides")),
        (["x" * 5000], ("model",)),
    ],
)  # fmt: skip
def test_bad_input_gets_one_line(
    home: Path, arguments: list[str], words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert forecast(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("headway: ")
    assert "Allowed: " in err
    for word in words:
        assert word in err


def test_a_gguf_file_cut_in_half_gets_one_line(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np
    from gguf import GGUFWriter

    file = tmp_path / "small.gguf"
    writer = GGUFWriter(str(file), "llama")
    for add, value in (("add_embedding_length", 64), ("add_feed_forward_length", 128), ("add_block_count", 1),
                       ("add_head_count", 4), ("add_head_count_kv", 2), ("add_context_length", 256)):  # fmt: skip
        getattr(writer, add)(value)
    writer.add_tensor("token_embd.weight", np.zeros((96, 64), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    whole = predicted(capsys, str(file))
    assert whole["lanes"]["base"]["parameters"]["embedding"] == 96 * 64
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert forecast(str(file)) == 2
    assert "cut short" in capsys.readouterr().err
