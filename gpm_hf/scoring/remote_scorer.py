"""A preference model that another process serves, as a scorer."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download

from gpm_hf.endpoints import Endpoint, EndpointError
from gpm_hf.modeling import EncodedGroup, at_prompt, encode_group

from .batches import check_length
from .embedding_scorer import EmbeddingScorer
from .preference_model import load_tokenizer
from .served_heads import SETTINGS_FILE, ServedHeads

# Of our own server: the settings, and that it reads a group in one request.
SETTINGS_ROUTE = "/settings"
_ROUTE = "/v1/embeddings"


class RemoteScorer(EmbeddingScorer):
    """
    Log-odds by a model at a URL: `gpm-hf serve`, or vLLM on an exported folder (`--runner pooling`).

    Texts are rendered and tokenised here, by the tokenizer of the export, and token ids are sent: what a server does
    to texts differs. Of a group each distinct response is sent once and the prompt once. From vLLM the prompt (or the
    first response) is asked for before the others, which then find it in its prefix cache. On connecting, and after
    the server was away, the tokenizer and the server's numbers are compared with the reference group of the settings.

    Args:
        url (`str`): such as "http://127.0.0.1:8000". `"URL#MODEL"` names the exported folder or Hub id; by default it
            is the one that the server names.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): by default the one of the export.
        name (`str`, *optional*): how a table calls it.
        connections (`int`, defaults to 16): groups asked for at the same time.
        timeout (`float`, defaults to 300): seconds to wait for an answer.
        retry_for (`float`, defaults to 120): seconds for which a server that is away is asked again. What it had
            answered is kept.
        options: for reading the export (`revision`, `token`, ...).

    Raises:
        ValueError: where the server's model, its outputs, or the tokenizer are not those of the settings.
        EndpointError: where the server cannot be reached or refuses.
    """

    reads_prompts_once = True

    def __init__(
        self,
        url: str,
        tokenizer: Any = None,
        *,
        name: str | None = None,
        connections: int = 16,
        timeout: float = 300,
        retry_for: float = 120,
        **options: Any,
    ):
        if connections < 1:
            raise ValueError(f"connections={connections}: at least 1 is needed.")
        address, _, model = url.partition("#")
        self.endpoint = Endpoint(address, timeout, retry_for)
        self.connections = connections
        served = served_model(self.endpoint)
        self._name_there, self._limit_there = served["id"], served.get("max_model_len")
        self._is_ours = served.get("owned_by") == "gpm-hf"
        source = model or served.get("root") or served["id"]
        self.settings = self._read_settings(source, options)
        if tokenizer is None:
            try:
                tokenizer = load_tokenizer(source, **options)
            except (OSError, ValueError) as error:
                raise ValueError(_no_source(address, source)) from error
        self.tokenizer = tokenizer
        settings = self.settings
        super().__init__(
            name or f"{settings.model} at {address}",
            template_date=settings.template_date,
            needs_prompt=settings.scale_gate,
        )
        self.set_sizes(settings.embedding_size, settings.scale_gate, settings.tau)
        settings.check_tokenizer(tokenizer, source)
        self._check_engine()

    def encode(self, prompt: Any, responses: list) -> EncodedGroup:
        group = encode_group(
            self.tokenizer, prompt, responses, must_differ=self.must_differ, **self.settings.encoding_options
        )
        if self.settings.scale_gate:
            group.check_prompt()
        longest = max(len(ids) for ids in (*group.sequences, group.prompt_ids or []))
        limits = [limit for limit in (self.settings.max_length, self._limit_there) if limit is not None]
        limit = min(limits, default=None)
        remedy = ""
        if limit != self.settings.max_length:
            remedy = f"; the server at {self.endpoint.url} was started with so few, the model has more"
        check_length(longest, limit, "the prompt with a response", remedy)
        return group

    def count_forwards(self, encoded: list[EncodedGroup]) -> int:
        return 0

    def shard(self, prepare: Any) -> None:
        """Nothing of the model is here."""

    def _rows(self, encoded: list[EncodedGroup], least_forwards: int) -> torch.Tensor:
        if not encoded:
            return self.joined([])
        before = self.endpoint.outages
        with ThreadPoolExecutor(min(self.connections, len(encoded))) as pool:
            waiting = [pool.submit(self._outputs, group) for group in encoded]
            try:
                answers = [future.result() for future in waiting]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if self.endpoint.outages != before:
            self._check_engine()
        found = []
        for number, (outputs, prompt_output) in enumerate(answers):
            with at_prompt(number):
                scales = None if prompt_output is None else self.settings.scales(prompt_output)
                found.append((self.settings.embeddings(outputs), scales))
        return self.joined(found)

    def _size(self, encoded: EncodedGroup) -> int:
        return len(encoded.sequences)

    def _passes(self, encoded: EncodedGroup) -> int:
        return len(encoded.sequences) + (self.settings.scale_gate and not encoded.prompt_is_inside)

    def _outputs(self, group: EncodedGroup) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The engine's numbers for a group's responses, and with a gate for its prompt."""
        first = [group.prompt_ids] if self.settings.scale_gate else []
        distinct = list(dict.fromkeys(map(tuple, [*first, *group.sequences])))
        if self._is_ours or len(distinct) == 1:
            found = self._ask(distinct)
        else:
            # Whose prefix cache holds a prompt once its first request is done.
            found = torch.cat([self._ask(distinct[:1]), self._ask(distinct[1:])])
        place = {ids: number for number, ids in enumerate(distinct)}
        outputs = found[[place[tuple(ids)] for ids in group.sequences]]
        return outputs, found[0] if first else None

    def _ask(self, rows: list[tuple[int, ...]]) -> torch.Tensor:
        """Numbers of shape (rows, output_size)."""
        request = {
            "model": self._name_there,
            "input": [list(ids) for ids in rows],
            "encoding_format": "float",
            # An engine's activation is the norm of the whole vector, gate and reward with it.
            "use_activation": False,
        }
        answer = self.endpoint.post(_ROUTE, request)
        try:
            found = sorted(answer["data"], key=lambda one: one["index"])
            outputs = torch.tensor([one["embedding"] for one in found], dtype=torch.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise EndpointError(
                f"{self.endpoint.url}/v1/embeddings answered in an unknown form: {error!r}."
            ) from error
        if outputs.ndim != 2 or len(outputs) != len(rows):
            raise EndpointError(
                f"{self.endpoint.url}{_ROUTE} answered with numbers of shape {tuple(outputs.shape)} for {len(rows)} "
                "sequences: it is no model of one vector for each (vLLM: --runner pooling)."
            )
        return outputs

    def _check_engine(self) -> None:
        group = EncodedGroup(self.settings.reference_ids, self.settings.reference_prompt_ids or None)
        outputs, prompt_output = self._outputs(group)
        self.settings.check_outputs(outputs, prompt_output, self.endpoint.url)

    def _read_settings(self, source: str, options: dict) -> ServedHeads:
        if self._is_ours:
            where = self.endpoint.url + SETTINGS_ROUTE
            return ServedHeads.from_dict(self.endpoint.get(SETTINGS_ROUTE), where)
        if Path(source).is_dir():
            return ServedHeads.from_folder(source)
        try:
            path = hf_hub_download(source, SETTINGS_FILE, **options)
        except (OSError, ValueError) as error:
            raise ValueError(_no_source(self.endpoint.url, source)) from error
        return ServedHeads.from_json(Path(path).read_text(encoding="utf-8"), path)


def served_model(endpoint: Endpoint) -> dict[str, Any]:
    """What a server says of its model: `id`, and as a rule `root` (where it lies) and `max_model_len`."""
    answer = endpoint.get("/v1/models")
    try:
        found = answer["data"]
        (one,) = [model for model in found if not model.get("parent")]
        return {"id": str(one["id"]), **one}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise EndpointError(f"{endpoint.url}/v1/models does not name one model: it is no server of one.") from error


def _no_source(url: str, source: str) -> str:
    return (
        f"The server at {url} serves {source}, which is neither a folder here nor an exported model of the Hub. Name "
        f"one that holds the same export: remote:{url}#FOLDER_OR_HUB_ID."
    )
