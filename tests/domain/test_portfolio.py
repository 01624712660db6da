"""The maths of a sync: what stands, what changes, what is never invented."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from moonxd.domain.address import NATIVE
from moonxd.domain.portfolio import PortfolioChange, PriceLookup, assemble, refresh_metadata, total_value
from moonxd.domain.token import ChainSnapshot, Holding, Price, TokenBalance, TokenMeta, TokenRef

USDC = "0x" + "11" * 20
ETH, BASE = 1, 8453


def balance(chain: int, address: str, raw: int, symbol: str = "AAA", decimals: int | None = 6) -> TokenBalance:
    return TokenBalance(TokenRef(chain, address), raw, TokenMeta(symbol, symbol, decimals), verified=True)


def snapshot(chain: int, *balances: TokenBalance, quarantined: dict[str, str] | None = None) -> ChainSnapshot:
    return ChainSnapshot(
        chain_id=chain, block_low=1, block_high=1, balances=balances, source="multicall", discovers=False,
        quarantined=quarantined or {},
    )  # fmt: skip


def prices(**by_address: str) -> PriceLookup:
    return PriceLookup({TokenRef(ETH, key): Price(Decimal(usd), "llama", 0.99, 0.0) for key, usd in by_address.items()})


NO_PRICES = PriceLookup()


def synced(*snapshots: ChainSnapshot, lookup: PriceLookup = NO_PRICES) -> PortfolioChange:
    return assemble((), snapshots, lookup)


def test_amount_price_and_value() -> None:
    change = synced(snapshot(ETH, balance(ETH, USDC, 2_500_000)), lookup=prices(**{USDC: "1.0001"}))
    (row,) = change.holdings
    assert (row.amount, row.price_usd, row.value_usd) == (Decimal("2.5"), Decimal("1.0001"), Decimal("2.50025"))
    assert change.total_value_usd == Decimal("2.50025")
    assert change.changed == change.holdings


def test_an_unknown_price_is_null_and_an_unknown_scale_is_never_eighteen() -> None:
    change = synced(
        snapshot(ETH, balance(ETH, USDC, 5), balance(ETH, NATIVE, 7, decimals=None)), lookup=prices(**{NATIVE: "9"})
    )
    by_address = {row.address: row for row in change.holdings}
    assert by_address[USDC].price_usd is None
    assert by_address[USDC].value_usd is None
    assert by_address[NATIVE].amount is None
    assert by_address[NATIVE].value_usd is None
    assert change.total_value_usd == 0


def test_a_chain_that_was_not_read_keeps_its_rows() -> None:
    before = synced(snapshot(ETH, balance(ETH, USDC, 5)), snapshot(BASE, balance(BASE, USDC, 6))).holdings
    change = assemble(before, (snapshot(ETH),), NO_PRICES)
    assert change.removed == (TokenRef(ETH, USDC),)
    assert [row.token for row in change.holdings] == [TokenRef(BASE, USDC)]


def test_a_quarantined_token_keeps_its_last_good_row() -> None:
    before = synced(snapshot(ETH, balance(ETH, USDC, 5))).holdings
    change = assemble(before, (snapshot(ETH, quarantined={USDC: "burns all gas"}),), NO_PRICES)
    assert change.is_empty
    assert change.holdings == before


def test_a_price_source_that_is_away_does_not_make_a_wallet_worthless() -> None:
    read = snapshot(ETH, balance(ETH, USDC, 1_000_000))
    before = synced(read, lookup=prices(**{USDC: "2"})).holdings
    away = assemble(before, (read,), PriceLookup(unavailable=frozenset({TokenRef(ETH, USDC)})))
    assert away.is_empty
    unknown = assemble(before, (read,), NO_PRICES)
    assert unknown.changed[0].price_usd is None, "but a source that answered and did not know it makes it unknown"


def test_a_row_keeps_whose_word_its_price_is() -> None:
    read = snapshot(ETH, balance(ETH, USDC, 1_000_000))
    before = synced(read, lookup=prices(**{USDC: "2"})).holdings
    assert before[0].said["price"] == {"source": "llama", "confidence": 0.99, "at": 0.0}
    token = TokenRef(ETH, USDC)
    confirmed = PriceLookup({token: Price(Decimal("2.00"), "coingecko", 0.9, 60.0)})
    assert assemble(before, (read,), confirmed).is_empty, "the same price from somebody else is no news"
    moved = assemble(before, (read,), PriceLookup({token: Price(Decimal(3), "coingecko", 0.9, 60.0)}))
    assert moved.changed[0].said["price"]["source"] == "coingecko"
    away = assemble(moved.holdings, (read,), PriceLookup(unavailable=frozenset({token})))
    assert away.is_empty, "the last known price stands, with its source"
    assert "price" not in assemble(before, (read,), NO_PRICES).holdings[0].said


def test_spam_is_kept_and_flagged_and_left_out_of_totals() -> None:
    scam = TokenBalance(TokenRef(ETH, USDC), 10**6, TokenMeta("$ visit scam.com", "claim reward", 6))
    change = synced(snapshot(ETH, scam), lookup=prices(**{USDC: "1000"}))
    assert change.holdings[0].is_spam
    assert change.holdings[0].value_usd == 1000
    assert change.total_value_usd == 0


def test_a_metadata_sync_touches_names_only() -> None:
    before = synced(snapshot(ETH, balance(ETH, USDC, 5_000_000)), lookup=prices(**{USDC: "2"})).holdings
    renamed = snapshot(ETH, balance(ETH, USDC, 999, symbol="NEW", decimals=5), balance(ETH, NATIVE, 1))
    (row,) = refresh_metadata(before, (renamed,)).holdings
    assert (row.symbol, row.raw, row.price_usd) == ("NEW", 5_000_000, Decimal(2))
    assert (row.amount, row.value_usd) == (Decimal(50), Decimal(100)), "the value follows the corrected scale"


TOKENS = st.sampled_from([TokenRef(chain, "0x" + f"{n:040x}") for chain in (ETH, BASE) for n in range(1, 5)])
ROWS = st.dictionaries(TOKENS, st.integers(1, 10**30), max_size=8)


@st.composite
def readings(draw: st.DrawFn) -> tuple[tuple[Holding, ...], tuple[ChainSnapshot, ...], PriceLookup]:
    def shots(rows: dict[TokenRef, int], chains: set[int]) -> tuple[ChainSnapshot, ...]:
        return tuple(
            snapshot(chain, *(balance(chain, t.address, raw) for t, raw in rows.items() if t.chain_id == chain))
            for chain in sorted(chains)
        )

    lookup = PriceLookup(
        {token: Price(Decimal(draw(st.integers(1, 10**6))), "s", 1.0, 0.0) for token in draw(st.sets(TOKENS))},
        frozenset(draw(st.sets(TOKENS))),
    )
    before = assemble((), shots(draw(ROWS), {ETH, BASE}), lookup).holdings
    return before, shots(draw(ROWS), draw(st.sets(st.sampled_from([ETH, BASE]), min_size=1))), lookup


@given(readings())
def test_the_difference_applied_to_what_stood_gives_what_stands(
    case: tuple[tuple[Holding, ...], tuple[ChainSnapshot, ...], PriceLookup],
) -> None:
    before, snapshots, lookup = case
    change = assemble(before, snapshots, lookup)
    table = {row.token: row for row in before}
    for token in change.removed:
        del table[token]
    table |= {row.token: row for row in change.changed}
    assert table == {row.token: row for row in change.holdings}
    assert change.total_value_usd == total_value(change.holdings)
    read = {shot.chain_id for shot in snapshots}
    assert all(row.chain_id in read for row in change.changed)
    assert all(token.chain_id in read for token in change.removed)
    again = assemble(change.holdings, snapshots, lookup)
    assert again.is_empty, "the same answer twice changes nothing"
