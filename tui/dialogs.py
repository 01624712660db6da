"""What opens over the panels: a question before something happens, all about one row, the keys."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from .panel import Details
from .text import UNICODE, Glyphs

_CLOSE: list[BindingType] = [Binding("escape,q,enter", "close", show=False)]


class Question(ModalScreen[bool]):
    """Asks before something is changed. Only `y` says yes: enter, pressed by habit, says nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,Y", "answer(True)", show=False),
        Binding("n,N,escape,q", "answer(False)", show=False),
    ]

    def __init__(self, title: str, body: str, yes: str) -> None:
        super().__init__()
        self._text = Text.assemble((title, "bold"), "\n\n", body)
        self._keys = Text.assemble(
            ("y", "bold"), f"  yes, {yes}      ", ("n", "bold"), "  no, leave everything as it is"
        )

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(self._text)
            yield Static(self._keys, classes="keys")

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)


class DetailsScreen(ModalScreen[None]):
    """Everything about one row, unabridged; nothing here changes while it is read."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *_CLOSE,
        Binding("c", "copy(False)", show=False),
        Binding("a", "copy(True)", show=False),
        Binding("j,down", "scroll(1)", show=False),
        Binding("k,up", "scroll(-1)", show=False),
    ]

    def __init__(self, details: Details) -> None:
        super().__init__()
        self._details = details

    def compose(self) -> ComposeResult:
        label_width = max(len(label) for label, _ in self._details.fields)
        with Vertical(classes="dialog wide"):
            yield Static(Text(self._details.title, "bold"))
            with VerticalScroll(classes="fields"):
                for label, value in self._details.fields:
                    yield Field(label.ljust(label_width + 2), value)
            yield Static(self._keys(), classes="keys", id="details-keys")

    def _keys(self, said: str = "") -> Text:
        named = self._copied(everything=False)[0]
        keys = Text.assemble(
            ("esc", "bold"), " close   ", ("c", "bold"), f" copy {named}   ", ("a", "bold"), " copy all"
        )
        return Text.assemble(keys, f"   {said}") if said else keys

    def _copied(self, *, everything: bool) -> tuple[str, str]:
        """What to say and what to copy: the id (the field named job, else the first), or every field."""
        fields = self._details.fields
        if everything:
            return "all", "\n".join(f"{label}: {value}" for label, value in fields)
        label, value = next((field for field in fields if field[0] == "job"), fields[0])
        return f"{label} id" if label == "job" else label, value

    def action_copy(self, everything: bool) -> None:
        said, text = self._copied(everything=everything)
        self.app.copy_to_clipboard(text)
        self.query_one("#details-keys", Static).update(self._keys(f"sent {said} to the terminal's clipboard"))

    def action_scroll(self, lines: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)

    def action_close(self) -> None:
        self.dismiss(None)


class Field(Horizontal):
    """A label, and its text wrapped beside it."""

    def __init__(self, label: str, value: str) -> None:
        super().__init__()
        self._label = label
        self._value = value

    def compose(self) -> ComposeResult:
        yield Static(self._label, classes="label", markup=False)
        yield Static(self._value, classes="value", markup=False)


def help_text(glyphs: Glyphs = UNICODE) -> Text:
    """All keys, then what the symbols mean. Lower case looks, UPPER CASE acts."""
    text = Text()
    for title, rows in (*_HELP, ("Symbols", _symbols(glyphs))):
        text.append(f"{title}\n", "bold")
        for keys, does in rows:
            text.append(f"  {keys:<18}", "bold cyan")
            text.append(f"{does}\n")
    text.rstrip()
    return text


_HELP: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Acts (asks first; only y says yes)",
        (
            ("P  p", "pause the queue, for every worker"),
            ("U  u  r", "resume it (unpause)"),
            ("R", "requeue all failed jobs"),
        ),
    ),
    (
        "Looks",
        (
            ("tab  shift+tab", "next, previous panel"),
            ("1 ... 7", "go to that panel"),
            ("up down  k j", "move; also page up/down, home/end, g G"),
            ("enter", "all about the row; on 1 and 3: zoom"),
            ("z", "zoom the panel to the whole screen, and back"),
            ("s", "statistics of chains and bridges; s or esc: back"),
            ("/", "filter running jobs and failures"),
            ("esc", "close, end zoom, clear the filter"),
            ("mouse", "click, wheel; shift + drag marks text"),
            ("?  h", "this help"),
            ("q  ctrl+c", "quit (the daemon goes on)"),
        ),
    ),
)


def _symbols(glyphs: Glyphs) -> tuple[tuple[str, str], ...]:
    return (
        (f"{glyphs.live} {glyphs.waiting}", "in order; not (yet) running"),
        (f"{glyphs.warn} {glyphs.retry}", "look here; being tried again"),
        (f"{glyphs.lost}", "failed for good, open, or gone"),
        (f"{glyphs.bars}", "from nothing to the highest in view; blank is unknown"),
    )


class HelpScreen(ModalScreen[None]):
    """The keys."""

    BINDINGS: ClassVar[list[BindingType]] = [*_CLOSE, Binding("question_mark,h", "close", show=False)]

    def __init__(self, glyphs: Glyphs = UNICODE) -> None:
        super().__init__()
        self._glyphs = glyphs

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide tight"), VerticalScroll(classes="help"):
            yield Static(help_text(self._glyphs))

    def action_close(self) -> None:
        self.dismiss(None)
