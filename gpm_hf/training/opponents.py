"""
Opponents other than the policy itself, mu of equation 5.1 of the paper: the M responses to each prompt that the
policy's K responses to it are scored against.

They come from the data set, from the *reference policy* (what the policy was when the training began), or from the
geometric mixture of the two that Nash-MD plays against ("Nash Learning from Human Feedback", ICML 2024),

    pi_mix(token) ~ pi(token)^(1 - alpha) * pi_ref(token)^alpha.

The M responses to each of G prompts are dealt out over the processes evenly, whoever holds the policy's responses.
Sampled ones draw on the random stream of the training, right after the policy's own: a run resumed from a checkpoint
draws the same.
"""

import copy
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate.utils import gather_object, is_peft_model
from transformers import GenerationConfig, ProcessorMixin
from transformers.generation import GenerationMode
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from trl.chat_template_utils import parse_response
from trl.data_utils import is_conversational
from trl.models import prepare_deepspeed, prepare_fsdp
from trl.trainer.utils import create_model_from_path, pad
from typing_extensions import override

from gpm_hf.generation.sampling import up_to_stop
from gpm_hf.generation.sampling_check import causal_lm
from gpm_hf.training.geometric_mixture import geometric_mixture
from gpm_hf.training.sampling_guard import SamplingGuard, unwrapped_for_generation

COLUMN = "opponent_responses"


@dataclass
class Responses:
    """Responses held by this process, as GRPO passes them on: data set rows, prompts, completions, token ids."""

    inputs: list
    prompts: list
    completions: list
    token_ids: list

    def __len__(self):
        return len(self.prompts)


def rows_of_both(groups, local_rows, local_answers, size):
    """
    Where the policy's and the opponent's responses stand when each process lists its own of the policy, then its own
    of the opponent.

    Args:
        groups (`torch.Tensor` of shape `(G, K)`): row numbers, through all processes, of the policy's responses alone.
        local_rows (`int`): responses of the policy on each process.
        local_answers (`int`): responses of the opponent on each process, see [`Opponent.respond`].
        size (`int`): M.

    Returns:
        `torch.Tensor` of shape `(G, K + M)`: row numbers; first the policy's responses, then the opponent's.
    """
    width = local_rows + local_answers
    answers = torch.arange(len(groups) * size, device=groups.device).view(-1, size)
    policy = groups // local_rows * width + groups % local_rows
    opponent = answers // local_answers * width + local_rows + answers % local_answers
    return torch.cat([policy, opponent], 1)


class Opponent:
    """
    What every opponent does: it responds M times to each prompt, each process with its share.

    Args:
        trainer ([`OnlineGPOTrainer`]): its processing class, generation options and processes are used.
        size (`int`): M.
    """

    def __init__(self, trainer, size):
        self.trainer = trainer
        self.size = size

    def respond(self, groups, inputs, prompts):
        """
        This process's share of the G * M responses, in the order of [`rows_of_both`]. All processes call this together
        and get as many, which may repeat some of the first ones at the end.

        Args:
            groups (`torch.Tensor` of shape `(G, K)`): row numbers of the policy's responses, through all processes.
            inputs (`list[dict]`), prompts (`list`): data set rows and prompts of this process's ones.
        """
        accelerator, firsts = self.trainer.accelerator, groups[:, 0].tolist()
        wanted, offset = set(firsts), accelerator.process_index * len(inputs)
        held = [(row, *of_row) for row, of_row in enumerate(zip(inputs, prompts), offset) if row in wanted]
        group_of = {row: of_row for row, *of_row in gather_object(held)}
        total = len(firsts) * self.size
        share = -(-total // accelerator.num_processes)
        answers = [(accelerator.process_index * share + index) % total for index in range(share)]
        rows, prompts = map(list, zip(*[group_of[firsts[answer // self.size]] for answer in answers]))
        return Responses(rows, prompts, *self.completions(rows, prompts, [answer % self.size for answer in answers]))

    def completions(self, rows, prompts, numbers):
        """Completions and their token ids, for the `numbers`-th responses (0 to M - 1) to some data set rows."""
        raise NotImplementedError


class StoredOpponent(Opponent):
    """
    Responses of the data set's column `opponent_responses`: M per row, strings or (for conversations) lists of
    messages. Reward functions get the tokens of their text as `completion_ids`.
    """

    @override
    def completions(self, rows, prompts, numbers):
        completions = [self._response(*one) for one in zip(rows, prompts, numbers)]
        texts = [
            one if isinstance(one, str) else "".join(message["content"] for message in one) for one in completions
        ]
        return completions, text_tokenizer(self.trainer.processing_class)(texts, add_special_tokens=False)["input_ids"]

    def _response(self, row, prompt, number):
        if COLUMN not in row:
            raise ValueError(
                f"The training set has the column `{COLUMN}` and the evaluation set has not: add it there as well."
            )
        responses = row[COLUMN]
        if len(responses) != self.size:
            raise ValueError(
                f"`{COLUMN}` has {len(responses)} responses to the prompt {prompt!r}, but {self.size} to "
                "others. Every row needs as many."
            )
        response, conversation = responses[number], is_conversational({"prompt": prompt})
        if conversation and isinstance(response, str):
            return [{"role": "assistant", "content": response}]
        if not conversation and not isinstance(response, str):
            raise ValueError(f"`{COLUMN}` holds messages for the prompt {prompt!r}, which is a string: give strings.")
        return response


class ReferenceOpponent(Opponent):
    """
    Responses sampled from the reference policy by transformers' generation, with the policy's options for sampling.

    Args:
        trainer, size: as in [`Opponent`].
        reference (`torch.nn.Module`, *optional*): the reference policy, placed; `None`: the policy itself, with its
            adapter switched as TRL does for its reference: to a frozen copy named "ref", else off.
    """

    def __init__(self, trainer, size, reference=None):
        super().__init__(trainer, size)
        self.reference = reference
        self.generation_config = _generation_config(trainer)
        self.sampling = SamplingGuard(
            trainer, text_tokenizer(trainer.processing_class), self.parts(), self.generation_config
        )

    def parts(self):
        """What gives the models that the responses come from, each by itself."""
        return [self.as_it_was]

    @override
    def completions(self, rows, prompts, numbers):
        trainer = self.trainer
        prompt_ids, _, _ = trainer._tokenize_prompts(prompts)
        self.sampling.look()
        self.sampling.check_lengths(prompt_ids)
        rows = [torch.tensor(ids) for ids in prompt_ids]
        device = trainer.accelerator.device
        pad_id = text_tokenizer(trainer.processing_class).pad_token_id
        ids = pad(rows, padding_value=pad_id, padding_side="left").to(device)
        mask = pad([torch.ones_like(row) for row in rows], padding_value=0, padding_side="left").to(device)
        with torch.no_grad(), self.player() as model:
            output = model.generate(input_ids=ids, attention_mask=mask, generation_config=self.generation_config)
        token_ids = [up_to_stop(row, trainer.eos_token_ids) for row in output[:, ids.shape[1] :].tolist()]
        return decode_completions(trainer, prompts, prompt_ids, token_ids), token_ids

    def player(self):
        """The model that generates. All processes enter together."""
        return self.as_it_was()

    @contextmanager
    def as_it_was(self):
        """The reference policy."""
        if self.reference is not None:
            with unwrapped_for_generation(self.trainer, self.reference) as model:
                yield model
        else:
            with unwrapped_for_generation(self.trainer, self.trainer.model_wrapped) as model, self.as_reference(model):
                yield model

    @staticmethod
    @contextmanager
    def as_reference(policy):
        """Makes a policy with an adapter the reference policy, for a while."""
        if "ref" not in policy.peft_config:
            with policy.disable_adapter():
                yield
            return
        trained = policy.active_adapter
        policy.set_adapter("ref")
        try:
            yield
        finally:
            policy.set_adapter(trained)


class MixtureOpponent(ReferenceOpponent):
    """
    Responses sampled from the geometric mixture of the policy as it is and the reference policy.

    Args:
        trainer, size, reference: as in [`ReferenceOpponent`].
        mixture_coef (`float`): alpha, the reference policy's share.

    Raises:
        ValueError: where generation is anything but sampling, and for adapters that are virtual tokens.
    """

    def __init__(self, trainer, size, reference=None, mixture_coef=0.5):
        super().__init__(trainer, size, reference)
        self.mixture_coef = mixture_coef
        if (mode := self.generation_config.get_generation_mode()) != GenerationMode.SAMPLE:
            raise ValueError(
                f"opponent='mixture' samples token by token: `generation_kwargs` must not ask for {mode.value}."
            )
        policy = trainer.accelerator.unwrap_model(trainer.model)
        if is_peft_model(policy) and policy.active_peft_config.is_prompt_learning:
            raise ValueError(
                "opponent='mixture' feeds the same tokens to policy and reference, and a prompt-learning adapter adds "
                "virtual ones to the policy's: use LoRA, or opponent='reference'."
            )

    @override
    def parts(self):
        return [lambda: unwrapped_for_generation(self.trainer, self.trainer.model_wrapped), self.as_it_was]

    @override
    @contextmanager
    def player(self):
        cached = self.generation_config.use_cache is not False
        with unwrapped_for_generation(self.trainer, self.trainer.model_wrapped) as policy:
            if self.reference is None:
                model = causal_lm(policy)
                with geometric_mixture(model, model, self.mixture_coef, lambda: self.as_reference(policy), cached):
                    yield policy
            else:
                with (
                    unwrapped_for_generation(self.trainer, self.reference) as reference,
                    geometric_mixture(causal_lm(policy), causal_lm(reference), self.mixture_coef, cached=cached),
                ):
                    yield policy


def text_tokenizer(processing_class):
    """The tokenizer of a policy's processing class, which for one that reads images too is a part of it."""
    return processing_class.tokenizer if isinstance(processing_class, ProcessorMixin) else processing_class


def decode_completions(trainer, prompts, prompt_ids, token_ids):
    """Token ids as GRPO turns them into completions: text, or a message for a conversation."""
    tokenizer = text_tokenizer(trainer.processing_class)
    if not is_conversational({"prompt": prompts[0]}):
        return trainer.processing_class.batch_decode(token_ids, skip_special_tokens=True)
    if tokenizer.response_template is not None:
        return [
            [parse_response(tokenizer, ids, prefix=prefix, tools=trainer.tools)]
            for ids, prefix in zip(token_ids, prompt_ids)
        ]
    contents = trainer.processing_class.batch_decode(token_ids, skip_special_tokens=True)
    return [[{"role": "assistant", "content": content}] for content in contents]


# --- setting up ------------------------------------------------------------------------------------------------------


def stored_responses(dataset):
    """How many responses of an opponent each row of a data set has; `None` without the column `opponent_responses`."""
    if dataset is None:
        return None
    row: dict = next(iter(dataset.take(1)), {})  # a streamed data set need not know its columns
    return len(row[COLUMN]) if COLUMN in row else None


def copy_of_policy(model, args, train_dataset, peft_config):
    """
    A copy of a policy that was given as an object, where the opponent needs one of its own: not with stored responses,
    TRL's reference (`beta` is not 0), or a new adapter that can be switched off. It is made before TRL's trainer
    replaces the policy's `forward`: a later copy would call the policy itself.
    """
    if args.opponent == "self" or (args.opponent == "reference" and stored_responses(train_dataset) is not None):
        return None
    if isinstance(model, str) or args.beta != 0.0 or peft_config is not None:
        return None
    if is_deepspeed_zero3_enabled():
        raise ValueError(
            f"opponent={args.opponent!r} needs a copy of the initial policy, and under ZeRO-3 a model that is split "
            "cannot be copied: pass the policy by its path, or set `beta` so that TRL loads a reference."
        )
    if any("forward" in vars(module) for module in model.modules()):
        raise ValueError(
            f"opponent={args.opponent!r} needs a copy of the initial policy, whose `forward` was replaced (by an "
            "earlier trainer, or to spread it over devices), so that a copy would call the original: pass the policy "
            "by its path, or newly loaded on one device."
        )
    return copy.deepcopy(model).eval().requires_grad_(False)


def make_opponent(trainer, model, initial, quantization_config=None):
    """
    The opponent of an online GPO run.

    Args:
        trainer ([`OnlineGPOTrainer`]): after TRL's own set-up.
        model (`str` or [`~transformers.PreTrainedModel`]): the policy as it was given.
        initial ([`~transformers.PreTrainedModel`] or `None`): what [`copy_of_policy`] gave.
        quantization_config (*optional*): that of a policy given by its path.

    Returns:
        [`Opponent`], or `None` where the policy plays against itself.

    Raises:
        ValueError: for numbers of responses that disagree, and where the opponent cannot be sampled.
    """
    args = trainer.args
    if args.opponent == "self":
        return None
    stored = stored_responses(trainer.train_dataset)
    size = args.num_opponent_generations
    if args.opponent == "reference" and stored is not None:
        if size not in (None, stored):
            raise ValueError(
                f"num_opponent_generations={size}, but the data set's `{COLUMN}` has {stored} responses per row: "
                "leave the option out."
            )
        if not stored:
            raise ValueError(f"`{COLUMN}` is empty: each row needs at least one response.")
        return StoredOpponent(trainer, stored)
    if isinstance(trainer.processing_class, ProcessorMixin):
        raise ValueError(
            f"opponent={args.opponent!r} samples from text prompts alone, and the policy has a processor for images: "
            f"store responses in a column `{COLUMN}` and take opponent='reference'."
        )
    size = size or args.num_generations
    if initial is None and trainer.ref_model is None and not is_peft_model(trainer.model):
        initial = _load_again(trainer, model, quantization_config)
    reference = trainer.ref_model if initial is None else _placed(initial, trainer)
    if args.opponent == "mixture":
        return MixtureOpponent(trainer, size, reference, args.mixture_coef)
    return ReferenceOpponent(trainer, size, reference)


def _load_again(trainer, path, quantization_config):
    """The initial policy from its path, as TRL loads a reference."""
    options = dict(trainer.args.model_init_kwargs or {})
    if quantization_config is not None:
        options["quantization_config"] = quantization_config
    if trainer.args.distributed_state.distributed_type in ("MULTI_GPU", "DEEPSPEED"):
        options["device_map"] = None
    options.setdefault("trust_remote_code", trainer.args.trust_remote_code)
    return create_model_from_path(path, **options).eval().requires_grad_(False)


def _placed(model, trainer):
    """The reference prepared for inference beside the policy, as TRL prepares its own."""
    if trainer.is_deepspeed_enabled:
        return prepare_deepspeed(model, trainer.accelerator)
    if trainer.is_fsdp_enabled:
        return prepare_fsdp(model, trainer.accelerator)
    return trainer.accelerator.prepare_model(model, evaluation_mode=True)


def _generation_config(trainer):
    """The policy's options of generation; with vLLM, which has its own form of them, the same for transformers."""
    if not trainer.use_vllm:
        return trainer.generation_config
    if trainer.args.generation_kwargs:
        raise ValueError(
            "`generation_kwargs` are vLLM's here and mean nothing to transformers, which samples the opponent: leave "
            f"them out, or store the opponent's responses in a column `{COLUMN}`."
        )
    tokenizer = text_tokenizer(trainer.processing_class)
    return GenerationConfig(
        max_new_tokens=trainer.max_completion_length,
        do_sample=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=trainer.eos_token_ids,
        temperature=trainer.temperature,
        top_p=trainer.top_p,
        top_k=max(trainer.top_k, 0),  # none is -1 for vLLM
        min_p=trainer.min_p,
        repetition_penalty=trainer.repetition_penalty,
        disable_compile=True,
    )
