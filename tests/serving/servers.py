"""Servers of the tests: on this machine alone, on a free port, stopped when the block ends."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parents[2]
# A server that nobody stops, because its test was killed, ends by itself.
LONGEST_LIFE = 300
COMMAND = f"""
import signal
signal.alarm({LONGEST_LIFE})
from gpm_hf.cli import main
raise SystemExit(main())
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def app_in_thread(app):
    """The URL of an application in this process."""
    import uvicorn

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)


class ServerProcess:
    """`gpm-hf serve --engine app` in a process of its own; `start` again after `kill` serves at the same URL."""

    def __init__(self, folder, *options, environment=None):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.command = [sys.executable, "-c", COMMAND, "serve", str(folder), "--engine", "app"]
        self.command += ["--port", str(self.port), *options]
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
        self.process = None

    def start(self, wait=True):
        self.process = subprocess.Popen(
            self.command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if wait:
            wait_until_ready(self.url, self.process)
        return self

    def kill(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        self.output = self.process.communicate(timeout=60)[0]
        return self.process.returncode

    def __enter__(self):
        return self.start()

    def __exit__(self, *exception):
        if self.process.poll() is None:
            self.kill()


@contextlib.contextmanager
def time_limit(seconds):
    """An error where the block takes longer; of the main thread."""

    def stop(*_):
        raise TimeoutError(f"the test took more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def wait_until_ready(url, process, seconds=120, route="/ready"):
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(requests.ConnectionError):
            if requests.get(url + route, timeout=5).status_code == 200:
                return
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the server did not become ready"
        time.sleep(0.1)
