"""Imports go down only; and the check itself sees each kind of breach."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from backend.checks.floors import PAGE_SIDE, is_in, violations
from backend.checks.imports import imports, modules

ROOT = Path(__file__).resolve().parents[1]


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_product_keeps_its_floors() -> None:
    assert violations(ROOT) == []


def test_what_the_pages_import_brings_no_torch_when_it_runs() -> None:
    names = [name for name in modules(ROOT) if is_in(name, *PAGE_SIDE) and name.startswith("backend.")]
    assert len(names) > 10
    code = f"""
import importlib, sys
for name in {names}: importlib.import_module(name)
print([name for name in ("torch", "transformers") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"backend/ui/form.py": "import torch\n"}, "brings torch"),
        ({"app.py": "def f():\n    from transformers import AutoModel\n"}, "brings transformers"),
        ({"pages/bench.py": "import backend.journal\n", "backend/journal.py": "from backend import deep\n",
          "backend/deep.py": "import torch.nn as nn\n"}, "backend.journal -> backend.deep -> torch.nn"),
        ({"backend/worker.py": "import backend.raceway\n", "backend/raceway.py": "import torch\n"}, "brings torch"),
        ({"backend/metrics.py": "from backend.ui import charts\n", "backend/ui/charts.py": ""}, "stands above"),
        ({"backend/recipe/race.py": "from backend.journal import Journal\n", "backend/journal.py": ""}, "stands above"),
        ({"backend/engine/load.py": "from backend.lane import Lane\n", "backend/lane.py": ""}, "stands above"),
        ({"backend/ui/live.py": "from backend.worker import Worker\n", "backend/worker.py": ""}, "journal only"),
        ({"backend/lane.py": "import streamlit as st\n"}, "streamlit"),
        ({"backend/techniques/prune/heads.py": "from ..quantize import int8\n",
          "backend/techniques/quantize/int8.py": ""}, "own folder"),
        ({"backend/techniques/prune/heads.py": "from backend.engine.load import load\n",
          "backend/engine/load.py": ""}, "stands above"),
        ({"backend/techniques/prune/heads.py": "from backend.journal import Journal\n", "backend/journal.py": ""},
         "own folder"),
    ],
)  # fmt: skip
def test_a_breach_is_named_with_its_place(tmp_path: Path, files: dict[str, str], said: str) -> None:
    found = violations(tree(tmp_path, files))
    assert len(found) >= 1
    assert any(said in line for line in found), found
    assert all(".py:" in line for line in found)


def test_what_is_allowed_is_not_named(tmp_path: Path) -> None:
    files = {
        "app.py": "import streamlit\nfrom backend.ui.live import draw\n",
        "backend/ui/live.py": "import streamlit, plotly\nfrom backend.replay import RaceView\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from torch import Tensor\n",
        "backend/replay.py": "from backend.journal import Event\n",
        "backend/journal.py": "import sqlite3\n",
        "backend/worker.py": "def start():\n    from backend.lane import Lane\n",
        "backend/lane.py": "import torch\nfrom backend.engine.load import load\n",
        "backend/engine/load.py": "import torch\nfrom backend.techniques.base import Subject\n",
        "backend/techniques/base.py": "import torch\n",
        "backend/techniques/anatomy.py": "import torch\n",
        "backend/techniques/prune/heads.py": "from backend.techniques.base import Subject\nfrom . import scores\n"
        "from backend.techniques.anatomy import layers\n",
        "backend/techniques/prune/scores.py": "",
    }
    assert violations(tree(tmp_path, files)) == []


def test_relative_imports_are_resolved(tmp_path: Path) -> None:
    root = tree(tmp_path, {"backend/a/__init__.py": "", "backend/a/b.py": "from . import c\n", "backend/a/c.py": ""})
    assert [step.target for step in imports(root)] == ["backend.a.c"]
