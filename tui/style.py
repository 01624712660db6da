"""The colours, in one place. Calm ground, and a filled background only for what must not be overlooked."""

CSS = """
$ground: #10151c;
$band: #1b2531;
$band-focus: #24405c;
$text: #c6d0dc;
$faint: #77869a;
$accent-tone: #6cb6ff;
$good-tone: #63c174;
$warn-tone: #e3b341;
$bad-tone: #ff7b72;

Screen { background: $ground; color: $text; layers: base over; }
#header { height: 2; background: $band; }
#footer { height: 1; background: $band; dock: bottom; }
#body { height: 1fr; }
#top, #bottom { width: 1fr; }
StatisticsScreen { overflow: hidden; }
#charts { height: 0; }
Plate { width: 1fr; height: 1fr; background: $ground; }
#chart-1 { margin-left: 1; }
Table { width: 1fr; height: 1fr; background: $ground; }
#chains, #parts { margin-left: 1; }

.painted--dim { color: $faint; }
.painted--strong { color: #f0f6fc; text-style: bold; }
.painted--accent { color: $accent-tone; }
.painted--graph { color: #4a7fb5; }
.painted--good { color: $good-tone; }
.painted--warn { color: $warn-tone; }
.painted--bad { color: $bad-tone; text-style: bold; }
.painted--live { color: #ffffff; background: #1f6f43; text-style: bold; }
.painted--busy { color: #ffffff; background: #35577d; text-style: bold; }
.painted--paused { color: #101010; background: #e3b341; text-style: bold; }
.painted--alarm { color: #ffffff; background: #b3261e; text-style: bold; }

/* Without colours what was red would be a dark grey: the urgent must be the brightest instead. */
Painted:nocolor .painted--bad, Painted:nocolor .painted--warn { color: #ffffff; }

.painted--row { color: $text; background: $ground; }
.painted--title { color: $text; background: $band; }
.painted--focus { color: $text; background: $band-focus; }
.painted--cursor { color: #ffffff; background: #2a4f78; }
Lines > .painted--row { background: $band; }

#notice {
    layer: over; dock: bottom; offset-y: -1; height: auto; max-height: 5; width: 100%;
    padding: 0 1; background: #2b3442; color: #f0f6fc; display: none;
}
#notice.bad { background: #5c1f1b; }
#filter {
    dock: bottom; height: 1; border: none; padding: 0 1; background: $band-focus; color: #ffffff; display: none;
}

ModalScreen { align: center middle; background: #10151c 60%; }
.dialog {
    width: 64; max-width: 100%; height: auto; max-height: 100%; padding: 1 2;
    background: #1b2531; border: round #6cb6ff;
}
.dialog.wide { width: 92; }
.dialog.tight { padding: 0 2; }
.dialog .keys { margin-top: 1; color: $text; }
.fields { height: auto; max-height: 100%; margin-top: 1; }
.help { height: auto; max-height: 100%; }
Field { height: auto; }
Field > .label { width: auto; color: $faint; }
Field > .value { width: 1fr; }
"""
