"""How the screen's rows are shared out: pure arithmetic, so that every size can be tested."""

from __future__ import annotations

import msgspec

#: The least rows per block, title included, that is comfortable; together with header and footer exactly 24.
COMFORTABLE = {"top": 7, "throughput": 4, "running": 5, "failures": 4, "bottom": 1}
#: What a block shrinks to, in this order, on smaller terminals; then blocks vanish from the end of GIVE_UP.
FLOORS = (("running", 3), ("failures", 3), ("top", 4), ("running", 2), ("failures", 2), ("top", 2))
GIVE_UP = ("bottom", "throughput", "top", "failures", "running")


class Demand(msgspec.Struct, frozen=True):
    """Rows, titles included, that each block could use."""

    top: int = 9
    running: int = 11
    bottom: int = 1


def share(rows: int, demand: Demand) -> dict[str, int]:
    """Rows per block; they add up to `rows` (0 means hidden). Failures take what nobody needs."""
    given = dict(COMFORTABLE)
    spare = rows - sum(given.values())
    if spare < 0:
        return _shrink(given, -spare)
    for block, wanted in _wishes(demand, rows):
        extra = min(spare, max(0, wanted - given[block]))
        given[block] += extra
        spare -= extra
    given["failures"] += spare
    return given


def _wishes(demand: Demand, rows: int) -> tuple[tuple[str, int], ...]:
    """In order: a little for everyone before everything for anyone."""
    quarter, third = rows // 4, rows // 3
    return (
        ("failures", 6),
        ("bottom", min(demand.bottom, 4)),
        ("running", min(demand.running, 8)),
        ("top", min(demand.top, third)),
        ("failures", quarter + 2),
        ("running", min(demand.running, third)),
        ("bottom", min(demand.bottom, quarter)),
    )


#: The least rows that a chart makes sense in, and those it has before the tables get all of theirs.
CHART_LEAST, CHART_FAIR = 5, 7


def share_statistics(rows: int, chains: int, bridges: int, collectors: int) -> dict[str, int]:
    """Rows per block of the statistics screen for so many rows in its tables; charts take what nobody needs."""
    given = {"chains": 0, "bridges": 0, "collectors": 0, "charts": 0}
    spare = rows
    wishes = (
        ("chains", 2),
        ("bridges", 2),
        ("collectors", 1),
        ("chains", 4),
        ("charts", CHART_FAIR),
        ("chains", 1 + max(1, chains)),
        ("bridges", min(1 + max(1, bridges), 5)),
        ("charts", rows // 3),
        ("collectors", 1 + max(1, collectors)),
        ("bridges", min(1 + max(1, bridges), rows // 3)),
        ("charts", rows),
    )
    for block, wanted in wishes:
        extra = max(0, wanted - given[block])
        if block == "charts" and given[block] + min(extra, spare) < CHART_LEAST:
            continue
        if block == "collectors" and extra > spare:
            # One line tells of all of them; better than a few of them in full.
            continue
        extra = min(spare, extra)
        given[block] += extra
        spare -= extra
    given["chains"] += spare
    return given


def _shrink(given: dict[str, int], missing: int) -> dict[str, int]:
    for block, floor in FLOORS:
        taken = min(missing, given[block] - floor)
        given[block] -= taken
        missing -= taken
    for block in GIVE_UP:
        if missing <= 0:
            break
        taken = given[block]
        given[block] = 0
        missing -= taken
    if missing < 0:
        given["running"] -= missing
    return given
