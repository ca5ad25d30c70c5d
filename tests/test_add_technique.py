"""The steps in README.md, followed to the letter in a copy of the tree."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"```(?:python|json)\n(?:#|//) (\S+)\n(.*?)```", re.DOTALL)

TRY_IT = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from backend.recipe.facts import ModelFacts
from backend.recipe.race import all_presets
from backend.recipe.switch import all_switches, read_switch
from backend.techniques.base import Subject
from backend.techniques.registry import all_techniques, apply_switch, read_back

assert all_switches()["weight_noise"] in all_techniques()
assert all_presets()["storyteller-noise"].race.variants[0].simulated
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                                     num_attention_heads=2)).eval()
facts = ModelFacts("tiny", "llama", 2, 32, 64, 2, 2, 16, 64, 128, 1, 1)
subject = Subject(model, None, facts, torch.device("cpu"))
switch = read_switch("weight_noise", {"share": 0.2})
ids = torch.arange(8)[None]
before = model(ids).logits
apply_switch(subject, switch)
effect = read_back(subject, switch)
assert effect.took_effect and effect.simulated and abs(effect.facts["moved"] - 0.2) < 0.02, effect
assert not torch.allclose(before, model(ids).logits)
"""


def run(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=tree, capture_output=True, text=True, timeout=240)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The product without what was fetched or generated."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("backend", "presets", "pages"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "app.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tree / name)
    return tree


def test_the_steps_in_the_readme_add_a_technique(copy: Path) -> None:
    blocks = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert [Path(name).parts[:2] for name, _ in blocks] == [
        ("backend", "recipe"), ("backend", "techniques"), ("presets", "storyteller-noise.json"),
    ]  # fmt: skip
    for name, text in blocks:
        assert (copy / name).parent.is_dir(), f"{name}: no new folder is needed"
        assert not (copy / name).exists()
        (copy / name).write_text(text, encoding="utf-8")

    stale = run(copy, "-m", "backend.checks.docs")
    assert stale.returncode == 1
    assert "out of date" in stale.stdout
    assert run(copy, "-m", "backend.checks.docs", "--write").returncode == 0
    readme = (copy / "README.md").read_text(encoding="utf-8")
    assert "| `weight_noise` | Noise on weights |" in readme
    assert "| `storyteller-noise` | storyteller |" in readme
    assert run(copy, "-m", "backend.checks.docs").returncode == 0
    floors = run(copy, "-m", "backend.checks.floors")
    assert floors.returncode == 0, floors.stdout
    tried = run(copy, "-c", TRY_IT)
    assert tried.returncode == 0, tried.stderr


def test_the_example_reads_like_the_product(copy: Path) -> None:
    """The code in README.md passes the same lint and format as every other file."""
    blocks = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    files = [copy / name for name, _ in blocks if name.endswith(".py")]
    for path, (_, text) in zip(files, blocks, strict=False):
        path.write_text(text, encoding="utf-8")
    for check in (("check",), ("format", "--check")):
        done = run(copy, "-m", "ruff", *check, *map(str, files))
        assert done.returncode == 0, done.stdout
