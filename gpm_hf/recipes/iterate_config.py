"""Options of iterative alignment."""

from dataclasses import dataclass, field
from typing import Any

from gpm_hf.data.policy_data import PAIR_RULES
from gpm_hf.generation import SamplingOptions, read_engine_options

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
SELECTIONS = (*PAIR_RULES, "all_responses")


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
        num_generations, temperature, top_p, max_new_tokens: see [`~gpm_hf.generation.SamplingOptions`].
        generation_batch_size (`int`, defaults to 16): sequences generated at once.
        generation_dtype (`str`, defaults to `"auto"`): of the policy while it answers; as saved by default.
        use_vllm (`bool`, defaults to `False`): sample by vLLM.
        vllm_options (`list[str]`, *optional*): of its engine, `key=value` each, as
            [`~gpm_hf.generation.read_engine_options`] reads them.
        policy_log_probs (`bool`, defaults to `False`): take the log-probabilities that are kept with the samples for
            the reference's in training, instead of computing them anew (OfflineGPOTrainer only).
        scoring_batch_size (`int`, defaults to 16): sequences scored at once.
        shard_size (`int`, defaults to 32): prompts answered, or scored, and written at once: what a kill can lose.
        method (`str`, defaults to `"gpo"`): one of `METHODS`.
        selection (`str`, defaults to `"mean"`): see [`gpm_hf.data.policy_data`].
        dpo_beta (`float`, defaults to 0.1): TRL's `beta` for the methods of its DPOTrainer; the others' is the
            trainer's `gpo_beta`.

    Raises:
        ValueError: for impossible values and combinations.
    """

    policy: str = field(metadata={"help": "The policy to start from: a Hub id or a folder."})
    scorer: str = field(metadata={"help": "Who scores: gpm:NAME, reward:NAME, pair:NAME, judge:NAME, ..."})
    prompts: str = field(metadata={"help": "A file or data set of the Hub of rows with `prompt` (or `instruction`)."})
    output: str = field(default="runs/iterate", metadata={"help": "The folder for everything."})
    iterations: int = field(default=3, metadata={"help": "How often; a finished job goes on with more."})
    prompts_per_iteration: int | None = field(
        default=None, metadata={"help": "Each iteration takes its own so many prompts. Default: each takes all."}
    )
    prompts_split: str | None = field(default=None, metadata={"help": "Split of a data set of the Hub."})
    max_prompt_length: int | None = field(
        default=None, metadata={"help": "Prompts of more tokens are left out, counted and said."}
    )
    num_generations: int = field(default=5, metadata={"help": "K, samples per prompt."})
    temperature: float = field(default=0.7, metadata={"help": "Of the samples."})
    top_p: float = field(default=0.9, metadata={"help": "Share of the probability that is drawn from."})
    max_new_tokens: int = field(default=1024, metadata={"help": "The most tokens of a sample."})
    generation_batch_size: int = field(default=16, metadata={"help": "Sequences generated at once."})
    generation_dtype: str = field(
        default="auto", metadata={"help": "float32, bfloat16, ... of the policy while it answers. Default: as saved."}
    )
    use_vllm: bool = field(default=False, metadata={"help": "Sample by vLLM (needs gpm-hf[vllm])."})
    vllm_options: list[str] | None = field(
        default=None, metadata={"help": "Options of vLLM's engine: key=value ..., such as max_model_len=4096."}
    )
    policy_log_probs: bool = field(
        default=False,
        metadata={"help": "Take the log-probabilities kept with the samples for the reference's in training."},
    )
    scoring_batch_size: int = field(default=16, metadata={"help": "Sequences scored at once."})
    shard_size: int = field(default=32, metadata={"help": "Prompts answered, or scored, and written at once."})
    method: str = field(default="gpo", metadata={"help": "How the policy is trained.", "choices": list(METHODS)})
    selection: str = field(
        default="mean",
        metadata={"help": "What to learn from of each group of samples.", "choices": list(SELECTIONS)},
    )
    dpo_beta: float = field(default=0.1, metadata={"help": "TRL's `beta` for dpo, ipo and sppo_hard."})

    def __post_init__(self):
        for name, known in (("method", METHODS), ("selection", SELECTIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown: choose one of {', '.join(known)}.")
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
