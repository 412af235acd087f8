"""`pipeline("preference")`: from a prompt and its responses to a matrix of log-odds, a ranking, a winner, a cycle."""

from collections.abc import Iterable, Mapping, Sized

from torch.utils.data import DataLoader, Dataset
from transformers.pipelines.base import Pipeline
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator
from transformers.utils import logging

from .configuration_gpm import GPMConfig
from .encoding_gpm import encode_group
from .messages_gpm import listed
from .scores_gpm import condorcet_winner, has_cycle, preference_matrix, rank_responses

logger = logging.get_logger(__name__)

_INPUT = '{"prompt": a string or chat messages, "responses": a list of strings or of chat messages}'


class PreferencePipeline(Pipeline):
    """
    Compares the responses to a prompt with each other by a general preference model.

    Example:

    ```python
    judge = pipeline("preference", model="user/my-gpm", trust_remote_code=True)
    judge({"prompt": "What is the capital of France?", "responses": ["Paris.", "Lyon.", "I do not know."]})
    ```
    """

    _load_tokenizer = True
    _load_feature_extractor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_processor = False

    def __init__(self, model, tokenizer=None, **kwargs):
        """
        Args:
            model ([`GPMForPreference`]): a preference model, or a PEFT model on one.
            tokenizer (`PreTrainedTokenizerBase`): its tokenizer. Neither a pad token nor the padding side matters.
            kwargs: those of every pipeline (`device`, `batch_size`, `num_workers`, ...) and `max_sequences`, see
                [`~PreferencePipeline.__call__`].

        Raises:
            ValueError: for another kind of model, or without a tokenizer.
        """
        if model.config.model_type != GPMConfig.model_type:
            raise ValueError(
                f"This task needs a general preference model, not a {type(model).__name__} "
                f"({model.config.model_type}). Where an adapter trained on a plain language model was named: load it "
                "by `PeftModel.from_pretrained` on a preference model, and give that object to the pipeline."
            )
        if tokenizer is None:
            raise ValueError("The preference pipeline needs the model's tokenizer: pass `tokenizer=`.")
        super().__init__(model, tokenizer=tokenizer, **kwargs)

    def __call__(self, inputs, **kwargs):
        """
        Compares the responses of one or of many groups.

        Args:
            inputs (`dict`, or a list, data set, generator or other iterable of them): `{"prompt", "responses"}`. The
                prompt is a string or chat messages, or `None` where every response contains it already, which a model
                with a scale gate cannot use. The K responses, K at least 1, are strings or message lists; K may
                differ from group to group.
            batch_size (`int`, defaults to 1): groups that go through the model together. Results depend on it by
                rounding alone, see [`~GPMForPreference.rounding_bound`].
            num_workers (`int`, defaults to 0): processes that tokenise.
            max_sequences (`int`, *optional*): the most sequences (a prompt with one response) in one forward; a batch
                of groups with more is encoded in parts, of which the same holds. Without it a batch is one
                forward.

        Returns:
            `dict` for one group; a list of them for a list or tuple; else an iterator that reads its input as it goes:

            - `scores` (`list[list[float]]`, K by K): log-odds that response i is preferred to response j.
            - `probabilities` (`list[list[float]]`, K by K): the same as probabilities, 1/2 on the diagonal.
            - `ranking` (`list[int]`): indices of the responses, best first, by mean score.
            - `winner` (`int` or `None`): the response preferred to every other (Condorcet winner), where there is one.
            - `has_cycle` (`bool`): whether three responses beat each other in a ring; a ranking then hides something.

        Raises:
            ValueError: for a group that is not of this form, an empty response, no response at all, or a sequence
                longer than the model's context.
        """
        if isinstance(inputs, (list, tuple)):
            # The parent looks at the first element, and takes a tuple for one group.
            return super().__call__(list(inputs), **kwargs) if inputs else []
        if isinstance(inputs, Iterable) and not isinstance(inputs, (Mapping, str, Dataset)):
            # The parent streams generators and torch's data sets only, not those of `datasets`.
            inputs = (group for group in inputs)
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(self, max_sequences=None, local_files_only=None):
        # `pipeline` hands `local_files_only` on to the pipeline although it is about loading.
        if max_sequences is None:
            return {}, {}, {}
        if max_sequences < 1:
            raise ValueError(f"max_sequences={max_sequences!r} is not possible: it must be at least 1.")
        return {}, {"max_sequences": max_sequences}, {}

    def preprocess(self, inputs):
        prompt, responses = _read_input(inputs)
        options = self.model.config.encoding_options
        group = encode_group(self.tokenizer, prompt, responses, **options)
        return {"groups": [group]}

    def _forward(self, inputs, max_sequences=None):
        groups = inputs["groups"]
        if max_sequences is None:
            # One more for each prompt that may need a row of its own.
            max_sequences = sum(len(group.sequences) + 1 for group in groups)
        return {
            "scores": [
                preference_matrix(embeddings, scales, self.model.config.tau)
                for embeddings, scales in self.model.embed_groups(groups, batch_size=max_sequences)
            ]
        }

    def postprocess(self, outputs):
        scores = outputs["scores"][0]
        winner = int(condorcet_winner(scores))
        return {
            "scores": scores.tolist(),
            "probabilities": scores.sigmoid().tolist(),
            "ranking": rank_responses(scores).tolist(),
            "winner": None if winner < 0 else winner,
            "has_cycle": bool(has_cycle(scores)),
        }

    def get_iterator(self, inputs, num_workers, batch_size, preprocess_params, forward_params, postprocess_params):
        # The parent's would ask for a pad token and pad by it; here groups are batched as they are and the model pads.
        if isinstance(inputs, Sized):
            dataset = PipelineDataset(inputs, self.preprocess, preprocess_params)
        else:
            if num_workers > 1:
                logger.warning("Each worker would read the whole stream, so num_workers is set to 1.")
                num_workers = 1
            dataset = PipelineIterator(inputs, self.preprocess, preprocess_params)
        loader = DataLoader(dataset, batch_size=batch_size, num_workers=num_workers, collate_fn=_join)
        batches = PipelineIterator(loader, self.forward, forward_params, loader_batch_size=batch_size)
        return PipelineIterator(batches, self.postprocess, postprocess_params)


def custom_pipelines():
    """The entry of `config.json` by which `pipeline` finds the class of this file; a new `dict`, as it changes it."""
    return {"preference": {"impl": "pipeline_gpm.PreferencePipeline", "pt": ["AutoModel"]}}


def _join(items):
    return {"groups": [group for item in items for group in item["groups"]]}


def _read_input(inputs):
    """Prompt and list of responses; a `ValueError` where something else was given."""
    if not isinstance(inputs, Mapping):
        raise ValueError(f"Give {_INPUT}, not a {type(inputs).__name__}.")
    if inputs.keys() != {"prompt", "responses"}:
        missing = [key for key in ("prompt", "responses") if key not in inputs]
        unknown = [key for key in inputs if key not in ("prompt", "responses")]
        raise ValueError(f"Give {_INPUT}; missing keys: {missing}, unknown keys: {unknown}.")
    prompt, responses = inputs["prompt"], listed(inputs["responses"])
    if prompt is not None and not _is_text_or_chat(prompt):
        raise ValueError(f"Give {_INPUT}; the prompt is {prompt!r}.")
    if isinstance(responses, Mapping) and "role" not in responses:
        responses = list(responses.values())
    if not isinstance(responses, list) or not responses:
        raise ValueError(f"Give {_INPUT} with at least one response; the responses are {responses!r}.")
    for index, response in enumerate(responses):
        if not _is_text_or_chat(response):
            raise ValueError(f"Give {_INPUT}; response {index} is {response!r}.")
    return prompt, responses


def _is_text_or_chat(value):
    if isinstance(value, (str, Mapping)):
        return True
    messages = listed(value)
    return isinstance(messages, list) and len(messages) > 0 and all(isinstance(one, Mapping) for one in messages)
