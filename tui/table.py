"""A live table that redraws only the rows that changed.

Textual's DataTable renders every row again when one cell changes (measured: a whole core at ten tables and 4 Hz).
This one keeps a finished strip per row and asks for single lines to be repainted.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from .panel import Cell, Grid, Panel, Row, brief, clip, grid, heading, line, longest
from .text import UNICODE, Glyphs

#: Finished strips kept per table.
CACHE = 512

Drawn = tuple[Literal["row", "stale", "cursor", "title", "focus"], tuple[Cell, ...]]


class Painted(Widget):
    """A widget made of lines of toned cells; the tones' colours come from the style sheet.

    A line's ground is what it stands for: a title (focused or not), a row, the cursor, or a row whose numbers nobody
    confirms at the moment (stale: drawn faint).
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"painted--{name}"
        for name in (
            *("dim", "strong", "accent", "graph", "good", "warn", "bad", "live", "busy", "paused", "alarm"),
            *("row", "cursor", "title", "focus"),
        )
    }

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._drawn: tuple[Drawn, ...] = ()
        self._strips: dict[Drawn, Strip] = {}

    def draw(self, drawn: tuple[Drawn, ...]) -> None:
        """Show these lines, repainting those that differ from what is on screen."""
        old, self._drawn = self._drawn, drawn
        if len(old) != len(drawn):
            self.refresh()
            return
        width = self.size.width
        changed = [Region(0, y, width, 1) for y, (a, b) in enumerate(zip(old, drawn, strict=True)) if a != b]
        if changed:
            self.refresh(*changed)

    def notify_style_update(self) -> None:
        """Colours changed (focus, theme): the finished strips hold the old ones."""
        super().notify_style_update()
        self._strips.clear()

    def render_line(self, y: int) -> Strip:
        if y >= len(self._drawn):
            return Strip.blank(self.size.width, self._style("row"))
        drawn = self._drawn[y]
        strip = self._strips.get(drawn)
        if strip is None:
            if len(self._strips) >= CACHE:
                self._strips.clear()
            strip = self._strips[drawn] = self._paint(drawn)
        return strip

    def _paint(self, drawn: Drawn) -> Strip:
        ground, cells = drawn
        base = self._style("row" if ground == "stale" else ground)
        faint = Style(dim=True) if ground == "stale" else Style.null()
        return Strip([Segment(cell.text, self._toned(base, cell, ground) + faint) for cell in cells])

    def _toned(self, base: Style, cell: Cell, ground: str) -> Style:
        if not cell.tone:
            return base
        tone = self.get_component_rich_style(f"painted--{cell.tone}", partial=True)
        if ground == "cursor":
            # One colour on the cursor's bar: toned text on it would be hard to read.
            return base + Style(bold=tone.bold)
        return base + tone

    def _style(self, ground: str) -> Style:
        return self.get_component_rich_style(f"painted--{ground}")


class Lines(Painted):
    """Fixed lines, as the header and the footer have them."""

    def show(self, *lines: tuple[Cell, ...], stale: bool = False) -> None:
        """With `stale` all but the first line hold numbers that nobody confirms at the moment."""
        self.draw(tuple(("stale" if stale and index else "row", cells) for index, cells in enumerate(lines)))


class Plate(Painted):
    """A picture of lines below a title line."""

    def show(self, lines: tuple[tuple[Cell, ...], ...], *, stale: bool = False) -> None:
        ground: Literal["row", "stale"] = "stale" if stale else "row"
        self.draw(tuple((ground if index else "title", cells) for index, cells in enumerate(lines)))


class Table(Painted, can_focus=True):
    """A panel with a title line, a cursor that follows its row, and scrolling."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup,ctrl+b", "page(-1)", show=False),
        Binding("pagedown,ctrl+f", "page(1)", show=False),
        Binding("home,g", "move(-1000000)", show=False),
        Binding("end,G", "move(1000000)", show=False),
    ]

    class Chosen(Message):
        """A row was clicked twice."""

    def __init__(self, name: str, glyphs: Glyphs = UNICODE) -> None:
        super().__init__(id=name)
        self._glyphs = glyphs
        self._panel: Panel | None = None
        self._stale = False
        self._key: str | None = None
        self._cursor = 0
        self._top = 0
        self._wants: tuple[int, ...] = ()

    # ---- what is shown ----

    def show(self, panel: Panel, *, stale: bool = False) -> None:
        """Show `panel`; the cursor stays on its row, or near where that row was."""
        self._panel = panel
        self._stale = stale
        self._wants = longest(panel, self._wants)
        self._follow()
        self.redraw()

    @property
    def selected(self) -> str | None:
        """The key of the row under the cursor."""
        return self._rows[self._cursor].key if self._cursor < len(self._rows) else None

    @property
    def _rows(self) -> tuple[Row, ...]:
        return self._panel.rows if self._panel else ()

    @property
    def _page(self) -> int:
        """Rows that fit below the title."""
        return max(0, self.size.height - 1)

    def _follow(self) -> None:
        """A cursor on the first row stays there, so that news show; elsewhere it follows its row."""
        if self._cursor > 0 and self._key is not None:
            found = next((index for index, row in enumerate(self._rows) if row.key == self._key), self._cursor)
            self._top += found - self._cursor
            self._cursor = found
        self._settle()

    def _settle(self) -> None:
        """Keep the cursor on a row and inside the window, and the window full."""
        last = len(self._rows) - 1
        self._cursor = max(0, min(self._cursor, last))
        self._key = self.selected
        page = max(1, self._page)
        self._top = max(0, min(self._top, len(self._rows) - page))
        self._top = max(self._cursor - page + 1, min(self._top, self._cursor))

    def redraw(self) -> None:
        panel = self._panel
        if panel is None or not self.size.width:
            return
        room = self.size.width
        taken = grid(panel.columns, room - 2, self._wants)
        drawn: list[Drawn] = [("focus" if self.has_focus else "title", self._title(panel, room, taken))]
        drawn += [self._line(panel, index, room, taken) for index in self._visible()]
        if not panel.rows and self._page:
            drawn.append(("row", clip([Cell("  "), Cell(panel.empty, "dim")], room, self._glyphs)))
        self.draw(tuple(drawn))

    def _visible(self) -> range:
        return range(self._top, min(len(self._rows), self._top + self._page))

    def _title(self, panel: Panel, room: int, taken: Grid) -> tuple[Cell, ...]:
        pointer = Cell(self._glyphs.cursor if self.has_focus else " ", "accent")
        if self._page == 0:
            return (pointer, *brief(panel, room - 1, self._glyphs))
        return (pointer, *heading(panel, room - 1, taken, self._hidden(), self._glyphs))

    def _hidden(self) -> str:
        above, below = self._top, len(self._rows) - self._top - self._page
        parts = [f"{self._glyphs.up}{above}"] if above > 0 else []
        return " ".join([*parts, f"{self._glyphs.down}{below}"] if below > 0 else parts)

    def _line(self, panel: Panel, index: int, room: int, taken: Grid) -> Drawn:
        row = panel.rows[index]
        if self.has_focus and index == self._cursor:
            mark = row.mark if row.mark.text else Cell(self._glyphs.cursor)
            return ("cursor", line(panel, row._replace(mark=mark), room, taken, self._glyphs))
        return ("stale" if self._stale else "row", line(panel, row, room, taken, self._glyphs))

    # ---- keys and mouse ----

    def action_move(self, rows: int) -> None:
        self._cursor += rows
        self._settle()
        self.redraw()

    def action_page(self, pages: int) -> None:
        self.action_move(pages * max(1, self._page - 1))

    def on_click(self, event: events.Click) -> None:
        index = self._top + event.y - 1
        if event.y < 1 or index >= len(self._rows):
            return
        self.action_move(index - self._cursor)
        if event.chain == 2:
            self.post_message(self.Chosen())

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.action_move(3)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.action_move(-3)

    def on_resize(self) -> None:
        self._settle()
        self.refresh()
        self.redraw()

    def watch_has_focus(self, value: bool) -> None:
        super().watch_has_focus(value)
        self.redraw()
