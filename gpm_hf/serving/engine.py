"""
Sequences of many requests through one model: whatever waits while a batch is computed is the next batch.

What a request asks for may share its beginning, the prompt, which is then encoded once. One thread computes; requests
wait for it as futures.
"""

import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch

from gpm_hf.modeling import EncodedGroup, GPMConfig, GPMForPreference
from gpm_hf.scoring import stacked_heads

_STOP = None


class BusyError(RuntimeError):
    """More waits than the server keeps."""


@dataclass
class _Job:
    group: EncodedGroup
    tokens: int
    answer: Future = field(default_factory=Future)


class HeadsEngine:
    """
    The stacked heads of a preference model, computed for token ids; see [`gpm_hf.scoring.served_heads`].

    Args:
        model ([`~gpm_hf.modeling.GPMForPreference`]): in evaluation mode, on its device.
        max_batch_tokens (`int`): tokens encoded at once, padding included.
        max_waiting_tokens (`int`): so many tokens may wait; more are refused by a [`BusyError`].
    """

    def __init__(self, model: GPMForPreference, max_batch_tokens: int, max_waiting_tokens: int = 2**21):
        self.model = _with_stacked_heads(model)
        self.output_size = sum(len(head.weight) for head in model.heads().values())
        self.max_batch_tokens = max_batch_tokens
        self.max_waiting_tokens = max_waiting_tokens
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting_tokens = 0
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="gpm-hf engine", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive() and not self._is_closed

    def check(self, rows: list[list[int]]) -> None:
        """Raises `ValueError` for rows that the model cannot read: none, empty or too long ones, unknown ids."""
        if not rows or not all(rows):
            raise ValueError("a sequence without tokens: there is nothing to embed.")
        if min(map(min, rows)) < 0:
            raise ValueError("a token id is below 0.")
        self.model.check_context(max(map(len, rows)))
        self.model.check_vocabulary(rows)

    def submit(self, rows: list[list[int]]) -> "Future[torch.Tensor]":
        """
        Args:
            rows: the token ids of the sequences of one request, which [`~HeadsEngine.check`] has passed.

        Returns:
            A future of a `torch.FloatTensor` of shape (rows, output_size), on the CPU.

        Raises:
            BusyError: too much waits, or the engine is closed.
        """
        shared = _common_beginning(rows)
        group = EncodedGroup(rows, rows[0][:shared] or None)
        job = _Job(group, sum(map(len, rows)))
        with self._lock:
            if self._is_closed:
                raise BusyError("the server is shutting down.")
            if self._waiting_tokens and self._waiting_tokens + job.tokens > self.max_waiting_tokens:
                raise BusyError(f"{self._waiting_tokens} tokens are waiting: try again later.")
            self._waiting_tokens += job.tokens
            self._jobs.put(job)
        return job.answer

    def close(self) -> None:
        """Computes what waits, then stops."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._jobs.put(_STOP)
        self._thread.join()

    def _work(self) -> None:
        while True:
            jobs = [self._jobs.get()]
            while not self._jobs.empty():
                jobs.append(self._jobs.get())
            # Of those whose request is gone nothing is computed.
            work = [job for job in jobs if job is not None and job.answer.set_running_or_notify_cancel()]
            self._compute(work)
            with self._lock:
                self._waiting_tokens -= sum(job.tokens for job in jobs if job is not None)
            if jobs[-1] is _STOP:
                return

    def _compute(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        try:
            found = self.model.embed_groups([job.group for job in jobs], max_batch_tokens=self.max_batch_tokens)
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].answer.set_exception(error)
                return
            # One request's fault is not the others'.
            for job in jobs:
                self._compute([job])
            return
        for job, (outputs, _) in zip(jobs, found):
            job.answer.set_result(outputs[:, : self.output_size].cpu())


def _common_beginning(rows: list[list[int]]) -> int:
    """The number of tokens that all rows begin with, at most all but the last of the shortest."""
    if len(rows) < 2:
        return 0
    # Whatever all have in common the smallest and the largest have.
    first, last = min(rows), max(rows)
    most = min(map(len, rows)) - 1
    return next((place for place in range(most) if first[place] != last[place]), most)


def _with_stacked_heads(model: GPMForPreference) -> GPMForPreference:
    """The same backbone under one embedding head that is all heads; a row of zeros makes an odd number even."""
    weight = stacked_heads(model)
    size = len(weight) if len(weight) == 1 else len(weight) + len(weight) % 2
    options: dict[str, Any] = {"embedding_dim": size, "scale_gate": False, "normalize_embeddings": False}
    stacked = GPMForPreference(GPMConfig(text_config=model.config.text_config, **options), model.model)
    with torch.no_grad():
        stacked.embedding_head.weight.zero_()
        stacked.embedding_head.weight[: len(weight)] = weight
    stacked.embedding_head.to(model.device)
    return stacked.eval()
