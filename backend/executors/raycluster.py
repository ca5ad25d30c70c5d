"""A training on a Ray cluster: Ray Train starts the processes, and the first of them answers here, over a connection.

Ray is imported by name, and only here: it is no part of what Headway needs.
"""

from __future__ import annotations

from backend.engine import quiet  # noqa: F401  before torch

# isort: split
import importlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from backend.engine.training.replicas import Replicas, join
from backend.executors.local import LaneDied, LocalLane
from backend.journal import state_folder
from backend.laneprocess import answer_verbs, teller
from backend.recipe.base import RecipeError
from backend.recipe.training import LaneTask, Training
from backend.traingroup import GroupLane, follow

PIP = "pip install ray==2.60.0"
KNOCK_S = 5.0
START_S = 300.0  # for Ray to start the processes
END_S = 60.0  # for them to end by themselves


class RayExecutor:
    """Ray, from when a training is to start until it is over."""

    def __init__(self, asked: Training, workers: int) -> None:
        """Connect to the cluster at RAY_ADDRESS, or start one on this machine.

        Raises:
            RecipeError: for no Ray or no cluster, fewer CPUs or GPUs than processes, or a batch that they cannot share.
        """
        if workers < 1:
            raise RecipeError("--ray", workers, "a number of processes, 1 or more", "Give another number.")
        Replicas(0, workers).part(asked)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody else
        self._ray = part_of_ray("ray")
        self._connect()
        self._workers = workers
        self._gpus = self._kind(asked) == "GPU"
        self._lane: RayLane | None = None

    def _connect(self) -> None:
        try:
            _knock(os.environ.get("RAY_ADDRESS", ""))
            self._ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # Ray raises a bare one where it waited in vain
            where = os.environ.get("RAY_ADDRESS", "on this machine")
            remedy = f"Correct RAY_ADDRESS, or try again when the machine is idle. Ray says: {str(error)[:200]}"
            raise RecipeError("--ray", f"no cluster {where}", "a Ray cluster that answers", remedy) from error

    def _kind(self, asked: Training) -> str:
        """What each process gets one of, CPU or GPU."""
        there = self._ray.cluster_resources()
        on = getattr(asked.student.get("device"), "name", None)
        kind = "GPU" if there.get("GPU", 0) and on != "cpu" else "CPU"
        if self._workers > there.get(kind, 0):
            most = int(there.get(kind, 0))
            self._ray.shutdown()
            raise RecipeError("--ray", self._workers, f"at most {most}, the {kind}s of this cluster", "Ask for fewer.")
        return kind

    def start(self, name: str, spec: dict[str, Any], task: LaneTask = "training") -> LocalLane:
        """Let Ray start the processes.

        Raises:
            LaneDied: when it could not.
        """
        here = self._ray.util.get_node_ip_address()
        self._lane = RayLane(name, here, lambda address, key: self._fit(spec, address, key))
        return self._lane

    def _fit(self, spec: dict[str, Any], address: Any, key: bytes) -> None:
        train, torch = part_of_ray("ray.train"), part_of_ray("ray.train.torch")
        config = {"spec": spec, "address": address, "key": key, "home": str(state_folder())}
        torch.TorchTrainer(
            _process,
            train_loop_config=config,
            torch_config=torch.TorchConfig(backend="cpu:gloo,cuda:nccl" if self._gpus else "gloo"),
            scaling_config=train.ScalingConfig(num_workers=self._workers, use_gpu=self._gpus),
            run_config=train.RunConfig(storage_path=str(state_folder() / "ray")),
        ).fit()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._lane is not None:
            self._lane.stop()
        self._ray.shutdown()


class RayLane(LocalLane):
    """The connection to the first process, and the thread that waits for Ray to be done with all of them."""

    def __init__(self, name: str, here: str, fit: Callable[[Any, bytes], None]) -> None:
        self.name = name
        self._error: Exception | None = None
        key = secrets.token_bytes(32)
        self._listener = Listener((here, 0), authkey=key)
        self._fitting = threading.Thread(target=self._fit, args=(fit, key), daemon=True)
        self._fitting.start()
        self._pipe = self._accept()

    def _fit(self, fit: Callable[[Any, bytes], None], key: bytes) -> None:
        try:
            fit(self._listener.address, key)
        except Exception as error:  # of Ray, or of any process: it is the reason that the lane's death has
            self._error = error

    def _accept(self) -> Connection:
        """The connection, once the first process has made it.

        Raises:
            LaneDied: when Ray is done before, or has not begun after START_S.
        """
        found: list[Connection] = []
        waiting = threading.Thread(target=lambda: found.append(self._listener.accept()), daemon=True)
        waiting.start()
        until = time.monotonic() + START_S
        while not found:
            waiting.join(0.1)
            if not found and not self._fitting.is_alive():
                raise self._death(0)
            if not found and time.monotonic() > until:
                detail = f"Ray has started no process in {START_S:.0f} s."
                raise LaneDied("the Ray cluster is busy", detail, "Ask for fewer processes, or wait for others to end.")
        return found[0]

    def _death(self, oom_before: int) -> LaneDied:
        self._fitting.join(END_S)
        detail = " ".join(str(self._error or "Ray gave no reason.").split())[:300]
        return LaneDied("a process on the Ray cluster ended", detail, "Start it again.")

    def stop(self) -> None:
        """Let go of the first process, which lets go of the others; give Ray a while to see it."""
        self._pipe.close()
        self._listener.close()
        self._fitting.join(END_S)


def _process(config: dict[str, Any]) -> None:
    """What Ray runs in each process: Ray Train has joined them already."""
    os.environ["HEADWAY_HOME"] = config["home"]
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    Path(config["home"]).mkdir(parents=True, exist_ok=True)
    replicas = join()
    if not replicas.leads:
        follow(config["spec"], replicas)
        return
    with Client(tuple(config["address"]), authkey=config["key"]) as connection:
        lane = GroupLane("student", config["spec"], teller(connection), replicas)
        try:
            with suppress(OSError):  # whoever asked for it is gone
                answer_verbs(connection, lambda: lane)
        finally:
            lane.leave()


def _knock(address: str) -> None:
    """See in seconds whether anybody listens at host:port: Ray itself would try for minutes.

    Raises:
        OSError: when nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), KNOCK_S).close()


def part_of_ray(module: str) -> Any:
    """A module of Ray.

    Raises:
        RecipeError: where it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        remedy = f"Install it ({PIP}), or start processes without it: docs/scale.md."
        raise RecipeError("--ray", f"no Ray here ({error})", "Ray in this environment", remedy) from error
