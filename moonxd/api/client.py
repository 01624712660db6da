"""Clients of the control socket: `Client` for programs that wait, `AsyncClient` for the live view's event loop.

    with Client(socket) as daemon:
        print(daemon.call(calls.status()).queue.waiting)

httpx is imported when a client is made, not with this module: most commands are over before it would be loaded.
"""

from __future__ import annotations

import socket as plain_socket
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from .calls import Call
from .messages import ErrorReply
from .schema import Delta, Snapshot

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

#: The server says something at least every 10 s.
SILENCE_S = 25.0
_CONNECT_S = 5.0
# The name only fills the Host header; the transport knows where to go.
_BASE = "http://moonxd"


class ClientError(Exception):
    """Base: `message` says what went wrong, `hint` what to do."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class DaemonUnreachable(ClientError):
    """Nobody answers on the socket, or the connection broke."""


class NotPermitted(ClientError):
    """The socket is there, but this user may not use it."""


class ApiError(ClientError):
    """The daemon answered with an error. `code` is for programs."""

    def __init__(self, status: int, code: str, message: str, hint: str | None) -> None:
        super().__init__(message, hint)
        self.status = status
        self.code = code


class Client:
    """Blocking client over a unix socket; a context manager."""

    def __init__(self, socket: Path) -> None:
        import httpx

        self._socket = socket
        # No TLS on a unix socket, so nothing to verify; loading the certificates would take longer than the call.
        transport = httpx.HTTPTransport(uds=str(socket), verify=False)
        self._http = httpx.Client(base_url=_BASE, transport=transport, trust_env=False)
        self._is_known = False

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def call(self, call: Call[T]) -> T:
        """Raises DaemonUnreachable, NotPermitted or ApiError."""
        self._knock()
        with _explained(self._socket):
            response = self._http.request(**_arguments(call))
        return _decode(call, response)

    def stream(self) -> Generator[Snapshot | Delta]:
        """The live view: a snapshot, then deltas (and a snapshot again after a gap). Ends when the daemon stops."""
        self._knock()
        with _explained(self._socket), self._http.stream("GET", "/v1/stream", timeout=_patience(SILENCE_S)) as response:
            if response.is_error:
                response.read()
                raise _api_error(response)
            parser = EventParser()
            for line in response.iter_lines():
                event = parser.line(line)
                if event is not None:
                    yield event

    def _knock(self) -> None:
        """Before the first request: httpcore leaves the socket of a failed connection open."""
        if self._is_known:
            return
        with plain_socket.socket(plain_socket.AF_UNIX) as probe:
            probe.settimeout(_CONNECT_S)
            try:
                probe.connect(str(self._socket))
            except OSError as error:
                raise _cannot_connect(self._socket, error) from error
        self._is_known = True


class AsyncClient:
    """The same for an asyncio (or Trio) program; an async context manager."""

    def __init__(self, socket: Path) -> None:
        import httpx

        self._socket = socket
        transport = httpx.AsyncHTTPTransport(uds=str(socket), verify=False)
        self._http = httpx.AsyncClient(base_url=_BASE, transport=transport, trust_env=False)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def call(self, call: Call[T]) -> T:
        """Raises DaemonUnreachable, NotPermitted or ApiError."""
        with _explained(self._socket):
            response = await self._http.request(**_arguments(call))
        return _decode(call, response)

    async def stream(self) -> AsyncGenerator[Snapshot | Delta]:
        """As Client.stream. Close the generator (contextlib.aclosing) when you stop early."""
        with _explained(self._socket):
            async with self._http.stream("GET", "/v1/stream", timeout=_patience(SILENCE_S)) as response:
                if response.is_error:
                    await response.aread()
                    raise _api_error(response)
                parser = EventParser()
                async for line in response.aiter_lines():
                    event = parser.line(line)
                    if event is not None:
                        yield event


class EventParser:
    """Server-sent events, line by line. Kinds of events it does not know are skipped: a newer daemon may send more."""

    def __init__(self) -> None:
        self._kind = ""
        self._data: list[str] = []

    def line(self, line: str) -> Snapshot | Delta | None:
        """The event that `line` completes, if it does."""
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)
        return None if line else self._end()

    def _end(self) -> Snapshot | Delta | None:
        kind, data = self._kind, "\n".join(self._data)
        self._kind, self._data = "", []
        if kind == "snapshot":
            return msgspec.json.decode(data, type=Snapshot)
        return msgspec.json.decode(data, type=Delta) if kind == "delta" else None


def _arguments(call: Call[Any]) -> dict[str, Any]:
    body = None if call.body is None else msgspec.json.encode(call.body)
    return {
        "method": call.method,
        "url": call.path,
        "params": {name: value for name, value in call.params.items() if value is not None},
        "content": body,
        "headers": {"content-type": "application/json"} if body is not None else {},
        "timeout": _patience(call.patience),
    }


def _patience(seconds: float) -> httpx.Timeout:
    import httpx

    return httpx.Timeout(seconds, connect=_CONNECT_S)


def _decode(call: Call[T], response: httpx.Response) -> T:
    if response.is_error and response.status_code not in call.also:
        raise _api_error(response)
    try:
        return msgspec.json.decode(response.content, type=call.answer)
    except msgspec.MsgspecError as error:
        raise _incomprehensible(response, str(error)) from error


def _api_error(response: httpx.Response) -> ApiError:
    try:
        problem = msgspec.json.decode(response.content, type=ErrorReply).error
    except msgspec.MsgspecError as error:
        return _incomprehensible(response, str(error))
    return ApiError(response.status_code, problem.code, problem.message, problem.hint)


def _incomprehensible(response: httpx.Response, why: str) -> ApiError:
    return ApiError(
        response.status_code,
        "incomprehensible",
        f"the daemon's answer to {response.request.url.path} is not what this version expects: {why}",
        "compare `moonxd version` with the daemon's; restart the daemon after an upgrade",
    )


@contextmanager
def _explained(socket: Path) -> Generator[None]:
    """Transport errors as ours, each saying which socket and what to do."""
    import httpx

    try:
        yield
    except httpx.ConnectError as error:
        raise _cannot_connect(socket, error) from error
    except httpx.TimeoutException as error:
        raise DaemonUnreachable(
            f"the daemon at {socket} did not answer in time",
            "it may be overloaded or stopped by a debugger; its log says more",
        ) from error
    except httpx.TransportError as error:
        raise DaemonUnreachable(
            f"the connection to the daemon at {socket} broke ({type(error).__name__})",
            "it probably stopped or restarted just now; try again",
        ) from error


def _cannot_connect(socket: Path, error: BaseException) -> ClientError:
    match _os_error(error):
        case PermissionError():
            return NotPermitted(
                f"you may not connect to the daemon at {socket}",
                "run this as the daemon's user or as a member of the socket's group",
            )
        case FileNotFoundError():
            return DaemonUnreachable(
                f"no daemon is running at {socket} (there is no such socket)",
                "start one with `moonxd serve`, or say where it is with --socket or --state-dir",
            )
        case ConnectionRefusedError():
            return DaemonUnreachable(
                f"no daemon is running at {socket} (the socket is left over from one that died)",
                "start one with `moonxd serve`; it removes the old socket by itself",
            )
        case TimeoutError() | BlockingIOError():
            return DaemonUnreachable(
                f"the daemon at {socket} does not accept connections", "it is overloaded or stopped; its log says more"
            )
        case OSError() as cause:
            return DaemonUnreachable(f"cannot connect to the daemon at {socket}: {cause}", "check the path")
    return DaemonUnreachable(f"cannot connect to the daemon at {socket}", "check that it is running")


def _os_error(error: BaseException | None) -> OSError | None:
    """httpx wraps the system's error several times."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error
