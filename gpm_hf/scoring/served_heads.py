"""
What a client must know of a preference model that an engine serves as one linear map of a sequence's last state.

The heads are stacked, [embedding | gate | reward], in float32: an engine of embeddings computes them without our code.
What is left, the norm, the gate's activation and the form between two embeddings, is the client's, by the settings in
`gpm_serving.json`. A *reference group* with its log-odds lies in them too: an engine that computes in another type,
normalises its outputs or serves another model gives other ones.
"""

import hashlib
import json
import types
import typing
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from gpm_hf.modeling import (
    GPMForPreference,
    embeddings_of_heads,
    encode_group,
    preference_matrix,
    raw_moves,
    scales_of_gate,
)
from gpm_hf.modeling.configuration_gpm import MODEL_OPTIONS

SETTINGS_FILE = "gpm_serving.json"
_PROMPT = "How do I keep basil alive on a windowsill, and what does it need in winter?"
_RESPONSES = (
    "Give it six hours of sun a day. For example, a south window is enough from March to October.",
    "Basil is a plant.",
    "Water it when the top 2 cm of the soil are dry: that is about 150 ml every third day.",
    "What have you tried so far, and how warm is the room at night?",
)


@dataclass(frozen=True)
class ServedHeads:
    """
    The settings.

    Attributes:
        model (`str`): how the model is called.
        identity (`str`): of the model that was exported, see [`gpm_hf.identity.model_identity`].
        backbone (`str`): its kind, such as "llama".
        dtype (`str`): what the engine must compute the backbone in.
        hidden_size (`int`): of the backbone.
        max_length (`int`, *optional*): the most tokens of a sequence.
        embedding_dim, scale_gate, normalize_embeddings, tau, gate_activation, reward_head, prompt_format,
            template_date: as in [`~gpm_hf.modeling.GPMConfig`].
        chat_template_sha256 (`str`): of the tokenizer's chat template, empty without one.
        reference_prompt (`str`), reference_responses (`list[str]`): the reference group.
        reference_prompt_ids (`list[int]`), reference_ids (`list[list[int]]`): as token ids.
        reference_scores (`list[list[float]]`): its log-odds.
        tolerance (`float`): the most that a log-odds of it may differ.
    """

    model: str
    identity: str
    backbone: str
    dtype: str
    hidden_size: int
    max_length: int | None
    embedding_dim: int
    scale_gate: bool
    normalize_embeddings: bool
    tau: float
    gate_activation: str
    reward_head: bool
    prompt_format: str
    template_date: str
    chat_template_sha256: str
    reference_prompt: str
    reference_responses: list
    reference_prompt_ids: list
    reference_ids: list
    reference_scores: list
    tolerance: float
    version: int = 1

    @property
    def blocks(self) -> int:
        """Numbers of the gate; 0 without one."""
        return self.embedding_dim // 2 if self.scale_gate else 0

    @property
    def output_size(self) -> int:
        """Numbers that the engine gives for a sequence."""
        return self.embedding_dim + self.blocks + self.reward_head

    @property
    def embedding_size(self) -> int:
        """Length of the embeddings, with a reward's block, see [`~gpm_hf.modeling.GPMConfig.output_dim`]."""
        return self.embedding_dim + 2 * self.reward_head

    def embeddings(self, outputs: torch.Tensor) -> torch.Tensor:
        """
        Args:
            outputs (`torch.FloatTensor` of shape `(..., output_size)`): at responses' last tokens.

        Returns:
            `torch.FloatTensor` of shape `(..., embedding_size)`.
        """
        vectors, _, rewards = outputs.float().split([self.embedding_dim, self.blocks, int(self.reward_head)], dim=-1)
        return embeddings_of_heads(self, vectors, rewards if self.reward_head else None)

    def scales(self, output: torch.Tensor) -> torch.Tensor:
        """
        Args:
            output (`torch.FloatTensor` of shape `(..., output_size)`): at prompts' last tokens.

        Returns:
            `torch.FloatTensor` of shape `(..., embedding_size / 2)`, of a model with a gate.
        """
        return scales_of_gate(self, output.float()[..., self.embedding_dim : self.embedding_dim + self.blocks])

    def scores(self, outputs: torch.Tensor, prompt_output: torch.Tensor | None = None) -> torch.Tensor:
        """
        Log-odds of shape (K, K) out of an engine's outputs for K responses and, with a gate, for their prompt.

        Args:
            outputs (`torch.FloatTensor` of shape `(K, output_size)`): at the responses' last tokens.
            prompt_output (`torch.FloatTensor` of shape `(output_size,)`): at the prompt's last token.
        """
        scales = None
        if self.scale_gate:
            if prompt_output is None:
                raise ValueError("This model has a scale gate: give the engine's output at the prompt's end too.")
            scales = self.scales(prompt_output)
        return preference_matrix(self.embeddings(outputs), scales, self.tau)

    @property
    def encoding_options(self) -> dict[str, Any]:
        """As [`~gpm_hf.modeling.GPMConfig.encoding_options`]."""
        return {"prompt_format": self.prompt_format, "template_date": self.template_date}

    def check_tokenizer(self, tokenizer: Any, where: str) -> None:
        """Raises `ValueError` for a tokenizer that makes other ids of the reference group than the model's did."""
        group = encode_group(tokenizer, self.reference_prompt, self.reference_responses, **self.encoding_options)
        if self.chat_template_sha256 != chat_template_digest(tokenizer):
            raise ValueError(
                f"The chat template of the tokenizer in {where} is not the one that {self.model} was exported with: "
                "its scores would be of another prompt. Use the tokenizer of the export."
            )
        if group.sequences != self.reference_ids or (group.prompt_ids or []) != self.reference_prompt_ids:
            raise ValueError(
                f"The tokenizer in {where} makes other token ids of the reference group than the one that "
                f"{self.model} was exported with. Use the tokenizer of the export."
            )

    def check_outputs(self, outputs: torch.Tensor, prompt_output: torch.Tensor | None, where: str) -> None:
        """
        Checks what an engine gives for the reference group.

        Raises:
            ValueError: another number of outputs, or log-odds that differ by more than `tolerance`.
        """
        if outputs.shape[-1] != self.output_size:
            raise ValueError(
                f"{where} gives {outputs.shape[-1]} numbers for a sequence, and {self.model} has {self.output_size} "
                f"(embedding {self.embedding_dim}, gate {self.blocks}, reward {int(self.reward_head)}): it serves "
                "another model, or not the last token's heads."
            )
        difference = float((self.scores(outputs, prompt_output) - torch.tensor(self.reference_scores)).abs().max())
        if not difference <= self.tolerance:
            raise ValueError(
                f"{where} gives other log-odds for the reference group than {self.model} does, by up to "
                f"{difference:.2g}; {self.tolerance:.2g} is rounding in {self.dtype}. Either it computes in another "
                f"type (start it with --dtype {self.dtype}), or it normalises its outputs (`use_activation` must be "
                "false), or it serves another model."
            )

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> "ServedHeads":
        """
        Raises:
            ValueError: what is no such settings file.
        """
        try:
            found = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{where} is no JSON: {error}") from error
        return cls.from_dict(found, where)

    @classmethod
    def from_dict(cls, found: Any, where: str) -> "ServedHeads":
        """As [`~ServedHeads.from_json`], of JSON that was read already."""
        if not isinstance(found, dict) or found.get("version") != 1:
            raise ValueError(f"{where} holds no settings of a served preference model of version 1: export it anew.")
        kinds = typing.get_type_hints(cls)
        names = {field.name for field in fields(cls)}
        wrong = sorted(names ^ found.keys())
        wrong += [name for name in sorted(names & found.keys()) if not _is(found[name], kinds[name])]
        if wrong:
            raise ValueError(f"{where} has too many or too few settings, or ones of another type: {', '.join(wrong)}.")
        return cls(**found)

    @classmethod
    def from_folder(cls, folder: str | Path) -> "ServedHeads":
        """
        Raises:
            FileNotFoundError: a folder that is no export.
            ValueError: as [`~ServedHeads.from_json`].
        """
        path = Path(folder) / SETTINGS_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} has no {SETTINGS_FILE}: it is no exported preference model. Make one by "
                "`gpm-hf export sentence-transformers MODEL OUT`."
            )
        return cls.from_json(path.read_text(encoding="utf-8"), str(path))


def served_heads(model: GPMForPreference, tokenizer: Any, name: str, identity: str) -> ServedHeads:
    """
    The settings of a model, with the log-odds that it gives to the reference group.

    Args:
        model: in the type in which it is to be served.
        tokenizer: its own.
        name, identity: as in [`ServedHeads`].
    """
    config = model.config
    group = encode_group(tokenizer, _PROMPT, list(_RESPONSES), **config.encoding_options)
    embeddings, scales = model.embed_groups([group])[0]
    scores = preference_matrix(embeddings, scales, config.tau)
    dtype = str(model.dtype).removeprefix("torch.")
    # Of raw scores that are at most 1; others move with their size.
    size = max(1.0, float(scores.abs().max()) * config.tau, float(embeddings.abs().max()))
    return ServedHeads(
        model=name,
        identity=identity,
        backbone=config.text_config.model_type,
        dtype=dtype,
        hidden_size=config.text_config.hidden_size,
        max_length=model.context_length,
        **{option: vars(config)[option] for option in MODEL_OPTIONS},
        chat_template_sha256=chat_template_digest(tokenizer),
        reference_prompt=_PROMPT,
        reference_responses=list(_RESPONSES),
        reference_prompt_ids=group.prompt_ids or [],
        reference_ids=group.sequences,
        reference_scores=scores.tolist(),
        tolerance=raw_moves(dtype) * size / config.tau,
    )


def stacked_heads(model: GPMForPreference) -> torch.Tensor:
    """The heads as one matrix (`torch.FloatTensor` of shape `(output_size, hidden_size)`)."""
    return torch.cat([head.weight.detach().float().cpu() for head in model.heads().values()])


def chat_template_digest(tokenizer: Any) -> str:
    """SHA-256, in hex, of a tokenizer's chat template, or of all of them by name; empty without one."""
    template = tokenizer.chat_template
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest() if template else ""


def _is(value: Any, kind: Any) -> bool:
    if isinstance(kind, types.UnionType):
        return any(_is(value, one) for one in typing.get_args(kind))
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
