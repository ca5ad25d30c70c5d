"""The worker: claims jobs, runs them, writes the journal. Loads no model itself.

`python -m backend.worker` runs until it is told to stop. Races, inspections and savings go one at a time, in the order
in which they were asked for; fetching a model goes on beside them in a thread of its own.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import threading
import time
from contextlib import suppress
from functools import partial
from typing import Any

from backend import gemma, minilm
from backend.catalog import model_facts, resolve
from backend.contextway import Contextway
from backend.encoding import Encodeway
from backend.ending import FULL_WAIT_S, end_well
from backend.executors.local import LocalExecutor
from backend.fetched import FETCHED, GEMMA
from backend.forecast import check_memory
from backend.idle import IdleMeasurement
from backend.inspecting import Inspectway
from backend.journal import IN_TURN, Job, Journal, JournalFull
from backend.phases import run_phases
from backend.raceway import Raceway
from backend.recipe.base import RecipeError
from backend.recipe.contexts import ContextSweep
from backend.recipe.facts import ModelFacts, Task
from backend.recipe.inspection import Inspection
from backend.recipe.race import Race
from backend.recipe.serving import Serving
from backend.recipe.thinning import Thinning
from backend.savejob import SaveOrder, save
from backend.serveway import Serveway
from backend.serving.arrivals import check_load
from backend.thinning import Thinway
from backend.trainway import Trainings
from backend.watch import Cancelled, Progress
from backend.workername import lives, process_name

IDLE_S = 0.1
BEAT_S = 2.0
IN_STEPS: dict[str, tuple[type[Any], type[Any]]] = {  # jobs about a race: what each asks, and its way
    "inspect": (Inspection, Inspectway),
    "thin": (Thinning, Thinway),
    "context": (ContextSweep, Contextway),
}
log = logging.getLogger("headway.worker")


class Worker:
    """One process that takes jobs; its name says which process it is, so that a dead one is known as dead."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.name = process_name()
        self.stopping = threading.Event()
        self.executor = LocalExecutor()
        self.idle = IdleMeasurement(journal, self.executor, self.beat)
        self.trainings = Trainings(journal, self.name, self.executor, self.pulse)
        self._beaten = 0.0

    def beat(self) -> None:
        """Say every two seconds that the worker lives; end the job in hand when the worker is to stop."""
        if self.stopping.is_set():
            raise Cancelled
        self.pulse()

    def pulse(self) -> None:
        """Say every two seconds that the worker lives."""
        if time.monotonic() - self._beaten > BEAT_S:
            self.journal.beat(self.name, os.getpid())
            self._beaten = time.monotonic()

    def run(self) -> None:
        """Claim and run until stopped."""
        self.beat()
        self.journal.fail_orphans(alive=[name for name in self.journal.workers(groups=True) if lives(name)])
        self.executor.prepare()
        threading.Thread(target=self._fetch_models, name="fetch", daemon=True).start()
        while not self.stopping.is_set():
            try:
                self._take_turn()
            except Cancelled:
                break  # told to stop just now
            except JournalFull as error:
                log.warning("the journal's disk is full: %s", error)
                self.stopping.wait(FULL_WAIT_S)
        self.trainings.leave()
        with suppress(JournalFull):  # one that is silent is known to be gone before long
            self.journal.leave(self.name)

    def _take_turn(self) -> None:
        """One job that uses the whole machine, or a short rest."""
        self.beat()
        if job := self.journal.claim(self.name, *IN_TURN):
            began, waited = time.monotonic(), time.time() - job.created
            jobs = {"race": self._race, "encode": self._encode, "save": self._save, "serve": self._serve}
            end_well(self.journal, job, partial(jobs.get(job.kind, self._in_steps), job), self.stopping)
            self.trainings.gave_way(time.monotonic() - began, waited)
            self.idle.busy()
        elif training := self.trainings.take_up():
            end_well(self.journal, training, self.trainings.turn, self.stopping)
            self.idle.busy()
        else:
            self.idle.rest()
            self.stopping.wait(IDLE_S)

    def _race(self, job: Job) -> dict[str, float]:
        race = Race.read(job.spec)
        _check(race)
        with Raceway(self.journal, job.id, race, self.executor, self.beat).running() as way:
            run_phases(way)
            return {"wall_s": way.wall_s}

    def _encode(self, job: Job) -> dict[str, float]:
        race = Race.read(job.spec)
        _check(race, "encoder")
        return _to_end(Encodeway(self.journal, job.id, race, self.executor, self.beat))

    def _in_steps(self, job: Job) -> dict[str, float]:
        order, way = IN_STEPS[job.kind]
        asked = order.read(job.spec)
        _check(asked.race)
        return _to_end(way(self.journal, job.id, asked, self.executor, self.beat))

    def _serve(self, job: Job) -> dict[str, float]:
        asked = Serving.read(job.spec)
        check_load(asked, _check(asked.race))
        return _to_end(Serveway(self.journal, job.id, asked, self.executor, self.beat))

    def _save(self, job: Job) -> dict[str, float]:
        began = time.monotonic()

        def cancelled() -> bool:
            self.beat()
            return self.journal.cancelled(job.id)

        save(SaveOrder.read(job.spec), progress=teller(self.journal, job.id, "saving"), cancelled=cancelled)
        return {"wall_s": time.monotonic() - began}

    def _fetch_models(self) -> None:
        """Take fetch jobs, beside the races and with a journal connection of its own."""
        with Journal(self.journal.path) as journal:
            while not self.stopping.wait(IDLE_S * 5):
                try:
                    if job := journal.claim(self.name, *FETCHED):
                        end_well(journal, job, partial(self._fetch, journal, job), self.stopping)
                except JournalFull as error:
                    log.warning("no fetch can begin, the journal's disk is full: %s", error)

    def _fetch(self, journal: Journal, job: Job) -> dict[str, float]:
        began = time.monotonic()

        def cancelled() -> bool:
            return self.stopping.is_set() or journal.cancelled(job.id)

        progress = teller(journal, job.id, "fetching")
        accepting = partial(gemma.fetch, accepted=bool(job.spec.get("accepted")))
        (accepting if job.kind == GEMMA else minilm.fetch)(progress=progress, cancelled=cancelled)
        if cancelled():
            raise Cancelled
        return {"wall_s": time.monotonic() - began}


def _to_end(way: Any) -> dict[str, float]:
    with way.running():
        way.run()
        return {"wall_s": way.wall_s}


def teller(journal: Journal, job: int, name: str) -> Progress:
    """What hears the progress of another process's work, and writes it into the journal with the time that is left."""
    began, first = time.monotonic(), -1.0

    def tell(share: float, text: str) -> None:
        nonlocal first  # an earlier try may have come far already: only what this one did tells its speed
        first = share if first < 0 else first
        eta = (time.monotonic() - began) * (1 - share) / (share - first) if share > first else None
        journal.append(job, [("phase", None, {"name": name, "done": share, "total": 1.0, "eta_s": eta, "text": text})])

    return tell


def _check(race: Race, task: Task = "decoder") -> ModelFacts:
    """Refuse what this model on this machine cannot do, before anything is loaded."""
    facts = model_facts(resolve(race.model, race.revision), race.trust_remote_code)
    if facts.task != task:
        remedy = "Choose another model, or race this one on the Bench or by `python -m backend race`."
        raise RecipeError("model", f"{race.model}, of the task {facts.task}", f"a model of the task {task}", remedy)
    race.check(facts)
    check_memory(race, facts)
    return facts


def main() -> None:
    """Run one worker until it is told to stop."""
    argparse.ArgumentParser(prog="python -m backend worker", description=main.__doc__).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    with Journal() as journal:
        worker = Worker(journal)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stopping.set())
        worker.run()


if __name__ == "__main__":
    main()
