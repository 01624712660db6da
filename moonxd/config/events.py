"""What is told to other programs, and what is heard from them."""

from __future__ import annotations

from typing import Annotated

from .keys import Key, Section


class Events(Section, frozen=True, kw_only=True):
    """What is told to other programs, wherever it goes."""

    portfolio_move: Annotated[
        float,
        Key(
            "portfolio.updated for prices alone: when they moved a wallet's total by this share since the last one; "
            "0: at every move",
            low=0,
            live=True,
        ),
    ] = 0.01
    consume_activity: Annotated[
        bool, Key("Read user.activities: users whom other programs saw are active, with Kafka only")
    ] = True
