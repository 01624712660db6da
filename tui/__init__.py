"""The live view: a Textual application in its own process that knows the daemon only through `moonxd.api`.

screen.py   the statistics: tables and charts (stats/), asked for by poller.py while it is open
state.py    what is known (a pure reducer)          view.py    what is said about it (pure: State -> panels)
feed.py     where news come from                    table.py   how a panel is drawn, and only what changed
app.py      keys, focus, dialogs                    once.py    the same panels as plain text
"""
