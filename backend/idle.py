"""Idle: what the worker does once when nobody asks for anything: it measures the machine that forecasts are made for.

A lane with a model of a few thousand weights says what this machine reaches (engine/machine_peak.py) and what a
lane's process holds beside its model. Both are kept in the state folder. A job that comes meanwhile ends it at once;
the next quiet moment begins it again.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

from backend.executors.local import LaneDied, LocalExecutor
from backend.journal import IN_TURN, Journal
from backend.machine import keep_peaks, kept_process_bytes, process_file, process_key, this_machine
from backend.recipe.base import RecipeError

QUIET_S = 5.0  # without a job before it begins
TOKENS = 8
SMALL = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 256, "max_position_embeddings": 256,
}  # fmt: skip
log = logging.getLogger("headway.idle")


class Interrupted(Exception):
    """A job has come."""


class IdleMeasurement:
    """Measures this machine when the worker has been idle for a while and nothing is known of it yet."""

    def __init__(self, journal: Journal, executor: LocalExecutor, beat: Callable[[], None]) -> None:
        self._journal, self._executor, self._beat = journal, executor, beat
        self._quiet_since = time.monotonic()
        self._tried = False

    def busy(self) -> None:
        """A job was run: what follows begins to be quiet now."""
        self._quiet_since = time.monotonic()

    def rest(self) -> None:
        """No job is there: measure, if it is time to. Returns when it is done or a job has come."""
        if self._tried or time.monotonic() - self._quiet_since < QUIET_S:
            return
        self._tried = True
        if this_machine() is not None and kept_process_bytes() is not None:
            return
        try:
            self._measure()
        except Interrupted:
            self._tried = False
        except (LaneDied, RecipeError) as error:
            log.warning("this machine could not be measured, so forecasts name no speeds: %s", error)
        self.busy()

    def _measure(self) -> None:
        race = {"model": f"shape:{json.dumps(SMALL)}", "prompt": "Once", "max_new_tokens": TOKENS, "variants": [{}]}
        lane = self._executor.start("base", race)
        try:
            vocab = lane.call("load", self._waiting)["vocab"]
            lane.call("transform", self._waiting)
            memory = lane.call("warm", self._waiting, ring=None, vocab=vocab)["memory"]
            peak = lane.call("request", self._waiting, tokens=TOKENS)["peak_bytes"]
            held = int(peak - memory["weights_bytes"] - memory["kv_bytes"])
            kept = {"key": process_key(), "process_bytes": held, "at": time.time()}
            process_file().write_text(json.dumps(kept), encoding="utf-8")
            keep_peaks(lane.call("machine", self._waiting))
        finally:
            lane.stop()

    def _waiting(self) -> None:
        """Called ten times a second while the lane works."""
        self._beat()
        if any(job.kind in IN_TURN for job in self._journal.jobs(states=("queued",))):
            raise Interrupted
