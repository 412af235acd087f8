"""Sequence classification reward models as scorers: pooling above all."""

import importlib.util
import json

import pytest
import torch

from gpm_hf.scoring import RewardModelScorer
from tests.conftest import build_gpm, build_tokenizer
from tests.scoring.models import BATCHES, GROUPS, PROMPTS, build_deberta_classifier, build_llama_classifier, chat_text

PLAIN_PROMPTS = ["What is the capital of France?", "Red, green or blue?"]
PLAIN_GROUPS = [
    [" Paris, on the river Seine.", " Bread.", " It is the city of Paris."],
    [" Red", " Blue, and a ring."],
]

# A model that trusts its user to pad on the left, which is what any padding on the right would break.
CUSTOM_CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class EchoConfig(PretrainedConfig):
    model_type = "echo"


class EchoForScores(PreTrainedModel):
    config_class = EchoConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed = torch.nn.Embedding(400, 8)
        self.head = torch.nn.Linear(8, 1)
        self.post_init()

    def forward(self, input_ids, attention_mask=None):
        return SequenceClassifierOutput(logits=self.head(self.embed(input_ids).mean(1) + self.embed(input_ids[:, -1])))
"""


def alone(model, ids):
    """The reward of one unpadded sequence."""
    with torch.no_grad():
        return float(model(torch.tensor([ids])).logits[0, 0])


def assert_differences(matrices, rewards, atol=5e-5):
    for matrix, own in zip(matrices, rewards):
        for i, first in enumerate(own):
            for j, second in enumerate(own):
                assert float(matrix[i, j]) == pytest.approx(first - second, abs=atol)
        assert torch.equal(matrix, -matrix.T)


@pytest.mark.parametrize("backbone", ["llama", "gpt2"])
def test_by_hand(backbone, tokenizer):
    model = build_llama_classifier(backbone=backbone)
    rewards = [
        [alone(model, tokenizer(chat_text(prompt, response))["input_ids"]) for response in responses]
        for prompt, responses in zip(PROMPTS, GROUPS)
    ]
    scorer = RewardModelScorer(model, tokenizer)
    assert_differences(scorer(PROMPTS, GROUPS), rewards)
    assert (scorer.forward_passes, scorer.asymmetry) == (9, 0.0)
    halves = RewardModelScorer(model, tokenizer, temperature=2.0)(PROMPTS, GROUPS)
    assert_differences(halves, [[reward / 2 for reward in own] for own in rewards])


@pytest.mark.parametrize("backbone", ["llama", "gpt2"])
@pytest.mark.parametrize("pad", [0, 1, None, -1])
@pytest.mark.parametrize("pooling", ["model", "last_token"])
def test_padding(backbone, pad, pooling):
    """
    The texts end with EOS, id 1. What the model itself makes of one sequence alone is its last token, or where the
    configuration's padding is EOS too, the token before. The tokenizer's padding (EOS) is none of its business.
    """
    model = build_llama_classifier(backbone=backbone, pad_token_id=pad)
    tokenizer = build_tokenizer(chat=False)
    rewards = []
    for prompt, responses in zip(PLAIN_PROMPTS, PLAIN_GROUPS):
        rewards.append([])
        for response in responses:
            ids = [*tokenizer(prompt + response)["input_ids"], 1]
            if pooling == "model":
                rewards[-1].append(alone(model, ids))
            else:
                with torch.no_grad():
                    state = model.base_model(torch.tensor([ids])).last_hidden_state[0, -1]
                rewards[-1].append(float(state @ model.score.weight[0].detach()))
    for batch_size, side in BATCHES:
        tokenizer = build_tokenizer(chat=False, pad_is_eos=True, padding_side=side)
        scorer = RewardModelScorer(model, tokenizer, pooling=pooling, batch_size=batch_size)
        assert_differences(scorer(PLAIN_PROMPTS, PLAIN_GROUPS), rewards)
    assert model.config.pad_token_id == pad


def test_pooling_matters_where_padding_is_eos():
    model, tokenizer = build_llama_classifier(pad_token_id=1), build_tokenizer(chat=False)
    one, other = (
        RewardModelScorer(model, tokenizer, pooling=pooling)(PLAIN_PROMPTS, PLAIN_GROUPS)
        for pooling in ("model", "last_token")
    )
    assert not torch.allclose(one[0], other[0], atol=1e-2)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_text_pair(batch_size):
    """An encoder that reads two segments, as `tokenizer(question, answer)` gives them."""
    from tokenizers import processors

    tokenizer = build_tokenizer(chat=False)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>",
        pair="<bos> $A <eos> $B:1 <eos>:1",
        special_tokens=[("<bos>", 2), ("<eos>", 1)],
    )
    model = build_deberta_classifier(type_vocab_size=2)
    rewards = []
    for prompt, responses in zip(PLAIN_PROMPTS, PLAIN_GROUPS):
        rewards.append([])
        for response in responses:
            first = [2, *tokenizer(prompt, add_special_tokens=False)["input_ids"], 1]
            second = [*tokenizer(response, add_special_tokens=False)["input_ids"], 1]
            types = torch.tensor([[0] * len(first) + [1] * len(second)])
            with torch.no_grad():
                output = model(torch.tensor([first + second]), token_type_ids=types)
            rewards[-1].append(float(output.logits[0, 0]))
    scorer = RewardModelScorer(model, tokenizer, text_pair=True, batch_size=batch_size)
    assert_differences(scorer(PLAIN_PROMPTS, PLAIN_GROUPS), rewards)
    with pytest.raises(ValueError, match="Prompt 0: with `text_pair` the prompt and the responses must be strings"):
        scorer([[{"role": "user", "content": "x"}]], [["a"]])


@pytest.fixture(scope="module")
def custom_folder(tmp_path_factory):
    """A reward model with code of its own, as on the Hub."""
    folder = tmp_path_factory.mktemp("custom")
    code = folder / "modeling_echo.py"
    code.write_text(CUSTOM_CODE)
    spec = importlib.util.spec_from_file_location("modeling_echo", code)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    model = module.EchoForScores(module.EchoConfig(num_labels=1)).eval()
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "modeling_echo.EchoConfig",
        "AutoModelForSequenceClassification": "modeling_echo.EchoForScores",
    }
    (folder / "config.json").write_text(json.dumps(config))
    build_tokenizer().save_pretrained(folder)
    return str(folder), model


@pytest.mark.parametrize("pad", [None, 0])
def test_custom_code(custom_folder, tokenizer, pad):
    folder, model = custom_folder
    rewards = [
        [alone(model, tokenizer(chat_text(prompt, response))["input_ids"]) for response in responses]
        for prompt, responses in zip(PROMPTS, GROUPS)
    ]
    scorer = RewardModelScorer(folder, trust_remote_code=True, device="cpu")
    scorer.model.config.pad_token_id = pad
    assert_differences(scorer(PROMPTS, GROUPS), rewards)
    with pytest.raises(ValueError, match=r'pooling="last_token".*EchoForScores pools as its own code says'):
        RewardModelScorer(folder, trust_remote_code=True, device="cpu", pooling="last_token")
    with pytest.raises(ValueError, match="trust_remote_code"):
        RewardModelScorer(folder, trust_remote_code=False, device="cpu")


def test_from_a_folder(tmp_path, tokenizer):
    model = build_llama_classifier()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    scorer = RewardModelScorer(str(tmp_path), device="cpu", batch_size=2)
    for matrix, other in zip(scorer(PROMPTS, GROUPS), RewardModelScorer(model, tokenizer)(PROMPTS, GROUPS)):
        assert torch.allclose(matrix, other, rtol=0, atol=5e-5)


def test_what_is_no_reward_model(tmp_path, tokenizer, backbone_folder):
    with pytest.raises(ValueError, match=r"num_labels=2, and a reward model has one label.*PairClassifierScorer"):
        RewardModelScorer(build_llama_classifier(num_labels=2), tokenizer)
    with pytest.raises(ValueError, match=r"is a general preference model.*use GPMScorer"):
        RewardModelScorer(build_gpm(embedding_dim=4), tokenizer)
    build_gpm(embedding_dim=4).save_pretrained(tmp_path / "gpm")
    with pytest.raises(ValueError, match=r"gpm is a general preference model.*use GPMScorer"):
        RewardModelScorer(str(tmp_path / "gpm"))
    build_llama_classifier(num_labels=3).save_pretrained(tmp_path / "three")
    with pytest.raises(ValueError, match="three has num_labels=3"):
        RewardModelScorer(str(tmp_path / "three"))
    with pytest.raises(ValueError, match=r"num_labels=2|lacks 1 weights, such as 'score.weight'"):
        RewardModelScorer(backbone_folder)


def test_head_that_is_missing(tmp_path, tokenizer):
    """A language model whose configuration says one label."""
    from tests.scoring.models import build_language_model

    build_language_model(num_labels=1).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no reward model: its checkpoint lacks 1 weights, such as 'score.weight'"):
        RewardModelScorer(str(tmp_path))


def test_model_in_training(tokenizer):
    """A trainer may score with the model it trains: no dropout, and it goes on in training mode."""
    model = build_llama_classifier(backbone="gpt2")
    expected = RewardModelScorer(model, tokenizer)(PROMPTS, GROUPS)[0]
    model.train()
    model.transformer.h[0].eval()
    assert torch.equal(RewardModelScorer(model, tokenizer)(PROMPTS, GROUPS)[0], expected)
    assert model.training and model.transformer.drop.training and not model.transformer.h[0].mlp.training


def test_wrong_options(tokenizer):
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        RewardModelScorer(build_llama_classifier(), tokenizer, temperature=0)
    with pytest.raises(ValueError, match=r"pooling must be one of \('model', 'last_token'\), got 'mean'"):
        RewardModelScorer(build_llama_classifier(), tokenizer, pooling="mean")


def test_a_sequence_that_is_too_long(tokenizer):
    model = build_llama_classifier()
    scorer = RewardModelScorer(model, tokenizer)
    with pytest.raises(ValueError, match=r"Prompt 1: the prompt with response 1 has \d+ tokens, more than the 256"):
        scorer(["x", "y"], [["a", "b"], ["a", "b " * 300]])
    assert scorer.forward_passes == 0
    assert RewardModelScorer(model, tokenizer, max_length=900)(["y"], [["a", "b " * 300]])[0].shape == (2, 2)
    with pytest.raises(ValueError, match="more than the 3 that"):
        RewardModelScorer(model, tokenizer, max_length=3)(["y"], [["a"]])


def test_logits_of_another_shape(tokenizer):
    class Several(torch.nn.Module):
        """Code of its own that returns three rewards."""

        def __init__(self):
            super().__init__()
            self.config, self.device = build_llama_classifier().config, torch.device("cpu")

        def forward(self, input_ids, attention_mask):
            from transformers.modeling_outputs import SequenceClassifierOutput

            return SequenceClassifierOutput(logits=torch.zeros(len(input_ids), 3))

    with pytest.raises(ValueError, match=r"Several returned logits of shape \(1, 3\).*CallableScorer"):
        RewardModelScorer(Several(), tokenizer)(["x"], [["a"]])


def test_a_bare_encoder_without_eos():
    tokenizer = build_tokenizer(chat=False)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match=r"Prompt 0: Plain text ends with EOS, and the tokenizer has none"):
        RewardModelScorer(build_deberta_classifier(), tokenizer)(["x"], [["a"]])
