"""
Causal language models that judge two responses by the next token, "A" or "B" (the pair preference model of RLHFlow,
Dong et al. 2024, https://arxiv.org/abs/2405.07863).
"""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import AutoConfig, AutoModelForCausalLM

from gpm_hf.modeling import check_one_model, checked_date, evaluation_mode, fixed_templates, input_device

from .adapters import is_adapter, load_language_adapter
from .batches import attention_mask, batches_by_length, longest_sequence, pad_right
from .pair_scorer import PairScorer
from .pair_text import check_template, fill_template
from .preference_model import load_gguf_language_model
from .repositories import hub_options_of, with_gguf_file
from .scorer_models import check_complete, refuse_preference_model, resolve_model
from .whole_models import loaded_whole

RLHFLOW_TEMPLATE = "[CONTEXT] {prompt} [RESPONSE A] {a} [RESPONSE B] {b} \n"
# The conversation up to the responses, as a chat template.
RLHFLOW_CONTEXT = (
    "\n{% for message in messages %}{% if loop.index0 % 2 == 0 %}\n\n<turn> user\n {{ message['content'] }}"
    "{% else %}\n\n<turn> assistant\n {{ message['content'] }}{% endif %}{% endfor %}\n\n\n"
)


class PairCompletionScorer(PairScorer):
    """
    Log-odds by a causal language model: the logit of the answer "A" minus that of "B" as the next token.

    Args:
        model: a Hub id or folder (one with a single `.gguf` file will do), or a causal language model.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): by default the one saved beside the model.
        template (`str` or `list[dict]`, *optional*): what the model reads, with the fields {prompt}, {a} and {b}: a
            text, which becomes one user message where the tokenizer has a chat template, or chat messages. The default
            is the format of RLHFlow's program: its text, its rendering of the conversation, and no BOS.
        context_template (`str`, *optional*): a chat template (Jinja) that renders {prompt}; with a template of your
            own, a single message is by default its content, and several are a paragraph "role: content" each.
        answers (`tuple[str, str]`, defaults to `("A", "B")`): the two answers, one token each.
        both_orders (`bool`, defaults to `True`): K(K-1) forward passes, or K(K-1)/2 with the earlier response as A.
        average (`bool`, defaults to `True`): with both orders, (s_ij - s_ji) / 2; else the matrix as the model
            gave it. The mean is of log-odds; RLHFlow's program takes that of probabilities, on the same side of 1/2.
        batch_size, max_length, template_date, name, device, options: as in [`RewardModelScorer`].

    Raises:
        ValueError: a model that is no causal language model or lacks weights, a template without a field, an answer
            that is not one token.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        template: str | list[dict] | None = None,
        context_template: str | None = None,
        answers: tuple[str, str] = ("A", "B"),
        both_orders: bool = True,
        average: bool = True,
        batch_size: int = 16,
        max_length: int | None = None,
        template_date: str | None = None,
        name: str | None = None,
        device: Any = None,
        **options: Any,
    ):
        self.drops_bos = template is None
        if template is None:
            template, context_template = RLHFLOW_TEMPLATE, context_template or RLHFLOW_CONTEXT
        check_template(template)
        self.model, self.tokenizer, name = resolve_model(model, tokenizer, device, options, _load, name)
        refuse_preference_model(name, self.model.config, "which answers nothing")
        if not isinstance(template, str) and self.tokenizer.chat_template is None:
            raise ValueError(f"The template is chat messages, and the tokenizer of {name} has no chat template.")
        limit = longest_sequence(self.model.config, self.tokenizer) if max_length is None else max_length
        super().__init__(name, both_orders, average, limit, checked_date(template_date))
        self._chat_template = None
        if self.tokenizer.chat_template is not None:
            self._chat_template = fixed_templates(self.tokenizer.get_chat_template(), self.template_date)
        self.template = template
        self.context_template = context_template
        self.batch_size = batch_size
        self.answer_ids = [self._answer_id(answer) for answer in answers]
        if len(set(self.answer_ids)) != 2:
            raise ValueError(f"Two different answers are needed, got {answers!r}, the tokens {self.answer_ids}.")
        self._keeps_logits = "logits_to_keep" in inspect.signature(self.model.forward).parameters

    def _answer_id(self, answer: str) -> int:
        ids = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            tokens = self.tokenizer.convert_ids_to_tokens(ids)
            raise ValueError(
                f"The answer {answer!r} is not one token but {len(ids)}, {tokens}: choose `answers` that are "
                '(a leading space may matter, as in " A").'
            )
        return ids[0]

    def _prompt_text(self, prompt: Any) -> str:
        # Also where it is not used: Jinja would print a message without text as "None".
        text = super()._prompt_text(prompt)
        if self.context_template is None:
            return text
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        return self.tokenizer.apply_chat_template(messages, chat_template=self.context_template, tokenize=False)

    def _encode(self, prompt: str, a: str, b: str) -> list[int]:
        tokenizer = self.tokenizer
        if tokenizer.chat_template is None:
            ids = tokenizer(fill_template(str(self.template), prompt, a, b))["input_ids"]
            # Some tokenizers end every text with EOS; the answer comes after the text, not after its end.
            ids = ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids
        else:
            template = self.template
            if isinstance(template, str):
                template = [{"role": "user", "content": template}]
            messages = [
                {**message, "content": fill_template(message["content"], prompt, a, b)} for message in template
            ]
            try:
                encoded = tokenizer.apply_chat_template(
                    messages,
                    chat_template=self._chat_template,
                    tokenize=True,
                    return_dict=True,
                    add_generation_prompt=True,
                )
            except TemplateError as error:
                roles = [message["role"] for message in messages]
                raise ValueError(
                    f"The chat template of {self.name} cannot render the roles {roles}: {error}. Choose another "
                    "`template`."
                ) from error
            ids = encoded["input_ids"]
        return ids[1:] if self.drops_bos and ids[0] == tokenizer.bos_token_id else ids

    @torch.no_grad()
    def _batches(self, rows: Sequence[list[int]]) -> Iterator[tuple[list[int], torch.Tensor]]:
        for numbers in batches_by_length([len(ids) for ids in rows], self.batch_size):
            ids = [rows[number] for number in numbers]
            last = torch.tensor([len(row) - 1 for row in ids])
            inputs = {"input_ids": pad_right(ids, 0), "attention_mask": attention_mask(ids)}
            if self._keeps_logits:
                # The vocabulary is large: its logits are computed where some sequence of the batch ends.
                columns, last = last.unique(return_inverse=True)
                inputs["logits_to_keep"] = columns
            device = input_device(self.model)
            with evaluation_mode(self.model):
                logits = self.model(**{name: value.to(device) for name, value in inputs.items()}).logits
            ends = logits[torch.arange(len(ids), device=logits.device), last.to(logits.device)].float().cpu()
            yield numbers, ends[:, self.answer_ids[0]] - ends[:, self.answer_ids[1]]


def _load(name: str, **options: Any) -> Any:
    options = with_gguf_file(name, options)
    if "gguf_file" in options:
        return load_gguf_language_model(name, **options)
    check_one_model(name, both_formats=True)
    if is_adapter(name, options):
        return load_language_adapter(name, **options)
    config = AutoConfig.from_pretrained(name, **hub_options_of(options))
    refuse_preference_model(name, config, "which answers nothing")
    model, info = loaded_whole(
        name, lambda: AutoModelForCausalLM.from_pretrained(name, output_loading_info=True, **options)
    )
    check_complete(name, info, "causal language model")
    return model
