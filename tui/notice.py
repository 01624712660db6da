"""The line over the panels that must be read now."""

from __future__ import annotations

from rich.text import Text
from textual.widgets import Static

from .panel import Cell


class Notice(Static):
    """Hidden while there is nothing to say."""

    def __init__(self) -> None:
        super().__init__(id="notice", markup=False)
        self._said: Cell | None = None

    def say(self, said: Cell | None) -> None:
        if said == self._said:
            return
        self._said = said
        self.display = said is not None
        if said is not None:
            self.set_class(said.tone == "bad", "bad")
            self.update(Text(said.text))
