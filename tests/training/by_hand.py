"""Online GPO's loss and gradient written out, one unpadded sequence at a time."""

import torch

from tests.training.online import build_policy, skew


def token_log_probs(model, prompt, completion, temperature):
    """Log-probabilities of a completion's tokens, from plain logits of one unpadded sequence."""
    logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1] / temperature
    return logits.log_softmax(-1)[torch.arange(len(completion)), torch.tensor(completion)]


def hand_targets(matrix, args):
    """The targets of one group with these log-odds, K lists of K, written out."""
    size, targets = len(matrix), []
    for i in range(size):
        scores = [matrix[i][j] for j in range(size) if args.include_self or j != i]
        if args.loss_type == "sppo":
            scores = [1 / (1 + torch.tensor(-score).exp().item()) - 0.5 for score in scores]
        targets.append(sum(scores) / len(scores))
    if args.log_z == "group":
        z = sum(torch.tensor(target / args.gpo_beta, dtype=torch.double).exp().item() for target in targets) / size
        targets = [target - args.gpo_beta * torch.tensor(z).log().item() for target in targets]
    return targets


def skew_matrix(prompt, texts):
    return [[skew(a, b) for b in texts] for a in texts]


def checked_trainer(matrix_of=skew_matrix, targets_of=hand_targets):
    """
    An OnlineGPOTrainer that keeps in `checks` how far it is from the hand; `matrix_of(prompt, texts)` is K x K, or
    whatever else `targets_of(matrix, args)` makes K targets of.
    """
    from gpm_hf.training.online_gpo_trainer import OnlineGPOTrainer

    class CheckedTrainer(OnlineGPOTrainer):
        """Computes every loss and gradient a second time, by hand, one unpadded sequence at a time."""

        def prepare_check(self):
            self.sampler, self.copy, self.start = build_policy(), build_policy(), build_policy()
            self.start.load_state_dict(self.model.state_dict())
            self.checks = []

        def _generate_and_score_completions(self, inputs):
            self.sampler.load_state_dict(self.model.state_dict())
            output = super()._generate_and_score_completions(inputs)
            self.expected = {}
            rows = self.rows_of(output)
            texts = self.processing_class.batch_decode([row[1] for row in rows], skip_special_tokens=True)
            for first in range(0, len(rows), self.num_generations):
                group = slice(first, first + self.num_generations)
                matrix = matrix_of(inputs[first]["prompt"], texts[group])
                for row, target in zip(rows[group], targets_of(matrix, self.args)):
                    self.expected[tuple(row[0]), tuple(row[1])] = target
            return output

        def rows_of(self, inputs):
            """Unpadded token ids of each sample; a completion ends at its first EOS, whatever the masks say."""
            rows = []
            for prompt, mask, completion in zip(
                inputs["prompt_ids"].tolist(), inputs["prompt_mask"].tolist(), inputs["completion_ids"].tolist()
            ):
                ends = [i for i, token in enumerate(completion) if token in self.eos_token_ids]
                completion = completion[: ends[0] + 1] if ends else completion
                if not ends and 0 in completion:
                    completion = completion[: completion.index(0)]  # padding after a truncated one
                rows.append(([token for token, keep in zip(prompt, mask) if keep], completion))
            return rows

        def hand_loss(self, inputs):
            args, loss, ratios, truncated = self.args, 0.0, [], 0
            for prompt, completion in self.rows_of(inputs):
                is_truncated = completion[-1] not in self.eos_token_ids
                truncated += is_truncated
                if is_truncated and args.mask_truncated_completions:
                    continue
                log_probs = token_log_probs(self.copy, prompt, completion, args.temperature)
                with torch.no_grad():
                    old = token_log_probs(self.sampler, prompt, completion, args.temperature)
                    start = token_log_probs(self.start, prompt, completion, args.temperature)
                ratio = log_probs.sum() - old.sum()
                ratios.append(abs(ratio.item()))
                if args.length_normalize:
                    ratio = ratio / len(completion)
                target = self.expected[tuple(prompt), tuple(completion)]
                term = (ratio - target / args.gpo_beta) ** 2
                loss = loss + (term * args.gpo_beta**2 if args.rescale_loss else term)
                if args.beta:
                    kl = (start - log_probs).exp() - (start - log_probs) - 1
                    if args.use_bias_correction_kl:
                        kl = kl * (log_probs - old).exp()
                    loss = loss + args.beta * kl.mean()
            return loss / len(inputs["prompt_ids"]) / args.gradient_accumulation_steps, ratios, truncated

        def _compute_loss(self, model, inputs):
            loss = super()._compute_loss(model, inputs)
            self.copy.load_state_dict(self.model.state_dict())
            expected, ratios, truncated = self.hand_loss(inputs)
            names = [name for name, _ in self.model.named_parameters()]
            parameters, copies = dict(self.model.named_parameters()), dict(self.copy.named_parameters())
            ours = torch.autograd.grad(loss, [parameters[name] for name in names], retain_graph=True)
            hand = torch.autograd.grad(expected, [copies[name] for name in names])
            ours, hand = (torch.cat([grad.flatten() for grad in grads]) for grads in (ours, hand))
            self.checks.append(
                {
                    "loss": abs(loss.item() / expected.item() - 1),
                    "gradient": ((ours - hand).norm() / hand.norm()).item(),
                    "ratio": max(ratios),
                    "truncated": truncated,
                }
            )
            return loss

    return CheckedTrainer
