"""
What is asked of a backbone, a cell of the table each: log-odds by one road against those written out by hand from the
language model's own hidden states, one sequence at a time.
"""

import contextlib
import copy
import shutil
import tempfile
import traceback
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModel, AutoModelForCausalLM
from transformers.dynamic_module_utils import get_class_from_dynamic_module

import gpm_hf
from gpm_hf.modeling import EncodedGroup, GPMForPreference, packing_obstacle, sharing_obstacle
from gpm_hf.modeling.loading_gpm import check_backbone
from gpm_hf.modeling.long_rope_gpm import long_rope_from
from gpm_hf.scoring.preference_model import load_preference_model
from gpm_hf.training.peft_config import adapter_config
from tests.conftest import draw_gate

from .tiny import SEEDS, build_language_model, default_config, tiny_config

PROMPT, RESPONSES = 12, (3, 7, 1, 5)
TAU = 0.1


# So far from its float32 states a bfloat16 model is when rounding alone chooses other experts; 2% or 3% when not.
_OTHER_EXPERTS = 0.25


class Absent(Exception):
    """What transformers or PEFT do not have for a backbone."""


@dataclass
class Cell:
    """
    Attributes:
        verdict (`str`): "right", "refused" (a sentence says why), "fallback" (right, by the slow road, and a sentence
            says why), "wrong" or "error".
        off (`float`, *optional*): the largest difference in log-odds, or the relative one of gradients.
        why (`str`): the sentence, or the error.
    """

    verdict: str
    off: float | None = None
    why: str = ""


def token_ids(count, seed):
    return torch.randint(10, 90, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def draw_group(prompt=PROMPT, responses=RESPONSES, seed=0):
    ids = token_ids(prompt, 50 * seed)
    return EncodedGroup([ids + token_ids(n, 50 * seed + place) for place, n in enumerate(responses, 1)], ids)


def log_odds(model, states, prompt_state):
    """Shape (K, K), from states of shape (K, hidden_size), by equation (4) of the paper in float64."""
    heads = [head.weight.detach().double() for head in (model.embedding_head, model.gate_head)]
    vectors = states.double() @ heads[0].T
    vectors = vectors / vectors.norm(dim=-1, keepdim=True)
    scales = (prompt_state.double() @ heads[1].T).softmax(-1)
    first, second = vectors[:, 0::2], vectors[:, 1::2]
    product = torch.einsum("l,il,jl->ij", scales, first, second)
    return (product - product.T) / TAU


def base_of(language_model):
    """What a language model puts its output head on."""
    base = language_model.base_model
    # Where the part is not called as the class says.
    return language_model.model if base is language_model else base


class Case:
    """A tiny language model in a folder, and the preference model that is made of it."""

    def __init__(self, model_type, folder, **options):
        self.root = Path(folder)
        self.folder = str(self.root / "lm")
        self.language_model = build_language_model(tiny_config(model_type, **options), seed=SEEDS.get(model_type, 0))
        self.language_model.save_pretrained(self.folder)
        self.own = base_of(self.language_model)
        self.groups = [draw_group(), draw_group(9, (4, 2, 6), seed=1)]

    def make(self, **options):
        torch.manual_seed(1)
        return draw_gate(GPMForPreference.from_backbone(self.folder, embedding_dim=4, tau=TAU, **options)).eval()

    @cached_property
    def model(self):
        return self.make()

    @torch.no_grad()
    def own_states(self, ids, **options):
        """The language model's own, of one sequence."""
        return self.own(torch.tensor([ids]), use_cache=False, **options).last_hidden_state[0]

    @cached_property
    def expected(self):
        return [self.by_hand(group, self.own_states) for group in self.groups]

    def by_hand(self, group, states_of):
        states = [states_of(ids) for ids in group.sequences]
        own_prompt = states_of(group.prompt_ids)[-1]
        if long_rope_from(self.language_model.config) is not None:
            # A prompt has other states in a long sequence, and the gate reads it in the first.
            own_prompt = states[0][len(group.prompt_ids) - 1]
        return log_odds(self.model, torch.stack([one[-1] for one in states]), own_prompt)

    def off(self, found, expected=None):
        return max(
            float((one.double() - other).abs().max().nan_to_num(torch.inf))
            for one, other in zip(found, expected or self.expected, strict=True)
        )


def batch(groups, side="right"):
    rows = [ids for group in groups for ids in group.sequences]
    length = max(map(len, rows))
    spare = [length - len(ids) for ids in rows]
    if side == "right":
        return {
            "input_ids": torch.tensor([ids + [3] * n for ids, n in zip(rows, spare)]),
            "attention_mask": torch.tensor([[1] * len(ids) + [0] * n for ids, n in zip(rows, spare)]),
            "prompt_lengths": torch.tensor([len(group.prompt_ids) for group in groups for _ in group.sequences]),
        }
    flipped = batch([EncodedGroup([ids[::-1] for ids in g.sequences], g.prompt_ids) for g in groups])
    return {name: value.flip(-1) if name != "prompt_lengths" else value for name, value in flipped.items()}


def packed_batch(groups):
    rows = [g.prompt_ids + [i for ids in g.sequences for i in ids[len(g.prompt_ids) :]] for g in groups]
    most = max(len(group.sequences) for group in groups)
    lengths = [[len(ids) - len(g.prompt_ids) for ids in g.sequences] for g in groups]
    padded = batch([EncodedGroup([row], group.prompt_ids) for row, group in zip(rows, groups)])
    return padded | {"response_lengths": torch.tensor([one + [0] * (most - len(one)) for one in lengths])}


def matrices(output, groups, most=None):
    """Of an output with a row for each sequence, or with `most` rows for each group."""
    found, first = [], 0
    for group in groups:
        rows = slice(first, first + len(group.sequences))
        found.append(gpm_hf.preference_matrix(output.embeddings[rows], output.scales[first], TAU))
        first += most or len(group.sequences)
    return found


def of_groups(model, groups, **options):
    return [gpm_hf.preference_matrix(*pair, TAU) for pair in model.embed_groups(groups, **options)]


def gradients(model, found):
    model.zero_grad()
    # Not antisymmetric, or it would be 0.
    sum((one * torch.arange(one.numel()).view_as(one)).sum() for one in found).backward()
    return {name: p.grad.clone() for name, p in model.model.named_parameters() if p.grad is not None}


def gradients_apart(found, expected):
    """The difference's norm over the whole's."""
    if found.keys() != expected.keys():
        return float("inf")
    apart = sum(float((found[name] - one).double().square().sum()) for name, one in expected.items())
    whole = sum(float(one.double().square().sum()) for one in expected.values())
    return (apart / whole) ** 0.5 if apart == apart else float("inf")


@torch.no_grad()
def alone(case):
    """One sequence a batch, without a mask, and what it is made of."""
    found = []
    for group in case.groups:
        outputs = [
            case.model(torch.tensor([ids]), prompt_lengths=torch.tensor([len(group.prompt_ids)]))
            for ids in group.sequences
        ]
        embeddings = torch.cat([output.embeddings for output in outputs])
        # The gate reads the prompt inside of a sequence: what comes after it must not matter.
        last = 0 if long_rope_from(case.language_model.config) else -1
        found.append(gpm_hf.preference_matrix(embeddings, outputs[last].scales[0], TAU))
    return case.off(found)


@torch.no_grad()
def padded_right(case):
    return case.off(matrices(case.model(**batch(case.groups)), case.groups))


@torch.no_grad()
def padded_left(case):
    return case.off(matrices(case.model(**batch(case.groups, "left")), case.groups))


def shared_prompt(case):
    assert all(group.prompt_is_worth_sharing for group in case.groups)
    off = max(case.off(of_groups(case.model, case.groups, batch_size=size)) for size in (3, 16))
    return off, sharing_obstacle(case.model)


def packed(case):
    obstacle = packing_obstacle(case.model)
    if obstacle is not None:
        return None, obstacle
    model = copy.deepcopy(case.model)
    with torch.no_grad():
        found = matrices(model(**packed_batch(case.groups)), case.groups, most=len(RESPONSES))
    return case.off(found)


def packed_gradients(case):
    if packing_obstacle(case.model) is not None:
        return None, packing_obstacle(case.model)
    model = copy.deepcopy(case.model)
    expected = gradients(model, matrices(model(**batch(case.groups)), case.groups))
    found = gradients(model, matrices(model(**packed_batch(case.groups)), case.groups, most=len(RESPONSES)))
    return gradients_apart(found, expected)


def checkpointed_gradients(case):
    """Gradient checkpointing in training mode; nothing is dropped out."""
    model = copy.deepcopy(case.model).train()
    if not model.model.supports_gradient_checkpointing:
        raise Absent(f"{model.config.text_config.model_type} has no gradient checkpointing in transformers.")
    expected = gradients(model, matrices(model(**batch(case.groups)), case.groups))
    model.gradient_checkpointing_enable()
    return gradients_apart(gradients(model, matrices(model(**batch(case.groups)), case.groups)), expected)


def reloaded(case):
    """Saved, and loaded as a stranger does, by the code that was saved with it."""
    folder = str(case.root / "gpm")
    case.model.save_pretrained(folder)
    # In this process AutoModel would take the installed class.
    saved_class = get_class_from_dynamic_module("modeling_gpm.GPMForPreference", folder)
    model = saved_class.from_pretrained(folder).eval()
    assert type(model) is not GPMForPreference
    return case.off(of_groups(model, case.groups))


def adapted(case):
    """A LoRA of all linear layers: saved and loaded."""
    model = copy.deepcopy(case.model)
    torch.manual_seed(3)
    options = {"r": 4, "target_modules": "all-linear", "init_lora_weights": False}
    model = get_peft_model(model, adapter_config(LoraConfig(**options), model)).eval()
    with torch.no_grad():
        expected = [one.double() for one in of_groups(model, case.groups)]
    assert case.off(expected) > 1e-2
    folder = str(case.root / "adapter")
    model.save_pretrained(folder)
    model.get_base_model().save_config_and_code(folder)
    case.adapted = expected
    return case.off(of_groups(load_preference_model(folder), case.groups), expected)


def merged(case):
    """The same LoRA merged into its base."""
    if not hasattr(case, "adapted"):
        raise Absent("There is no adapter to be merged.")
    model = load_preference_model(str(case.root / "adapter"), merge=True)
    return case.off(of_groups(model, case.groups), case.adapted)


def in_bfloat16(case):
    """Batches, padding and shared prompts in bfloat16, against the language model in bfloat16."""
    kind = case.language_model.config.model_type
    # As transformers loads it: some parts stay in float32.
    rounded = base_of(AutoModelForCausalLM.from_pretrained(case.folder, dtype=torch.bfloat16).eval())

    def rounded_states(ids):
        return rounded(torch.tensor([ids]), use_cache=False)[0][0]

    with torch.no_grad():
        try:
            expected = [case.by_hand(group, rounded_states) for group in case.groups]
        except RuntimeError as error:
            raise Absent(f"{kind} does not run in bfloat16 in transformers itself: {error}") from error
        model = case.make(dtype=torch.bfloat16)
        padded = [matrices(model(**batch(case.groups, side)), case.groups) for side in ("right", "left")]
        off = max(case.off(found, expected) for found in [*padded, of_groups(model, case.groups)])
        if off <= bound_of("bfloat16", model):
            return off
        for ids in (ids for group in case.groups for ids in group.sequences):
            exact = case.own_states(ids)
            moved = (rounded_states(ids) - exact).norm(dim=-1) / exact.norm(dim=-1)
            if moved.max() > _OTHER_EXPERTS:
                raise Absent(
                    f"In bfloat16 {kind} itself is {moved.max():.0%} off for a token: nothing to compare with."
                )
    return off


def by_attention(implementation):
    def check(case):
        try:
            AutoModel.from_config(copy.deepcopy(case.language_model.config), attn_implementation=implementation)
        except (ValueError, ImportError) as error:
            raise Absent(str(error).splitlines()[0]) from error
        model = case.make(attn_implementation=implementation)
        try:
            with torch.no_grad():
                found = [matrices(model(**batch(case.groups, side)), case.groups) for side in ("right", "left")]
        except ValueError as error:
            # Attention sinks by FlexAttention, in transformers' own words.
            if "cannot be run on CPU" in str(error):
                raise Absent(str(error)) from error
            raise
        return max(case.off(one) for one in [*found, of_groups(model, case.groups)])

    check.__name__ = implementation
    return check


# In turn: who is refused at the first is not asked the others.
CELLS = {
    "alone": alone,
    "padded right": padded_right,
    "padded left": padded_left,
    "shared prompt": shared_prompt,
    "packed": packed,
    "packed gradients": packed_gradients,
    "checkpointed": checkpointed_gradients,
    "reloaded": reloaded,
    "LoRA": adapted,
    "merged": merged,
    "bfloat16": in_bfloat16,
    "eager": by_attention("eager"),
    "flex": by_attention("flex_attention"),
}
GRADIENT_BOUND = 1e-3


def bound_of(name, model):
    if "gradients" in name or name == "checkpointed":
        return GRADIENT_BOUND
    return gpm_hf.modeling.rounding_bound(model.config, "bfloat16" if name == "bfloat16" else "float32")


def judge(name, check, case):
    """The [`Cell`] of one question."""
    try:
        answer = check(case)
    except Absent as error:
        return Cell("absent", None, str(error))
    except Exception as error:
        return of_error(error)
    off, why = answer if isinstance(answer, tuple) else (answer, "")
    if off is None:
        return Cell("fallback", None, why)
    if not off <= bound_of(name, case.model):
        return Cell("wrong", off, why or "")
    return Cell("fallback" if why else "right", off, why or "")


def of_error(error):
    """A refusal where this package raised it, as a sentence; a raw error otherwise."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    is_ours = "/gpm_hf/" in frame.filename or frame.filename.endswith("_gpm.py")
    text = " ".join(f"{error}".split())
    if is_ours and isinstance(error, ValueError | ImportError):
        return Cell("refused", None, text)
    return Cell("error", None, f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}: {text}"[:300])


def examine(model_type, names=None, **options):
    """
    All cells of a model type.

    Returns:
        `dict`: by name [`Cell`]s as dictionaries; "load" alone where there is no preference model of it.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        try:
            # As `from_backbone` asks before it reads any weights: models with other parts are large even when small.
            check_backbone(model_type, default_config(model_type))
        except ValueError as error:
            return {"load": asdict(of_error(error))}
        case = Case(model_type, folder, **options)
        try:
            case.model  # noqa: B018
        except Exception as error:
            return {"load": asdict(of_error(error))}
        cells = {"load": asdict(Cell("right"))}
        for name, check in CELLS.items():
            if names is None or name in names:
                cells[name] = asdict(judge(name, check, case))
            if cells.get("alone", cells["load"])["verdict"] == "refused":
                break
        shutil.rmtree(folder, ignore_errors=True)
        Path(folder).mkdir(exist_ok=True)
        return cells
