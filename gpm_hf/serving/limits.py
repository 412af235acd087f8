"""What comes before any route: the key, and the size of a request's body."""

import contextlib
import json
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

# Whoever restarts a server that does not answer asks these, and has no key.
OPEN_ROUTES = ("/health", "/ready")
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]


class _TooLargeError(Exception):
    pass


class Gate:
    """
    ASGI middleware. A body that is too large is refused where it says so, or as soon as it is, and never held.

    Args:
        app: the application behind it.
        key (`str`, *optional*): the bearer token that requests must have.
        max_bytes (`int`): of a body.
    """

    def __init__(self, app: _App, key: str | None, max_bytes: int):
        self.app = app
        self.key = key
        self.max_bytes = max_bytes

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if scope["path"] not in OPEN_ROUTES and not self._has_key(headers.get(b"authorization", b"")):
            await _refuse(send, 401, "give the server's key: Authorization: Bearer KEY.")
            return
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self.max_bytes:
            await _refuse(send, 413, self._too_large)
            return
        received = 0

        async def counted() -> _Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise _TooLargeError
            return message

        async def answered(message: _Message) -> None:
            # The framework below makes an answer of its own of an error while it reads.
            if received <= self.max_bytes:
                await send(message)

        with contextlib.suppress(_TooLargeError):
            await self.app(scope, counted, answered)
        if received > self.max_bytes:
            await _refuse(send, 413, self._too_large)

    @property
    def _too_large(self) -> str:
        return f"a request may have {self.max_bytes} bytes: send fewer groups at a time."

    def _has_key(self, header: bytes) -> bool:
        if self.key is None:
            return True
        # In constant time: how much of a wrong key is right, nobody can measure.
        return secrets.compare_digest(header, b"Bearer " + self.key.encode())


async def _refuse(send: _Send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    # The rest of the body is not read: this connection can serve no other request.
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
