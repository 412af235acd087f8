"""A fixed opponent for self-play: what the initial policy answered to a few prompts."""

import json
from dataclasses import asdict, dataclass

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import TrainerCallback
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import pad
from typing_extensions import override

from gpm_hf.files import written_whole
from gpm_hf.training.opponents import decode_completions, text_tokenizer


@dataclass
class Answers:
    """
    Answers to n prompts: token ids, text (a string, or messages for a conversation), log-probability of each token.
    """

    prompts: list
    token_ids: list
    completions: list
    log_probs: list


def sampled_divergence(log_probs, other_log_probs):
    """
    KL(p || q) of two policies, estimated on answers that p sampled: Schulman's k3, `(r - 1) - log r` with r = q/p,
    summed over the tokens of each answer. By the chain rule the sum has the divergence of whole answers for its mean;
    it is never negative, unlike the plain mean of log p - log q. Source: J. Schulman, "Approximating KL Divergence"
    (2020), http://joschu.net/blog/kl-approx.html.

    Args:
        log_probs (`torch.Tensor`): shape (n, length), of each token under p, which sampled it; padding is 0.
        other_log_probs (`torch.Tensor`): the same under q.

    Returns:
        `torch.Tensor`: shape (n,), nats per answer.
    """
    log_ratio = (other_log_probs - log_probs).double()
    return (torch.expm1(log_ratio) - log_ratio).clamp(min=0).sum(-1)


class InitialPolicy:
    """
    The initial policy's answers to the first prompts of a data set, to measure progress against.

    The answers are sampled once, before the first step, and live in the checkpoints. Later measurements sample the
    present policy's answers to the same prompts, with the same seed (but for vLLM, which draws its own numbers) and
    outside the training's random stream, so that measuring does not change the run. The prompts are dealt out evenly
    over the processes.

    Args:
        trainer ([`OnlineGPOTrainer`]): generates, scores and judges.
        dataset (`Dataset` or `IterableDataset`): rows with a prompt.
        size (`int`): how many of them to use.
    """

    def __init__(self, trainer, dataset, size):
        self.trainer = trainer
        if isinstance(dataset, Dataset):
            rows = [dataset[index] for index in range(min(size, len(dataset)))]
        else:
            rows = list(dataset.take(size))
        self.all_rows = rows
        self.size = len(rows)
        share = -(-self.size // trainer.accelerator.num_processes)
        first = trainer.accelerator.process_index * share
        # Every process takes as many; the last ones repeat rows, which are left out of the means.
        self.local = [(first + index) % self.size for index in range(share)]
        self.rows = [rows[index] for index in self.local]
        self.answers: Answers | None = None

    def sample(self):
        """Samples the initial policy's answers. All processes call this together."""
        prompt_ids, token_ids, completions = self._respond()
        log_probs = [row[: len(ids)] for row, ids in zip(self._log_probs(prompt_ids, token_ids).tolist(), token_ids)]
        columns = ([row["prompt"] for row in self.rows], token_ids, completions, log_probs)
        self.answers = Answers(*[gather_object(values)[: self.size] for values in columns])

    def save(self, path):
        with written_whole(path) as file:
            json.dump(asdict(self._sampled()), file, allow_nan=False)

    def load(self, path):
        with open(path, encoding="utf-8") as file:
            self.answers = Answers(**json.load(file))
        if self.answers.prompts != [row["prompt"] for row in self.all_rows]:
            raise ValueError(
                f"{path} holds the initial policy's answers to {len(self.answers.prompts)} prompts that are not the "
                f"{self.size} prompts of now. Resume with the `win_rate_prompts` and the data set of the interrupted "
                "run."
            )
        if any(not isinstance(row, list) for row in self.answers.log_probs):
            raise ValueError(
                f"{path} was written by an earlier version, which kept one log-probability per answer and not per "
                "token. Train from the beginning, or go on without `win_rate_prompts`."
            )

    def measure(self):
        """
        Compares the present policy with the initial one. All processes call this together.

        Returns:
            `dict`: `win_rate`, the mean probability that the present policy's answer is preferred (pairs with an
            answer without text are left out; NaN if no pair is left), and `kl_start_policy`, KL(start || policy) in
            nats per answer, the divergence over what the initial policy answers, at the sampling temperature (and as
            if neither `top_p` nor `top_k` cut it), with its `kl_start_policy_standard_error` over prompts (from two
            on); see [`sampled_divergence`].

        KL(policy || start), which RLHF penalises, is over what the policy answers, and takes the initial policy's
        probabilities of it: only a second model in memory has those, while the initial policy's own answers are
        stored with theirs.
        """
        answers = self._sampled()
        prompt_ids, token_ids, completions = self._respond()
        stored_ids = [answers.token_ids[index] for index in self.local]
        log_probs = self._log_probs(prompt_ids, stored_ids)
        start = pad([torch.tensor(answers.log_probs[index]) for index in self.local], padding_value=0)
        divergences = sampled_divergence(start.to(log_probs.device), log_probs)
        divergences = self.trainer.accelerator.gather(divergences)[: self.size]

        inputs, pairs, pair_ids = [], [], []
        for row, index, completion, ids in zip(self.rows, self.local, completions, token_ids):
            inputs += [row, row]
            pairs += [completion, answers.completions[index]]
            pair_ids += [ids, answers.token_ids[index]]
        groups, scores = self.trainer.judge(inputs, [row["prompt"] for row in inputs], pairs, pair_ids, group_size=2)
        counted = groups[:, 0] // 2 < self.size
        found = {
            "win_rate": scores[counted, 0, 1].sigmoid().nanmean().item(),
            "kl_start_policy": divergences.mean().item(),
        }
        if self.size > 1:
            found["kl_start_policy_standard_error"] = (divergences.std() / self.size**0.5).item()
        return found

    def _sampled(self):
        if self.answers is None:
            raise RuntimeError("The initial policy has not answered yet: training has not begun.")
        return self.answers

    def _respond(self):
        """One answer of the present policy to each local prompt: prompt ids, answer ids, answers."""
        trainer = self.trainer
        prompts = [row["prompt"] for row in self.rows]
        device = trainer.accelerator.device
        devices = [] if device.type == "cpu" else [device]
        with torch.random.fork_rng(devices, device_type="cuda" if device.type == "cpu" else device.type):
            torch.manual_seed(trainer.args.seed + trainer.accelerator.process_index)
            trainer.sampling.look()
            prompt_ids, images, fields = trainer._tokenize_prompts(prompts)
            token_ids, _ = trainer._generate_single_turn(prompt_ids, images, fields, 1)
        return prompt_ids, token_ids, decode_completions(trainer, prompts, prompt_ids, token_ids)

    @torch.no_grad()
    def _log_probs(self, prompt_ids, token_ids):
        """Log-probability of each answer's tokens under the present policy, shape (n, length); padding is 0."""
        trainer = self.trainer
        fill = text_tokenizer(trainer.processing_class).pad_token_id

        def padded(rows, value, side):
            return pad([torch.tensor(row) for row in rows], padding_value=value, padding_side=side)

        ids = torch.cat([padded(prompt_ids, fill, "left"), padded(token_ids, fill, "right")], 1)
        masks = [[[1] * len(row) for row in rows] for rows in (prompt_ids, token_ids)]
        answer_mask = padded(masks[1], 0, "right")
        mask = torch.cat([padded(masks[0], 0, "left"), answer_mask], 1)
        device = trainer.accelerator.device
        with disable_gradient_checkpointing(trainer.model, trainer.args.gradient_checkpointing_kwargs):
            log_probs, _, _ = trainer._get_per_token_logps_and_entropies(
                trainer.model,
                ids.to(device),
                mask.to(device),
                answer_mask.shape[1],
                batch_size=trainer.args.per_device_train_batch_size,
            )
        return log_probs * answer_mask.to(device)


class ProgressCallback(TrainerCallback):
    """Samples the initial policy's answers before the first step, and logs the comparison with them from then on."""

    def __init__(self, trainer):
        self.trainer = trainer

    @override
    def on_train_begin(self, args, state, control, **kwargs):
        if self.trainer.initial_policy.answers is not None:
            return  # from the checkpoint, or from an earlier call of `train`
        self.trainer.initial_policy.sample()

    @override
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % args.win_rate_steps == 0 or state.global_step == state.max_steps:
            for name, value in self.trainer.initial_policy.measure().items():
                self.trainer._metrics["train"][name].append(value)
            control.should_log = True
