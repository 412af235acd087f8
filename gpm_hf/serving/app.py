"""The routes of the small server, for one machine."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import torch
from fastapi import FastAPI, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from gpm_hf.modeling import (
    EncodedGroup,
    PromptError,
    condorcet_winner,
    encode_group,
    has_cycle,
    mean_scores,
    rank_responses,
)
from gpm_hf.serving.engine import BusyError, HeadsEngine
from gpm_hf.serving.forms import HeadsRequest, RewardRequest, ScoreRequest
from gpm_hf.serving.limits import Gate
from gpm_hf.serving.loading import ServedModel
from gpm_hf.serving.rewards import IncompleteGroupError, PolicyText, RewardWindows


@dataclass(frozen=True)
class Limits:
    """
    Attributes:
        max_body_bytes: of a request.
        max_rows: sequences of a request.
        max_batch_tokens: encoded at once.
        max_waiting_tokens: of all requests that wait.
        group_size: responses to a prompt that `/get_reward` waits for; `None` where every request holds whole groups,
            or reference answers.
        group_wait: seconds that it waits.
    """

    max_body_bytes: int = 8 * 2**20
    max_rows: int = 4096
    max_batch_tokens: int = 1024
    max_waiting_tokens: int = 2**21
    group_size: int | None = None
    group_wait: float = 60.0


class _Routes:
    def __init__(self, served: ServedModel, limits: Limits, policy_tokenizer: Any):
        self.served = served
        self.settings = served.settings
        self.limits = limits
        self.engine = HeadsEngine(served.model, limits.max_batch_tokens, limits.max_waiting_tokens)
        # One thread: a tokenizer is not safe in several at once.
        self.encoder = ThreadPoolExecutor(1, "gpm-hf encoder")
        # A reward must be a number: no log-odds of embeddings of unit length are lower.
        self.reward_without_text = -1 / self.settings.tau
        self.policy = PolicyText(policy_tokenizer or served.tokenizer)
        self.windows = RewardWindows(limits.group_size, limits.group_wait) if limits.group_size else None

    def close(self) -> None:
        self.engine.close()
        self.encoder.shutdown()

    async def heads(self, request: HeadsRequest) -> torch.Tensor:
        return await self._outputs(request.rows)

    async def scores(self, groups: list[tuple[Any, list]]) -> list[torch.Tensor]:
        """Log-odds of each group."""
        loop = asyncio.get_running_loop()
        encoded = await loop.run_in_executor(self.encoder, self._encode, groups)
        return await asyncio.gather(*(self._matrix(group) for group in encoded))

    def _encode(self, groups: list[tuple[Any, list]]) -> list[EncodedGroup]:
        encoded = []
        for number, (prompt, responses) in enumerate(groups):
            try:
                group = encode_group(
                    self.served.tokenizer, prompt, responses, must_differ=False, **self.settings.encoding_options
                )
                if self.settings.scale_gate:
                    group.check_prompt()
                self.engine.check([*group.sequences, *([group.prompt_ids] if group.prompt_ids else [])])
            except ValueError as error:
                raise PromptError(number, error.reason if isinstance(error, PromptError) else str(error)) from error
            encoded.append(group)
        return encoded

    async def _matrix(self, group: EncodedGroup) -> torch.Tensor:
        first = [group.prompt_ids] if self.settings.scale_gate and group.prompt_ids else []
        distinct = list(dict.fromkeys(map(tuple, [*first, *group.sequences])))
        outputs = await self._outputs([list(ids) for ids in distinct])
        place = {ids: number for number, ids in enumerate(distinct)}
        responses = outputs[[place[tuple(ids)] for ids in group.sequences]]
        return self.settings.scores(responses, outputs[0] if first else None)

    async def _outputs(self, rows: list[list[int]]) -> torch.Tensor:
        if len(rows) > self.limits.max_rows:
            raise ValueError(f"{len(rows)} sequences in one request, and {self.limits.max_rows} are the most.")
        self.engine.check(rows)
        outputs = await asyncio.wrap_future(self.engine.submit(rows))
        if not bool(outputs.isfinite().all()):
            raise ValueError("the model's outputs are not finite: its states overflow in its type.")
        return outputs

    async def rewards(self, request: RewardRequest) -> list[float]:
        """One for each query: the mean log-odds against its group, itself included, or against reference answers."""
        if not len(request.query) == len(request.prompts) == len(request.labels or request.query):
            raise ValueError("`query`, `prompts` and `labels` must be of one length.")
        rows = [self._reward_row(request, number) for number in range(len(request.query))]
        whole: dict[str, list[int]] = {}
        for number, (prompt, _, references) in enumerate(rows):
            if references is None and self.windows is None:
                whole.setdefault(repr(prompt), []).append(number)
        lone = [numbers[0] for numbers in whole.values() if len(numbers) < 2]
        if lone:
            raise ValueError(
                f"query {lone[0]} is alone: a preference needs other responses to its prompt. Send whole groups, "
                "start the server with --group-size, or give `reference_responses` in its label."
            )
        found: dict[int, float] = {}

        async def of_group(numbers: list[int]) -> None:
            means = await self.means(rows[numbers[0]][0], [rows[number][1] for number in numbers])
            found.update(zip(numbers, means))

        async def of_row(number: int) -> None:
            prompt, response, references = rows[number]
            if references is None:
                found[number] = await self.windowed(prompt, response)
            elif not response.strip():
                found[number] = self.reward_without_text
            else:
                (matrix,) = await self.scores([(prompt, [response, *references])])
                found[number] = float(matrix[0, 1:].mean())

        grouped = {number for numbers in whole.values() for number in numbers}
        single = [number for number in range(len(rows)) if number not in grouped]
        await asyncio.gather(*map(of_group, whole.values()), *map(of_row, single))
        return [found[number] for number in range(len(rows))]

    def _reward_row(self, request: RewardRequest, number: int) -> tuple[Any, str, list[str] | None]:
        try:
            label = request.label_of(number)
            prompt, query = request.prompts[number], request.query[number]
            if label.messages is not None:
                return label.messages, self.policy.response(prompt, query), label.reference_responses
            return *self.policy.read(prompt, query), label.reference_responses
        except ValidationError as error:
            raise ValueError(f"label {number}: {error.errors()[0]['msg']}.") from error

    async def windowed(self, prompt: Any, response: str) -> float:
        assert self.windows is not None
        responses, place, shared = await self.windows.group_of(prompt, response)
        if place == 0:
            try:
                shared.set_result(await self.means(prompt, responses))
            except BaseException as error:
                shared.set_exception(error if isinstance(error, Exception) else BusyError("the request was given up."))
                if not isinstance(error, Exception):
                    raise
        return (await asyncio.shield(shared))[place]

    async def means(self, prompt: Any, responses: list[str]) -> list[float]:
        """Of a group's responses; a policy may sample some without text, which are no reason to refuse the others."""
        rewards = [self.reward_without_text] * len(responses)
        scorable = [number for number, response in enumerate(responses) if response.strip()]
        if scorable:
            (matrix,) = await self.scores([(prompt, [responses[number] for number in scorable])])
            for number, mean in zip(scorable, mean_scores(matrix).tolist()):
                rewards[number] = mean
        return rewards


def build_app(
    served: ServedModel, key: str | None = None, limits: Limits | None = None, policy_tokenizer: Any = None
) -> FastAPI:
    """
    The application, to be run by uvicorn or another ASGI server, in one process.

    Args:
        served: the model.
        key: the bearer token that requests must have, but for `/health` and `/ready`; `None` asks for none.
        limits: see [`Limits`].
        policy_tokenizer: of the policy that `/get_reward` is asked about, where its chat template is another one.
    """
    limits = limits or Limits()
    routes = _Routes(served, limits, policy_tokenizer)
    settings = served.settings

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        # The requests that uvicorn waited for are answered.
        await asyncio.get_running_loop().run_in_executor(None, routes.close)

    app = FastAPI(title="gpm-hf", lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Gate, key=key, max_bytes=limits.max_body_bytes)  # type: ignore[arg-type]
    _answer_errors(app)

    @app.get("/health")
    async def health() -> dict:
        return {"status": "ok"}

    @app.get("/ready")
    async def ready(response: Response) -> dict:
        if not routes.engine.is_running:
            response.status_code = 503
        return {"ready": routes.engine.is_running, "model": settings.model}

    @app.get("/v1/models")
    async def models() -> dict:
        one = {"id": settings.model, "object": "model", "owned_by": "gpm-hf", "root": served.source}
        return {"object": "list", "data": [one | {"max_model_len": settings.max_length}]}

    @app.get("/settings")
    async def serving_settings() -> Response:
        return Response(settings.to_json(), media_type="application/json")

    @app.post("/pooling")
    async def pooling(request: HeadsRequest) -> JSONResponse:
        return _heads_answer(request, await routes.heads(request), "data", "pooling")

    @app.post("/v1/embeddings")
    async def embeddings(request: HeadsRequest) -> JSONResponse:
        return _heads_answer(request, await routes.heads(request), "embedding", "embedding")

    @app.post("/score")
    async def score(request: ScoreRequest) -> JSONResponse:
        matrices = await routes.scores([(group.prompt, group.responses) for group in request.groups])
        return JSONResponse({"results": [_described(matrix) for matrix in matrices]})

    @app.post("/get_reward")
    async def get_reward(request: RewardRequest) -> JSONResponse:
        rewards = await routes.rewards(request)
        return JSONResponse({"rewards": rewards, "scores": rewards, "extra_logs": {}})

    def _heads_answer(request: HeadsRequest, outputs: torch.Tensor, key: str, kind: str) -> JSONResponse:
        data = [{"object": kind, "index": number, key: row} for number, row in enumerate(outputs.tolist())]
        tokens = sum(map(len, request.rows))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "model": settings.model, "data": data, "usage": usage})

    return app


def _described(scores: torch.Tensor) -> dict[str, Any]:
    winner = int(condorcet_winner(scores))
    return {
        "scores": scores.tolist(),
        "probabilities": scores.sigmoid().tolist(),
        "mean_scores": mean_scores(scores).tolist(),
        "ranking": rank_responses(scores).tolist(),
        "winner": None if winner < 0 else winner,
        "has_cycle": bool(has_cycle(scores)),
    }


def _answer_errors(app: FastAPI) -> None:
    """Faults of a request are 422 with a sentence; what may be tried again is 503."""

    def answers(kind: type[Exception], status: int, headers: dict[str, str] | None = None) -> None:
        async def answer(request: Any, error: Exception) -> JSONResponse:
            return JSONResponse({"detail": str(error)}, status, headers)

        app.add_exception_handler(kind, answer)

    async def answer_form(request: Any, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        # Of many faults the first, without what was sent: it may be large, and private.
        first = error.errors()[0]
        return JSONResponse({"detail": f"{'.'.join(map(str, first['loc']))}: {first['msg']}"}, 422)

    app.add_exception_handler(RequestValidationError, answer_form)
    answers(ValueError, 422)
    answers(BusyError, 503, {"Retry-After": "1"})
    answers(IncompleteGroupError, 408)
