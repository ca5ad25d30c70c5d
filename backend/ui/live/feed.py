"""What the live element is told: the race's standing, and of every growing list only what the element lacks."""

from __future__ import annotations

from typing import Any

from backend.journal import Job, Journal
from backend.recipe.race import Race
from backend.replay import LaneView, RaceView
from backend.ui import words
from backend.ui.palette import look

Held = dict[str, tuple[int, int]]  # lane -> (tokens, scores) that an element has already


class Feed:
    """One race as it is followed: its folded events, and `seq`, which grows when there is something to tell."""

    def __init__(self, job: Job) -> None:
        self.job, self.race = job, Race.read(job.spec)
        self.view = RaceView()
        self.seq = 0
        self._seen: Any = None
        self._waiting = ""

    def follow(self, journal: Journal) -> Job:
        """Fold in what is new and return the job as it stands."""
        job = journal.job(self.job.id)
        self.view.apply_all(journal.events(self.job.id, self.view.last_id))
        self.job = job or self.job
        self._waiting = "" if self.job.ended or self.view.phase else waiting_words(journal, self.job)
        seen = (self.view.last_id, self.job.state, self.job.cancel, self._waiting)
        if seen != self._seen:
            self._seen = seen
            self.seq += 1
        return self.job

    def tell(self, held: Held | None = None) -> dict[str, Any]:
        """The payload for an element that has `held` already; nothing held is everything from the first token on."""
        return self._compose(held or {}, self._waiting)

    def _lanes(self) -> list[tuple[str, LaneView]]:
        return [(name, self.view.lanes.get(name) or LaneView(name)) for name, _ in self.race.lanes]

    def _compose(self, since: Held, waiting: str) -> dict[str, Any]:
        labels = {name: recipe.label for name, recipe in self.race.lanes}
        simulated = {name: recipe.simulated for name, recipe in self.race.lanes}
        lanes = []
        for name, lane in self._lanes():
            data = lane_data(lane, *since.get(name, (0, 0)))
            tag = " (simulated)" if simulated[name] else ""
            head = {
                "title": look(name).title,
                "label": (lane.label or labels[name]) + tag,
                "simulated": simulated[name],
            }
            lanes.append(data | head)
        return {
            "key": str(self.job.id),
            "seq": self.seq,
            "state": self.job.state,
            "total": self.race.max_new_tokens,
            "scored": bool(self.view.opened.get("scored", True)),
            "progress": progress(self.view, self.job, waiting),
            "lanes": lanes,
        }


def lane_data(lane: LaneView, tokens_from: int = 0, scores_from: int = 0) -> dict[str, Any]:
    """One lane's payload: its standing, and its tokens and scores from the given places on."""
    memory, perplexity = lane.memory, lane.perplexity
    held = [memory.get(f"{part}_bytes") or 0 for part in ("weights", "kv", "other")] if memory else None
    return {
        "name": lane.name,
        "phase": lane.phase,
        "failure": words.failure(lane.failure) if lane.failure else "",
        "from": tokens_from,
        "ids": lane.ids[tokens_from:],
        "texts": lane.texts[tokens_from:],
        "clock": [round(at, 4) for at in lane.clock[tokens_from:]],
        "drafted": lane.drafted[tokens_from:],
        "drafting": words.drafting_line(lane.speculation),
        "experts": lane.routing.experts,
        "picks": lane.routing.picks[max(0, tokens_from - 1) :],  # a token's come with the token after it
        "read": lane.routing.prompt,
        "dropped": lane.routing.share_dropped,
        "kfrom": scores_from,
        "kld": [float(f"{value:.4g}") for value in lane.decode.kld[scores_from:]],
        "speed": lane.tokens_per_s,
        "memory": held,
        "perplexity": perplexity.get("value"),
    }


def progress(view: RaceView, job: Job, waiting: str) -> dict[str, Any]:
    """The phase in words, its share done, and the time left."""
    phase = view.phase
    if waiting or not phase:
        return {"name": job.state, "text": waiting, "share": 0.0}
    total = phase.get("total") or 0
    share = min(1.0, phase.get("done", 0) / total) if total else 0.0
    text = words.phase_line(phase)
    if job.cancel and not job.ended:
        text = "cancelling: the race ends within a slice"
    return {"name": phase["name"], "text": text, "share": round(share, 3)}


def waiting_words(journal: Journal, job: Job) -> str:
    """Why a race has not begun."""
    if not journal.workers():
        return words.NO_WORKER
    return words.turn(journal.place(job.id)) if job.state == "queued" else "Starting."
