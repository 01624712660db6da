"""The well-known tokens of each chain, for a simulator that was given no token list: symbol, address, decimals."""

from __future__ import annotations

from .settings import ListedToken

_MAJORS: dict[int, tuple[tuple[str, str, int], ...]] = {
    1: (
        ("USDC", "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48", 6),
        ("USDT", "0xdac17f958d2ee523a2206206994597c13d831ec7", 6),
        ("DAI", "0x6b175474e89094c44da98b954eedeac495271d0f", 18),
        ("WETH", "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2", 18),
        ("WBTC", "0x2260fac5e5542a773aa44fbcfedf7c193bc2c599", 8),
        ("LINK", "0x514910771af9ca656af840dff83e8264ecf986ca", 18),
        ("UNI", "0x1f9840a85d5af5bf1d1762f925bdaddc4201f984", 18),
        ("AAVE", "0x7fc66500c84a76ad7e9c93437bfc5ac33e2ddae9", 18),
        ("MKR", "0x9f8f72aa9304c8b593d555f12ef6589cc3a579a2", 18),
        ("stETH", "0xae7ab96520de3a18e5e111b5eaab095312d7fe84", 18),
    ),
    137: (
        ("USDC", "0x3c499c542cef5e3811e1192ce70d8cc03d5c3359", 6),
        ("USDC.e", "0x2791bca1f2de4661ed88a30c99a7a9449aa84174", 6),
        ("USDT", "0xc2132d05d31c914a87c6611c10748aeb04b58e8f", 6),
        ("DAI", "0x8f3cf7ad23cd3cadbd9735aff958023239c6a063", 18),
        ("WETH", "0x7ceb23fd6bc0add59e62ac25578270cff1b9f619", 18),
        ("WBTC", "0x1bfd67037b42cf73acf2047067bd4f2c47d9bfd6", 8),
        ("WPOL", "0x0d500b1d8e8ef31e21c99d1db9a6444d3adf1270", 18),
    ),
    10: (
        ("USDC", "0x0b2c639c533813f4aa9d7837caf62653d097ff85", 6),
        ("USDC.e", "0x7f5c764cbc14f9669b88837ca1490cca17c31607", 6),
        ("USDT", "0x94b008aa00579c1307b0ef2c499ad98a8ce58e58", 6),
        ("DAI", "0xda10009cbd5d07dd0cecc66161fc93d7c9000da1", 18),
        ("WETH", "0x4200000000000000000000000000000000000006", 18),
        ("WBTC", "0x68f180fcce6836688e9084f035309e29bf0a2095", 8),
        ("OP", "0x4200000000000000000000000000000000000042", 18),
    ),
    42161: (
        ("USDC", "0xaf88d065e77c8cc2239327c5edb3a432268e5831", 6),
        ("USDC.e", "0xff970a61a04b1ca14834a43f5de4533ebddb5cc8", 6),
        ("USDT", "0xfd086bc7cd5c481dcc9c85ebe478a1c0b69fcbb9", 6),
        ("DAI", "0xda10009cbd5d07dd0cecc66161fc93d7c9000da1", 18),
        ("WETH", "0x82af49447d8a07e3bd95bd0d56f35241523fbab1", 18),
        ("WBTC", "0x2f2a2543b76a4166549f7aab2e75bef0aefc5b0f", 8),
        ("ARB", "0x912ce59144191c1204e64559fe8253a0e49e6548", 18),
    ),
    8453: (
        ("USDC", "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913", 6),
        ("USDbC", "0xd9aaec86b65d86f6a7b5b1b0c42ffa531710b6ca", 6),
        ("DAI", "0x50c5725949a6f0c72e6c4a641f24049a917db0cb", 18),
        ("WETH", "0x4200000000000000000000000000000000000006", 18),
        ("cbBTC", "0xcbb7c0000ab88b473b1f5afd9ef808440eed33bf", 8),
        ("cbETH", "0x2ae3f1ec7f1f5012cfeab0185bfc7aa3cf0dec22", 18),
        ("AERO", "0x940181a94a35a4569e4529a3cdfb74e38fd98631", 18),
    ),
    56: (
        ("USDT", "0x55d398326f99059ff775485246999027b3197955", 18),
        ("USDC", "0x8ac76a51cc950d9822d68b83fe1ad97b32cd580d", 18),
        ("DAI", "0x1af3f329e8be154074d8769d1ffa4ee058b1dbc3", 18),
        ("BUSD", "0xe9e7cea3dedca5984780bafc599bd69add087d56", 18),
        ("WBNB", "0xbb4cdb9cbd36b01bd1cbaebf2de08d9173bc095c", 18),
        ("BTCB", "0x7130d2a12b9bcbfae4f2634d864a1ee1ce3ead9c", 18),
        ("ETH", "0x2170ed0880ac9a755fd29b2688956bd959f933f8", 18),
        ("CAKE", "0x0e09fabb73bd3ade0a17ecc321fd13a19e81ce82", 18),
    ),
}

MAJORS: tuple[ListedToken, ...] = tuple(
    ListedToken(chain_id=chain_id, address=address, symbol=symbol, decimals=decimals, name=symbol)
    for chain_id, tokens in _MAJORS.items()
    for symbol, address, decimals in tokens
)

#: Tokens that move together, by the upper-case symbol: a wrapped coin costs what its coin costs.
FAMILIES: dict[str, str] = {
    "WETH": "ETH", "STETH": "ETH", "CBETH": "ETH", "WETH.E": "ETH",
    "WBTC": "BTC", "BTCB": "BTC", "CBBTC": "BTC", "WBTC.E": "BTC",
    "WPOL": "POL", "WMATIC": "POL", "MATIC": "POL", "WBNB": "BNB",
    "USDC": "USD", "USDC.E": "USD", "USDBC": "USD", "USDT": "USD", "USDT0": "USD", "USD₮0": "USD", "DAI": "USD",
    "BUSD": "USD", "FDUSD": "USD", "FRAX": "USD", "LUSD": "USD", "TUSD": "USD", "USDE": "USD", "PYUSD": "USD",
    "USDT.E": "USD", "DAI.E": "USD", "USDP": "USD", "GUSD": "USD", "CRVUSD": "USD", "GHO": "USD", "USDS": "USD",
}  # fmt: skip

#: Where a family's price starts, as (digits, power of ten).
ANCHORS: dict[str, tuple[int, int]] = {
    "USD": (100_000_0, -6),
    "ETH": (315_042, -2),
    "BTC": (965_000, -1),
    "BNB": (640_150, -3),
    "POL": (221_530, -6),
    "LINK": (134_400, -4),
    "UNI": (712_300, -5),
    "AAVE": (178_250, -3),
    "MKR": (145_120, -2),
    "ARB": (284_100, -6),
    "OP": (415_200, -6),
    "CAKE": (231_700, -5),
    "AERO": (701_400, -6),
}
