"""Options of iterative alignment."""

from dataclasses import dataclass
from typing import Any

from gpm_hf.data.policy_data import SELECTIONS
from gpm_hf.generation import SamplingOptions, read_engine_options
from gpm_hf.options import check_choices, choice, described

# What each method sets in the trainer's options: the first four of OfflineGPOTrainer, the others of TRL's DPOTrainer.
METHODS: dict[str, dict[str, Any]] = {
    "gpo": {"loss_type": "gpo"},
    "ln-gpo": {"loss_type": "gpo", "length_normalize": True},
    "sppo": {"loss_type": "sppo"},
    "rebel": {"loss_type": "rebel"},
    "dpo": {"loss_type": ["sigmoid"]},
    "ipo": {"loss_type": ["ipo"]},
    "sppo_hard": {"loss_type": ["sppo_hard"]},
}
DPO_METHODS = ("dpo", "ipo", "sppo_hard")


@described
@dataclass
class IterateConfig:
    """
    Options of [`~gpm_hf.recipes.iterate.run_iterate`]: what is sampled, who scores it and what is learned from it. How
    the policy is trained say the trainer's own options, an [`~gpm_hf.training.OfflineGPOConfig`].

    Args:
        policy (`str`): the policy to start from: a Hub id or folder; a folder with one `.gguf` file will do.
        scorer (`str`): who scores, as [`~gpm_hf.scoring.load_scorer`] reads it: `gpm:NAME`, `reward:NAME`, ...
        prompts (`str`): a file or Hub data set of rows with `prompt` (or `instruction`).
        output (`str`, defaults to `"runs/iterate"`): the folder for everything.
        iterations (`int`, defaults to 3): how often; a finished job goes on with more.
        prompts_per_iteration (`int`, *optional*): iteration t takes the t-th so many prompts of the file (the paper:
            20000). By default each takes all.
        prompts_split (`str`, *optional*): of a Hub data set.
        max_prompt_length (`int`, *optional*): prompts of more tokens are left out, counted and said.
        num_generations (`int`, defaults to 5): K, samples per prompt; see [`~gpm_hf.generation.SamplingOptions`].
        temperature (`float`, defaults to 0.7): of the samples.
        top_p (`float`, defaults to 0.9): share of the probability that is drawn from.
        max_new_tokens (`int`, defaults to 1024): the most tokens of a sample.
        generation_batch_size (`int`, defaults to 16): sequences generated at once.
        generation_dtype (`str`, defaults to `"auto"`): of the policy while it answers; as saved by default.
        use_vllm (`bool`, defaults to `False`): sample by vLLM (needs gpm-hf[vllm]).
        vllm_options (`list[str]`, *optional*): of its engine, `key=value` each (`max_model_len=4096`), as
            [`~gpm_hf.generation.read_engine_options`] reads them.
        policy_log_probs (`bool`, defaults to `False`): take the log-probabilities that are kept with the samples for
            the reference's in training, instead of computing them anew (OfflineGPOTrainer only).
        scoring_batch_size (`int`, defaults to 16): sequences scored at once.
        shard_size (`int`, defaults to 32): prompts answered, or scored, and written at once: what a kill can lose.
        method (`str`, defaults to `"gpo"`): how the policy is trained.
        selection (`str`, defaults to `"mean"`): what to learn from of each group of samples, see
            [`gpm_hf.data.policy_data`].
        dpo_beta (`float`, defaults to 0.1): TRL's `beta` for the methods of its DPOTrainer; the others' is the
            trainer's `gpo_beta`.

    Raises:
        ValueError: for impossible values and combinations.
    """

    policy: str
    scorer: str
    prompts: str
    output: str = "runs/iterate"
    iterations: int = 3
    prompts_per_iteration: int | None = None
    prompts_split: str | None = None
    max_prompt_length: int | None = None
    num_generations: int = 5
    temperature: float = 0.7
    top_p: float = 0.9
    max_new_tokens: int = 1024
    generation_batch_size: int = 16
    generation_dtype: str = "auto"
    use_vllm: bool = False
    vllm_options: list[str] | None = None
    policy_log_probs: bool = False
    scoring_batch_size: int = 16
    shard_size: int = 32
    method: str = choice(*METHODS, default="gpo")
    selection: str = choice(*SELECTIONS, default="mean")
    dpo_beta: float = 0.1

    def __post_init__(self):
        check_choices(self)
        for name in ("iterations", "scoring_batch_size", "shard_size", "prompts_per_iteration", "max_prompt_length"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: at least 1 is needed.")
        if self.num_generations < 2:
            raise ValueError(f"num_generations={self.num_generations}: a preference needs at least two responses.")
        if self.selection == "all_responses" and self.method in ("rebel", *DPO_METHODS):
            raise ValueError(f"method={self.method!r} compares two responses: choose a selection of pairs.")
        if self.selection == "all" and self.method in DPO_METHODS:
            raise ValueError(
                f"method={self.method!r} weighs all pairs alike, and selection='all' is of weighted ones: choose "
                "mean or von_neumann."
            )
        if self.policy_log_probs and self.method in DPO_METHODS:
            raise ValueError(f"method={self.method!r} computes its reference itself: leave policy_log_probs out.")
        if not self.dpo_beta > 0:
            raise ValueError(f"dpo_beta={self.dpo_beta}: it must be positive.")
        if self.vllm_options and not self.use_vllm:
            raise ValueError("vllm_options without use_vllm: set it, or leave them out.")
        self.engine_options()
        self.sampling_options()

    def engine_options(self) -> dict[str, Any]:
        """Of vLLM's engine."""
        return read_engine_options(self.vllm_options)

    def sampling_options(self) -> SamplingOptions:
        """How the policy answers."""
        return SamplingOptions(
            num_generations=self.num_generations,
            temperature=self.temperature,
            top_p=self.top_p,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.generation_batch_size,
        )
