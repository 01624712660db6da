"""The statistics screen: tables of chains, bridges and collectors, and charts of the last hour for the row chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import Screen

from .dialogs import DetailsScreen
from .layout import share_statistics
from .lines import footer
from .notice import Notice
from .poller import Poller
from .state import State
from .stats import TABLES, charts
from .stats.lines import KEYS, top, warning
from .table import Lines, Plate, Table
from .text import UNICODE, Glyphs

#: Rows of the header and the footer together.
_FRAME_ROWS = 3
_CHAINS, _BRIDGES, _COLLECTORS = (section.name for section in TABLES)
_BLOCKS = {"chains": _CHAINS, "bridges": _BRIDGES, "collectors": _COLLECTORS, "charts": "charts"}


class StatisticsScreen(Screen[None]):
    """Asks the daemon while it is open. The application paints it, as often as its own panels."""

    AUTO_FOCUS = f"#{_CHAINS}"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,s", "leave", show=False),
        Binding("enter", "open", show=False),
        *(Binding(str(number), f"go({number - 1})", show=False) for number in range(1, len(TABLES) + 1)),
    ]

    def __init__(self, poller: Poller, state: State, glyphs: Glyphs = UNICODE) -> None:
        super().__init__()
        self._poller = poller
        self._state = state
        self._glyphs = glyphs
        self._heights: dict[str, int] = {}
        #: The table whose row the charts show.
        self._charted = _CHAINS

    def compose(self) -> ComposeResult:
        yield Lines(id="header")
        with Vertical(id="body"):
            for section in TABLES:
                yield Table(section.name, self._glyphs)
            with Horizontal(id="charts"):
                for number in range(len(charts.CHAIN)):
                    yield Plate(id=f"chart-{number}")
        yield Lines(id="footer")
        yield Notice()

    def on_mount(self) -> None:
        # A worker of this screen: it is cancelled with it.
        self.run_worker(self._poller.run(), group="poller")
        self.call_after_refresh(self._paint)

    # ---- what is shown ----

    def paint(self, state: State) -> bool:
        """Whether it is on screen already; else it will be after the next refresh."""
        self._state = state
        return self._paint()

    def _paint(self) -> bool:
        state = self._state
        if not self.query("#header"):
            # Not composed yet, or being taken down.
            return False
        if self._arrange():
            # Widths and heights settle in this refresh; what is drawn depends on them.
            self.call_after_refresh(self._paint)
            return False
        room, stale = self.size.width, not state.figures.is_current(state.now)
        self.query_one("#header", Lines).show(*top(state, room, self._glyphs))
        self.query_one("#footer", Lines).show(footer(room, KEYS, self._glyphs))
        for section in TABLES:
            table = self._table(section.name)
            if table.size.width and table.size.height:
                table.show(section.build(state, table.size.width, self._glyphs), stale=stale)
        if self._heights["charts"]:
            self._draw_charts(state, stale)
        self.query_one(Notice).say(warning(state, self._glyphs))
        return True

    def _draw_charts(self, state: State, stale: bool) -> None:
        found, key = state.figures.found, self._table(self._charted).selected
        if self._charted == _CHAINS:
            kinds, points = charts.CHAIN, charts.points_of(found.chains.history if found else (), key)
        else:
            kinds, points = charts.BRIDGE, charts.points_of(found.bridges.history if found else (), key)
        for number, which in enumerate(kinds):
            plate = self.query_one(f"#chart-{number}", Plate)
            lines = charts.chart(state, which, key, points, plate.size.width, plate.size.height, self._glyphs)
            plate.show(lines, stale=stale)

    def _arrange(self) -> bool:
        """Share out the rows again if the demand changed; whether anything moved."""
        found = self._state.figures.found
        rows: Sequence[Sequence[object]] = (
            (found.chains.chains, found.bridges.bridges, found.collectors) if found else ((), (), ())
        )
        heights = share_statistics(max(0, self.size.height - _FRAME_ROWS), *map(len, rows))
        if heights == self._heights:
            return False
        self._heights = heights
        for block, name in _BLOCKS.items():
            widget = self.query_one(f"#{name}")
            widget.styles.height = heights[block]
            widget.display = heights[block] > 0
        return True

    def _table(self, name: str) -> Table:
        return self.query_one(f"#{name}", Table)

    # ---- keys and mouse ----

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_go(self, index: int) -> None:
        self._table(TABLES[index].name).focus()

    def action_open(self) -> None:
        section = next((each for each in TABLES if self.focused is not None and each.name == self.focused.id), None)
        if section is None or section.explain is None:
            return
        selected = self._table(section.name).selected
        details = section.explain(self._state, selected, self._glyphs) if selected else None
        if details is not None:
            self.app.push_screen(DetailsScreen(details))

    def on_table_chosen(self, message: Table.Chosen) -> None:
        message.stop()
        self.action_open()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        if event.widget.id in (_CHAINS, _BRIDGES):
            self._charted = event.widget.id
