"""An HTTP service that may be away for a while: requests are tried again, and errors name cause and remedy."""

import os
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import requests
from requests import PreparedRequest, Response, Session
from requests.auth import AuthBase

KEY_VARIABLE = "GPM_HF_API_KEY"
# Of a server that is starting, full, or behind a proxy that does not find it: it may answer the next time.
_AGAIN = (429, 502, 503, 504)
_LONGEST_PAUSE = 5.0


class EndpointError(OSError):
    """
    A service that cannot be reached, or refuses.

    Attributes:
        status (`int` or `None`): of HTTP; `None` where there was no answer.
    """

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


class Endpoint:
    """
    A service at a URL.

    The key, for services that ask for one, comes from the environment variable GPM_HF_API_KEY and goes nowhere but
    into the `Authorization` header of requests to this URL: redirections are not followed.

    Args:
        url (`str`): where it is, such as "http://127.0.0.1:8000".
        timeout (`float`, defaults to 300): seconds to wait for an answer.
        retry_for (`float`, defaults to 120): seconds for which a service that is away, or says that it is busy, is
            asked again.

    Attributes:
        outages (`int`): how often it was away and came back: it may be another one then.
    """

    def __init__(self, url: str, timeout: float = 300, retry_for: float = 120):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{_without_user(url)!r} is no address of a server: give http://HOST:PORT.")
        if parts.username or parts.password:
            raise ValueError(f"Give the key of {_without_user(url)} in {KEY_VARIABLE}, not in its address.")
        if parts.query or parts.fragment:
            raise ValueError(f"{url} has more than a path: give http://HOST:PORT.")
        self.url = url.rstrip("/")
        self.timeout = timeout
        self.retry_for = retry_for
        self.outages = 0
        self._sessions = threading.local()

    def get(self, path: str) -> Any:
        """The JSON at a path; raises [`EndpointError`]."""
        return self._json("GET", path, None)

    def post(self, path: str, value: Any) -> Any:
        """The JSON that is answered to a JSON value; raises [`EndpointError`]."""
        return self._json("POST", path, value)

    def _json(self, method: str, path: str, value: Any) -> Any:
        answer = self._answer(method, path, value)
        if answer.status_code != 200:
            raise EndpointError(self._refusal(path, answer), answer.status_code)
        try:
            return answer.json()
        except ValueError as error:
            raise EndpointError(f"{self.url}{path} answered with no JSON: {_start(answer.text)}") from error

    def _answer(self, method: str, path: str, value: Any) -> Response:
        deadline, pause, was_away = time.monotonic() + self.retry_for, 0.1, False
        while True:
            try:
                answer = self._session().request(
                    method, self.url + path, json=value, timeout=self.timeout, auth=_Key(), allow_redirects=False
                )
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                was_away, reason = True, _reason(error)
                cause: Exception | None = error
            else:
                if answer.status_code not in _AGAIN:
                    self.outages += was_away
                    return answer
                reason, cause = self._refusal(path, answer), None
            if time.monotonic() + pause > deadline:
                raise EndpointError(
                    f"{self.url} cannot be used: {reason}. It was asked for {self.retry_for:g} seconds. Start the "
                    "server (`gpm-hf serve MODEL`), or name where it is."
                ) from cause
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _session(self) -> Session:
        """One for each thread, which keeps its connection."""
        if not hasattr(self._sessions, "session"):
            self._sessions.session = Session()
        return self._sessions.session

    def _refusal(self, path: str, answer: Response) -> str:
        if answer.status_code in (401, 403):
            given = f"the key in {KEY_VARIABLE} is not its own" if os.environ.get(KEY_VARIABLE) else "it asks for one"
            return f"{self.url} does not take requests without its key: {given}. Set {KEY_VARIABLE}"
        return f"{self.url}{path} answered {answer.status_code}: {_start(answer.text)}"


class _Key(AuthBase):
    """Given with every request, because requests would else look for one in a .netrc file."""

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        key = os.environ.get(KEY_VARIABLE)
        if key:
            request.headers["Authorization"] = f"Bearer {key}"
        return request


def _reason(error: Exception) -> str:
    if isinstance(error, requests.Timeout):
        return "it did not answer in time"
    return "there is no connection to it"


def _start(text: str, length: int = 500) -> str:
    return text if len(text) <= length else text[:length] + "..."


def _without_user(url: str) -> str:
    return url.split("@")[-1] if "@" in url else url
