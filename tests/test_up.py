"""The supervisor: it starts both children, keeps them alive, and leaves nobody behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from backend.journal import Journal
from backend.up import answers, is_free
from tests.viewer import Viewer

pytestmark = pytest.mark.alone

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 90.0
STOP_S = 8.0
LONG_RACE = {
    "model": "storyteller",
    "prompt": "Once there was a lantern in the harbor.",
    "max_new_tokens": 480,
    "stop_at_end": False,
    "variants": [{"switches": {"int8_weight_only": {}}}],
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    until = time.monotonic() + patience_s
    while not what():
        assert time.monotonic() < until, f"waited {patience_s} s in vain"
        time.sleep(0.1)


def run_up(home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "backend", "up", *map(str, arguments)]
    environment = os.environ | {"HEADWAY_HOME": str(home)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)


@contextmanager
def running(home: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """An `up` of its own, answering."""
    command = [sys.executable, "-m", "backend", "up", "--port", str(port)]
    environment = os.environ | {"HEADWAY_HOME": str(home)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: answers(port) or process.poll() is not None)
        assert process.poll() is None
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


def child(up: subprocess.Popen[str], word: str) -> psutil.Process | None:
    """The child of `up` whose command line holds the word."""
    for process in psutil.Process(up.pid).children():
        try:
            if word in " ".join(process.cmdline()):
                return process
        except psutil.NoSuchProcess:
            continue
    return None


def family(up: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(up.pid).children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes if psutil.pid_exists(p.pid))


def test_killed_children_come_back_and_a_stop_leaves_nobody(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, port) as up:
        wait_for(lambda: child(up, "backend.worker"))
        worker, pages = child(up, "backend.worker"), child(up, "streamlit")
        assert pages.nice() == 19
        assert worker.nice() < 19

        worker.kill()
        wait_for(lambda: child(up, "backend.worker") not in (None, worker))
        pages.kill()
        wait_for(lambda: child(up, "streamlit") not in (None, pages) and answers(port))

        again = run_up(tmp_path)
        assert again.returncode == 0
        assert f"http://127.0.0.1:{port}" in again.stdout
        assert str(up.pid) in again.stdout
        assert run_up(tmp_path, "--port", free_port()).returncode == 2

        everybody = family(up)
        assert len(everybody) >= 2
        up.send_signal(signal.SIGTERM)
        output, _ = up.communicate(timeout=PATIENCE_S)
        assert up.returncode == 0
        assert f"Headway runs at http://127.0.0.1:{port}" in output
        assert "The worker ended with signal 9" in output
        wait_for(lambda: gone(everybody), 10)
        assert is_free(port)


def test_even_a_killed_supervisor_leaves_nobody(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, port) as up:
        wait_for(lambda: child(up, "backend.worker"))
        everybody = family(up)
        up.kill()
        up.wait()
        wait_for(lambda: gone(everybody), 60)
        assert is_free(port)
        assert json.loads((tmp_path / "up.json").read_text())["pid"] == up.pid
        with running(tmp_path, port) as second:  # the folder of a killed one is free again
            assert json.loads((tmp_path / "up.json").read_text())["pid"] == second.pid


def test_ctrl_c_in_mid_race_with_pages_open_ends_everything_in_time(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, port) as up, Journal(tmp_path / "journal.sqlite") as journal:
        job = journal.submit("race", LONG_RACE)
        with Viewer(port, job) as first, Viewer(port, job) as second:
            wait_for(lambda: any(first.ids().values()) and any(second.ids().values()))
            everybody = family(up)
            assert len(everybody) >= 5  # the pages, the worker, its fork server, and two lanes
            began = time.monotonic()
            up.send_signal(signal.SIGINT)
            up.communicate(timeout=PATIENCE_S)
            assert time.monotonic() - began < STOP_S
        assert up.returncode == 0
        wait_for(lambda: gone(everybody), 2)
        assert is_free(port)
        assert journal.job(job).state == "cancelled"
        assert journal.last(job, "tokens") is not None


def test_a_taken_port_is_said_with_the_way_out(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        answer = run_up(tmp_path, "--port", port)
    assert answer.returncode == 2
    assert f"Port {port} is taken" in answer.stderr
    assert f"--port {port + 1}" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("port", ["80", "70000", "http"])
def test_an_impossible_port_is_refused(tmp_path: Path, port: str) -> None:
    answer = run_up(tmp_path, "--port", port)
    assert answer.returncode == 2
    assert port in answer.stderr


@pytest.mark.parametrize("command", ["up", "worker", "race", "models", "gemma"])
def test_every_command_has_help(command: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "backend", command, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert answer.returncode == 0
    assert re.search(rf"usage: python -m backend[ .]{command}", answer.stdout)


def test_an_unknown_command_is_refused_with_the_known_ones() -> None:
    answer = subprocess.run([sys.executable, "-m", "backend", "fly"], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 2
    assert "race" in answer.stderr
