"""The Textual application: reduces what the reader tells to a state, and repaints at most four times a second."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.events import Resize
from textual.screen import Screen
from textual.widgets import Input

from . import actions
from .dialogs import DetailsScreen, HelpScreen, Question
from .feed import Connect, Feed, FeedError
from .layout import Demand, share
from .lines import footer, header, notice, sentences
from .notice import Notice
from .panels import SECTIONS
from .poller import EVERY_S, Poller
from .reader import Reader, backoff
from .run import run_top as run_top
from .screen import StatisticsScreen
from .state import Filtered, Message, Said, State, Tick, Tone, reduce
from .style import CSS
from .table import Lines, Table
from .text import UNICODE, Glyphs

#: Seconds between repaints.
REPAINT_S = 0.25
#: Rows of the header and the footer together.
FRAME_ROWS = 3
#: The panels of each block of the screen, from top to bottom.
BLOCKS = {
    "top": ("queue", "chains"),
    "throughput": ("throughput",),
    "running": ("running",),
    "failures": ("failures",),
    "bottom": ("breakers", "parts"),
}
_ACTIONS: dict[str, Callable[[State, Feed], Awaitable[actions.Plan]]] = {
    "pause": actions.pause,
    "resume": actions.resume,
    "requeue": actions.requeue,
}


#: Actions of the panels' screen: their keys mean nothing, or something else, on another one.
_OF_PANELS = frozenset({"filter", "zoom", "open", "unwind", "go", "statistics"})


class TopApp(App[int]):
    """The panels, and the statistics over them.

    `connect` opens a feed, `clock` gives unix seconds, `pause` the seconds after a failed attempt, `every` those
    between two requests for statistics.
    """

    CSS = CSS
    TITLE = "moonxd"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "leave", show=False),
        Binding("ctrl+c,ctrl+q", "leave", show=False, priority=True),
        Binding("question_mark,h", "help", show=False),
        Binding("P,p", "act('pause')", show=False),
        Binding("U,u,r", "act('resume')", show=False),
        Binding("R", "act('requeue')", show=False),
        Binding("slash", "filter", show=False),
        Binding("z", "zoom", show=False),
        Binding("s", "statistics", show=False),
        Binding("enter", "open", show=False),
        Binding("escape", "unwind", show=False),
        *(Binding(str(number), f"go({number - 1})", show=False) for number in range(1, len(SECTIONS) + 1)),
    ]

    def __init__(
        self,
        connect: Connect,
        *,
        clock: Callable[[], float] = time.time,
        pause: Callable[[int], float] = backoff,
        every: float = EVERY_S,
        glyphs: Glyphs = UNICODE,
    ) -> None:
        super().__init__()
        self.state = State(now=clock())
        #: The state that is on screen.
        self.painted: State | None = None
        self.zoomed: str | None = None
        self._clock = clock
        self._glyphs = glyphs
        self._reader = Reader(connect, self.dispatch, clock, pause)
        self._poller = Poller(connect, self.dispatch, clock, every=every, pause=pause)
        self._heights: dict[str, int] = {}
        #: The panel that the focus goes back to when the filter closes.
        self._filtered = "failures"
        self._is_acting = False

    def compose(self) -> ComposeResult:
        yield Lines(id="header")
        with Vertical(id="body"):
            for block, names in BLOCKS.items():
                if len(names) == 1:
                    yield Table(names[0], self._glyphs)
                    continue
                with Horizontal(id=block):
                    for name in names:
                        yield Table(name, self._glyphs)
        yield Lines(id="footer")
        yield Notice()
        yield Input(id="filter", placeholder="text to find: enter keeps the filter, esc clears it", compact=True)

    def on_mount(self) -> None:
        self._table("running").focus()
        self.set_interval(REPAINT_S, self._tick)
        self.call_after_refresh(self._start)
        if not self.is_headless:
            for number in (signal.SIGTERM, signal.SIGHUP):
                asyncio.get_running_loop().add_signal_handler(number, self.exit, 0)

    def _start(self) -> None:
        """After the first frame, since the feed's client takes a while to import."""
        self._paint()
        self.run_worker(self._reader.run(), group="reader")

    # ---- from messages to the screen ----

    def dispatch(self, message: Message) -> State:
        """Reduce `message`; the screen follows at the next repaint."""
        self.state = reduce(self.state, message)
        return self.state

    def _tick(self) -> None:
        self.dispatch(Tick(self._clock()))
        self._paint()

    def on_resize(self, event: Resize) -> None:
        self._arrange(event.size.height)
        self.call_after_refresh(self._paint)

    def _paint(self) -> None:
        state = self.state
        if not self._base.query("#header"):
            # The application is being taken down, and the timer's last tick came after its widgets.
            return
        over = self._statistics
        if over is not None:
            if over.paint(state):
                self.painted = state
            return
        if self._arrange(self.size.height):
            # Widths and heights settle in this refresh; what is drawn depends on them.
            self.call_after_refresh(self._paint)
            return
        room = self.size.width
        self._base.query_one("#header", Lines).show(*header(state, room, self._glyphs), stale=not state.is_live)
        self._base.query_one("#footer", Lines).show(footer(room, glyphs=self._glyphs))
        for section in SECTIONS:
            table = self._table(section.name)
            if table.size.width and table.size.height:
                table.show(section.build(state, table.size.width, self._glyphs), stale=not state.is_live)
        self._base.query_one(Notice).say(notice(state, self._glyphs))
        self.painted = state

    def _arrange(self, rows: int) -> bool:
        """Share out the rows again if the demand changed; whether anything moved."""
        heights = self._wanted_heights(max(0, rows - FRAME_ROWS))
        if heights == self._heights:
            return False
        self._heights = heights
        for block, names in BLOCKS.items():
            widget = self._base.query_one(f"#{block}")
            widget.styles.height = heights[block]
            widget.display = heights[block] > 0
            for name in names:
                self._table(name).display = heights[block] > 0 and self.zoomed in (None, name)
        return True

    def _wanted_heights(self, rows: int) -> dict[str, int]:
        if self.zoomed is not None:
            return {block: rows if self.zoomed in names else 0 for block, names in BLOCKS.items()}
        snapshot = self.state.snapshot
        if snapshot is None:
            return share(rows, Demand())
        listed = max(len(snapshot.children), len(snapshot.breakers or ()))
        demand = Demand(
            top=1 + max(8, len(snapshot.chains)), running=1 + max(4, snapshot.daemon.slots), bottom=1 + listed
        )
        return share(rows, demand)

    @property
    def _base(self) -> Screen[object]:
        """The screen of the panels, also while a dialog is open over it."""
        return self.screen_stack[0]

    @property
    def _statistics(self) -> StatisticsScreen | None:
        """While it is open, also under a dialog."""
        return next((screen for screen in self.screen_stack if isinstance(screen, StatisticsScreen)), None)

    def _table(self, name: str) -> Table:
        return self._base.query_one(f"#{name}", Table)

    @property
    def _focused_table(self) -> Table | None:
        return self.focused if isinstance(self.focused, Table) else None

    # ---- keys that look ----

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action not in _OF_PANELS or self._statistics is None

    def action_statistics(self) -> None:
        self.push_screen(StatisticsScreen(self._poller, self.state, self._glyphs), lambda _: self._show_panels())

    def _show_panels(self) -> None:
        """They were not painted meanwhile."""
        self.call_after_refresh(self._paint)

    def action_leave(self) -> None:
        self.exit(0)

    def action_help(self) -> None:
        self.push_screen(HelpScreen(self._glyphs))

    def action_go(self, index: int) -> None:
        name = SECTIONS[index].name
        if self.zoomed is not None:
            self._zoom(name)
        self._table(name).focus()

    def action_zoom(self) -> None:
        table = self._focused_table
        if table is not None and table.id:
            self._zoom(None if self.zoomed else table.id)

    def _zoom(self, name: str | None) -> None:
        self.zoomed = name
        # The same heights may mean other panels of the block.
        self._heights = {}
        focused = self._focused_table
        self._paint()
        if focused is not None:
            focused.focus()

    def action_open(self) -> None:
        table = self._focused_table
        if table is None:
            return
        section = next(section for section in SECTIONS if section.name == table.id)
        if section.explain is None:
            self.action_zoom()
            return
        details = section.explain(self.state, table.selected, self._glyphs) if table.selected else None
        if details is not None:
            self.push_screen(DetailsScreen(details))

    def on_table_chosen(self) -> None:
        self.action_open()

    def action_unwind(self) -> None:
        if self._base.query_one("#filter").display or self.state.filter:
            self._close_filter("")
        elif self.zoomed is not None:
            self._zoom(None)

    # ---- the filter ----

    def action_filter(self) -> None:
        field = self._base.query_one("#filter", Input)
        table = self._focused_table
        self._filtered = table.id if table and table.id in ("running", "failures") else "failures"
        field.value = self.state.filter
        field.display = True
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.display:
            self.dispatch(Filtered(event.value))
            self._paint()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self._close_filter(event.value)

    def _close_filter(self, text: str) -> None:
        field = self._base.query_one("#filter", Input)
        was_open, field.display = field.display, False
        self.dispatch(Filtered(text))
        if was_open:
            self._table(self._filtered).focus()
        self._paint()

    # ---- keys that act ----

    def action_act(self, name: str) -> None:
        if self._is_acting:
            self._say("Still waiting for the answer to the last key.", "info")
            return
        self._is_acting = True
        self.run_worker(self._act(name), group="act")

    async def _act(self, name: str) -> None:
        """Ask, do, and say how it went."""
        try:
            feed = self._reader.feed
            if feed is None:
                raise FeedError("Not connected to the daemon: nothing was changed.")
            plan = await _ACTIONS[name](self.state, feed)
            if await self.push_screen_wait(Question(plan.title, plan.body, plan.yes)):
                self._say(await plan.run(), "good")
        except actions.NothingToDo as nothing:
            self._say(str(nothing), "info")
        except FeedError as error:
            self._say(sentences(str(error), error.hint), "bad")
        finally:
            self._is_acting = False

    def _say(self, text: str, tone: Tone) -> None:
        self.dispatch(Said(text, tone, self._clock()))
        self._paint()
