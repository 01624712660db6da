"""What unlisted tokens say of themselves, remembered: in this process, and in the cache all workers share."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping

import msgspec
import trio

from ...domain.errors import Transient
from ...domain.token import TokenMeta
from ...ports import Cache

logger = logging.getLogger("moonxd.chains")

UNKNOWN = TokenMeta(None, None, None)

#: Symbols and scales practically never change; a full or metadata sync asks anew.
_TTL_S = 7 * 24 * 3600.0
#: A token that said nothing may have been asked at a bad moment.
_UNKNOWN_TTL_S = 3600.0
#: This process asks the shared cache again after so long: another worker may have refreshed it.
_LOCAL_S = 3600.0
_LOCAL_MAX = 20_000

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(TokenMeta).decode


class MetadataBook:
    """Metadata of one chain's tokens by lower-case address. A cache that is away costs time, nothing else."""

    def __init__(self, chain_id: int, cache: Cache) -> None:
        self._cache = cache
        self._prefix = f"token:{chain_id}:"
        self._local: OrderedDict[str, tuple[float, TokenMeta]] = OrderedDict()

    async def known(self, addresses: Iterable[str]) -> dict[str, TokenMeta]:
        """Those of `addresses` that are remembered."""
        now = trio.current_time()
        found, missing = {}, []
        for address in addresses:
            entry = self._local.get(address)
            if entry is not None and entry[0] > now:
                found[address] = entry[1]
            else:
                missing.append(address)
        if missing:
            found.update(await self._shared(missing))
        return found

    async def learn(self, metas: Mapping[str, TokenMeta]) -> None:
        """Remember what tokens said just now."""
        self._keep(metas)
        entries = {self._prefix + address: _encode(meta) for address, meta in metas.items()}
        silent = {self._prefix + address for address, meta in metas.items() if meta == UNKNOWN}
        await self._put({key: body for key, body in entries.items() if key not in silent}, _TTL_S)
        await self._put({key: body for key, body in entries.items() if key in silent}, _UNKNOWN_TTL_S)

    async def _put(self, entries: Mapping[str, bytes], ttl_s: float) -> None:
        if not entries:
            return
        try:
            await self._cache.put_many(entries, ttl_s)
        except Transient as error:
            logger.warning("token metadata was not cached: %s", error)

    async def _shared(self, addresses: list[str]) -> dict[str, TokenMeta]:
        try:
            entries = await self._cache.get_many([self._prefix + address for address in addresses])
        except Transient as error:
            logger.warning("token metadata is read from the chain, the cache is away: %s", error)
            return {}
        found = {}
        for key, body in entries.items():
            try:
                found[key.removeprefix(self._prefix)] = _decode(body)
            except (msgspec.DecodeError, UnicodeDecodeError):
                # Somebody else's bytes, or an older form: asking the token again replaces them.
                logger.info("a cached token description cannot be read, asking again: %s", key)
        self._keep(found)
        return found

    def _keep(self, metas: Mapping[str, TokenMeta]) -> None:
        until = trio.current_time() + _LOCAL_S
        for address, meta in metas.items():
            self._local[address] = (until, meta)
            self._local.move_to_end(address)
        while len(self._local) > _LOCAL_MAX:
            self._local.popitem(last=False)
