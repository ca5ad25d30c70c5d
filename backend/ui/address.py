"""What a page follows and starts from: a job, a shared setting or a preset, all kept in the address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import streamlit as st

from backend.journal import Job, JournalFull
from backend.recipe.base import Config, RecipeError
from backend.ui import desk
from backend.ui.share import MAX_LINK, pack, unfold

Card = dict[str, str]


@dataclass(frozen=True)
class Address:
    """The address of one page and what its session keeps; `kind` is that of its jobs, and their parameter's name."""

    kind: str
    setting: str  # parameter of a shared setting
    preset: str  # parameter of a preset's name

    def followed(self) -> Job | None:
        """The job that the address names, or that the session followed last; None without one."""
        number = st.query_params.get(self.kind) or str(st.session_state.get(self._key("job"), ""))
        if not number.isascii() or not number.isdigit() or len(number) > 15:
            return None
        job = desk.journal().job(int(number))
        if job is None or job.kind != self.kind:
            return None
        self.follow(job.id)
        return job

    def follow(self, number: int) -> None:
        """Stay with a job, in the session and in the address."""
        st.session_state[self._key("job")] = number
        if st.query_params.get(self.kind) != str(number):
            st.query_params[self.kind] = str(number)

    def open(self, number: int) -> None:
        """Follow a job and nothing else."""
        st.query_params.clear()
        self.follow(number)

    def shared(self) -> Any:
        """The setting of a shared link as plain data, or None without one.

        Raises:
            RecipeError: for text that is no such link.
        """
        text = st.query_params.get(self.setting)
        return unfold(text[:MAX_LINK]) if text else None

    def submit(self, asked: Config) -> int | None:
        """Queue a job; None where the disk is full, and the card says so."""
        try:
            return desk.journal().submit(self.kind, asked.model_dump(mode="json"), desk.owner())
        except JournalFull as error:
            self.complain(desk.full_card(error))
            return None

    def share(self, asked: Config) -> None:
        """Put the setting into the address, and have its link shown."""
        packed = pack(asked)
        if len(packed) > MAX_LINK:
            remedy = "Switch fewer things on, or send the JSON of its result."
            error = RecipeError(self.setting, f"{len(packed):,} characters", "what fits into a link", remedy)
            self.complain(error.card())
            return
        st.query_params[self.setting] = packed
        st.session_state[self._key("shared")] = packed

    def draw_link(self) -> None:
        """The link, once after it was asked for."""
        if packed := st.session_state.pop(self._key("shared"), None):
            base = (st.context.url or "").split("?")[0]
            st.caption("This link holds the whole setting. It stands in the address bar too.")
            st.code(f"{base}?{self.setting}={packed}", language=None, wrap_lines=True)

    def complain(self, card: Card) -> None:
        """Keep a card for when the page is drawn next."""
        st.session_state[self._key("card")] = card

    def complaint(self) -> Card | None:
        """The card that was kept, once."""
        card: Card | None = st.session_state.pop(self._key("card"), None)
        return card

    def _key(self, name: str) -> str:
        return f"{self.kind}-{name}"
