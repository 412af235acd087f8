"""A group preference as an ordinary TRL reward function (paper Remark 5.2)."""

from accelerate import Accelerator
from accelerate.utils import gather_object

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

    Example:

    ```python
    trainer = RLOOTrainer(model="my-policy", reward_funcs=GPMReward("my-gpm"), train_dataset=dataset)
    ```
    """

    def __init__(self, preference_model, processing_class=None, batch_size=16, init_kwargs=None):
        self.signal = load_preference_signal(preference_model, processing_class, batch_size, init_kwargs)
        self._is_prepared = False

    def __call__(self, prompts, completions, **columns):
        """
        Args:
            prompts, completions (`list`): one prompt and one completion per row, of this process.
            columns: whatever else the trainer passes; not used.

        Returns:
            `list[float | None]`: mean scores (log-odds); `None` for a completion without text, and for one that has no
            other to be compared with.

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
        for group, scores in zip(groups, self.signal(prompts, completions, groups)):
            for row, mean in zip(group, group_mean_scores(scores).tolist()):
                rewards[row] = None if mean != mean else mean  # NaN
        first = self.accelerator.process_index * len(prompts)
        return rewards[first : first + len(prompts)]
