"""Fixtures: tiny language models and tokenizers built from configurations, so that every test runs offline."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from pathlib import Path

import pytest

from tests.loopback_hub.fixtures import hub_server  # noqa: F401 (a fixture)

SHARED = Path(__file__).resolve().parents[2] / "shared"

# The files of code that every saved model carries.
CODE = {path.name for path in (Path(__file__).resolve().parents[1] / "gpm_hf" / "modeling").glob("*_gpm.py")}

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role ' + message['role']) }}{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

CORPUS = [
    "What is the capital of France? The capital of France is Paris, a city on the river Seine.",
    "How do I bake bread? Mix flour, water, salt and yeast, let the dough rest, then bake it in a hot oven.",
    "A good answer is short and clear. A better answer also gives an example and says where it comes from.",
    "Red, green and blue beat each other in a ring: rock, paper, scissors, and no one of them is the best.",
    "system user assistant 0 1 2 3 4 5 6 7 8 9",
]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(int(os.environ.get("GPM_HF_TEST_THREADS", "1")))


@pytest.fixture(scope="session", autouse=True)
def kept_answers(tmp_path_factory):
    """What backbones say of the roads they take is read from no other run, nor by commands that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPM_HF_PROBE_CACHE", str(tmp_path_factory.mktemp("answers")))
        yield


def build_tokenizer(chat=True, bos=False, pad_is_eos=False, padding_side="right"):
    """A byte-level BPE tokenizer of 400 tokens, trained on a few sentences."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<bos>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<eos>" if pad_is_eos else "<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        padding_side=padding_side,
        chat_template=("{{ bos_token }}" if bos else "") + CHAT_TEMPLATE if chat else None,
    )


@pytest.fixture(scope="session")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="session")
def plain_tokenizer():
    return build_tokenizer(chat=False)


BACKBONES = ["llama", "qwen3", "gemma2", "gemma3_text", "mistral", "gpt2"]


def backbone_config(name="llama", **options):
    """A two-layer backbone of 32 dimensions; weights wide enough that its states differ (0.02 collapses them)."""
    from transformers import AutoConfig

    sizes = {
        "vocab_size": 400,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
    }
    if name == "gpt2":
        sizes = {"vocab_size": 400, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
    elif name in ("gemma2", "gemma3_text", "mistral"):
        sizes["sliding_window"] = 16
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    return AutoConfig.for_model(name, **{**sizes, **ids, "initializer_range": 0.3, **options})


def build_gpm(backbone="llama", seed=0, **gpm_options):
    import torch

    from gpm_hf.modeling import GPMConfig, GPMForPreference, packing_obstacle, sharing_obstacle

    torch.manual_seed(seed)
    model = draw_gate(GPMForPreference(GPMConfig(text_config=backbone_config(backbone), **gpm_options)).eval())
    # Asked here, so that passes which tests count are their own.
    sharing_obstacle(model)
    packing_obstacle(model)
    return model


def draw_gate(model):
    """Gives gate and reward head weights: new ones are zero, and no test would notice what they read."""
    import torch

    for head in (model.gate_head, model.reward_head):
        if head is not None:
            torch.nn.init.normal_(head.weight, std=0.3)
    return model


def save_backbone(folder, backbone="llama", seed=0, tokenizer=None, **options):
    """Saves a tiny causal language model with its tokenizer, as a user finds one on the Hub."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(backbone_config(backbone, **options)).save_pretrained(folder)
    (tokenizer or build_tokenizer()).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory):
    return save_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="session")
def gpm():
    return build_gpm(embedding_dim=4)


@pytest.fixture
def shared():
    """Real public data and the reference fixtures, where the checkout has them beside it."""
    if not SHARED.is_dir():
        pytest.skip("the shared data is not beside this checkout")
    return SHARED
