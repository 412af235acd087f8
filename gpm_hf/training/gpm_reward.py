"""A group preference as an ordinary TRL reward function (paper Remark 5.2)."""

from accelerate import Accelerator
from accelerate.utils import gather_object

from gpm_hf.training.block_advantages import BlockSignal
from gpm_hf.training.losses import group_mean_scores
from gpm_hf.training.preference_signal import group_by_prompt, load_preference_signal


class GPMReward:
    """
    The mean score of each completion against the others of its group, for any TRL trainer that takes a reward
    function: [`~trl.GRPOTrainer`], [`~trl.RLOOTrainer`], [`~trl.experimental.online_dpo.OnlineDPOTrainer`].

    The reward is s_hat_i, the mean over the group (i included, the factor is 1/K) of the log-odds S_ij, paper equation
    5.2. Rewards of a group sum to zero. GRPO with `scale_rewards="none"` gives s_hat as the advantage; RLOO multiplies
    by K/(K-1), which makes it the mean over the other completions; with two completions, as in Online DPO, the reward
    is S/2 and the better one wins.

    A group is what answers one prompt, wherever its completions stand and on whichever process they are, so two rows
    of the data set with one prompt make one larger group if they meet in a batch.

    Args:
        preference_model: a path or another description of a scorer (`"pair:NAME"`, ...), a model, a
            [`~gpm_hf.scoring.Scorer`] or a function, as in
            [`~gpm_hf.training.preference_signal.load_preference_signal`]. A reward model handed to
            TRL's `reward_funcs` as it is reads plain text without the BOS and EOS that TRL's RewardTrainer trained it
            with; here it reads what it does everywhere in this package ([`~gpm_hf.scoring.RewardModelScorer`]).
        processing_class (`PreTrainedTokenizerBase`, *optional*): the preference model's tokenizer; by default the one
            saved beside it.
        batch_size (`int`, defaults to 16): sequences encoded at once.
        init_kwargs (`dict`, *optional*): options of a description, for `from_pretrained` (`dtype`, `revision`, ...)
            or the scorer.
        blocks ([`~gpm_hf.training.block_advantages.BlockMonitor`], *optional*): the reward is then the advantage by
            blocks, standard deviations instead of log-odds, for `scale_rewards="none"`; the preference model has to
            be a general preference model. The monitor logs, or reweighs; every call is a round to it, those of
            evaluations included, and TRL's checkpoints do not hold it: [`~BlockMonitor.save`] it beside them.

    Example:

    ```python
    trainer = RLOOTrainer(model="my-policy", reward_funcs=GPMReward("my-gpm"), train_dataset=dataset)
    ```
    """

    def __init__(self, preference_model, processing_class=None, batch_size=16, init_kwargs=None, blocks=None):
        self.signal = load_preference_signal(preference_model, processing_class, batch_size, init_kwargs)
        if blocks is not None:
            if blocks.action == "stop":
                raise ValueError("A reward function cannot stop a training: let the monitor of blocks log or reweigh.")
            self.signal = BlockSignal(self.signal, blocks)
        self._is_prepared = False

    def __call__(self, prompts, completions, **columns):
        """
        Args:
            prompts, completions (`list`): one prompt and one completion per row, of this process.
            columns: whatever else the trainer passes; of it `log_metric` gets the numbers of a monitor of blocks.

        Returns:
            `list[float | None]`: mean scores (log-odds), or advantages by blocks (standard deviations); `None` for a
            completion without text, and for one that has no other to be compared with.

        Raises:
            ValueError: where a prompt has a single completion, or a score is not finite.
        """
        if not self._is_prepared:
            # The trainer's accelerator: its state is shared by all of them.
            self.accelerator = Accelerator()
            self.signal.prepare(self.accelerator)
            self._is_prepared = True
        all_prompts = gather_object(list(prompts))
        groups = group_by_prompt(all_prompts)
        lone = [group[0] for group in groups if len(group) < 2]
        if lone:
            raise ValueError(
                f"A preference needs two completions, and the prompt {all_prompts[lone[0]]!r} has one. Set "
                "`num_generations` (and `num_generations_eval`) to 2 or more."
            )
        rewards = [None] * len(all_prompts)
        means = [group_mean_scores(scores) for scores in self.signal(prompts, completions, groups)]
        if isinstance(self.signal, BlockSignal):
            means = self.signal.advantages()
            if "log_metric" in columns:
                for name, value in self.signal.monitor.numbers().items():
                    columns["log_metric"](name, value)
        for group, of_group in zip(groups, means):
            for row, mean in zip(group, of_group.tolist()):
                rewards[row] = None if mean != mean else mean  # NaN
        first = self.accelerator.process_index * len(prompts)
        return rewards[first : first + len(prompts)]
