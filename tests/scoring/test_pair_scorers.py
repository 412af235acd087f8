"""Models that read two responses at once: both orders, averages, asymmetry, templates."""

import functools
import math

import pytest
import torch

from gpm_hf.scoring import (
    RLHFLOW_CONTEXT,
    GPMScorer,
    PairClassifierScorer,
    PairCompletionScorer,
)
from gpm_hf.scoring.pair_text import as_text, fill_template
from tests.conftest import build_gpm, build_tokenizer
from tests.scoring.models import (
    BATCHES,
    GROUPS,
    PROMPTS,
    build_deberta_classifier,
    build_language_model,
    build_llama_classifier,
    chat_text,
)

# The texts of PROMPTS and GROUPS as a template shows them.
CONVERSATION = "system: Be brief.\n\nuser: How do I bake bread?\n\nassistant: With flour.\n\nuser: And the oven?"
SHOWN = [PROMPTS[0], CONVERSATION, PROMPTS[2]]
TEXTS = [GROUPS[0], ["Hot.", "Bake it in a hot oven, then let it rest."], GROUPS[2]]

JUDGE = "Question: {prompt}\nA: {a}\nB: {b}\nBetter:"


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def assert_by_hand(scorer, one_pair, atol=3e-5):
    """Compares a scorer with `one_pair(prompt, a, b)`, and returns the largest asymmetry by hand."""
    asymmetry = 0.0
    for prompt, texts, matrix in zip(SHOWN, TEXTS, scorer(PROMPTS, GROUPS)):
        for i, first in enumerate(texts):
            assert float(matrix[i, i]) == 0.0
            for j, second in enumerate(texts):
                if i == j:
                    continue
                forth, back = one_pair(prompt, first, second), one_pair(prompt, second, first)
                if not scorer.both_orders:
                    expected = forth if i < j else -back
                elif scorer.average:
                    expected = (forth - back) / 2
                else:
                    expected = forth
                assert float(matrix[i, j]) == pytest.approx(expected, abs=atol)
                asymmetry = max(asymmetry, abs(sigmoid(forth) + sigmoid(back) - 1))
    return asymmetry


def classify(model, tokenizer, labels=1, a_label=0):
    """One pair by a classifier, alone and unpadded."""

    def one_pair(prompt, a, b):
        text = f"<|source|>{prompt}<|candidate1|>{a}<|candidate2|>{b}"
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer(text)["input_ids"]])).logits[0]
        return float(logits[0] if labels == 1 else logits[a_label] - logits[1 - a_label])

    return one_pair


def judge(model, ids_of, answers=("A", "B"), tokenizer=None):
    """One pair by a language model, alone and unpadded."""

    def one_pair(prompt, a, b):
        with torch.no_grad():
            logits = model(torch.tensor([ids_of(prompt, a, b)])).logits[0, -1]
        first, second = (tokenizer.convert_tokens_to_ids(answer) for answer in answers)
        return float(logits[first] - logits[second])

    return one_pair


def assert_disagreement_by_hand(scorer, one_pair):
    """Half the sum of both orders, whether they are averaged or not."""
    for prompt, texts, found in zip(SHOWN, TEXTS, scorer.score(PROMPTS, GROUPS)):
        for i, first in enumerate(texts):
            for j, second in enumerate(texts):
                expected = (one_pair(prompt, first, second) + one_pair(prompt, second, first)) / 2 if i != j else 0.0
                assert float(found.disagreement[i, j]) == pytest.approx(expected, abs=3e-5)


class TestPairClassifier:
    @pytest.mark.parametrize("average", [True, False])
    def test_disagreement(self, tokenizer, average):
        model = build_deberta_classifier()
        assert_disagreement_by_hand(
            PairClassifierScorer(model, tokenizer, average=average), classify(model, tokenizer)
        )

    @pytest.mark.parametrize(("labels", "a_label"), [(1, 0), (2, 0), (2, 1)])
    def test_by_hand(self, tokenizer, labels, a_label):
        model = build_deberta_classifier(labels)
        scorer = PairClassifierScorer(model, tokenizer, a_label=a_label)
        asymmetry = assert_by_hand(scorer, classify(model, tokenizer, labels, a_label))
        assert scorer.forward_passes == 3 * 2 + 2 * 1 + 4 * 3
        assert scorer.asymmetry == pytest.approx(asymmetry, abs=1e-5)
        assert scorer.asymmetry > 0.01

    def test_one_order(self, tokenizer):
        model = build_deberta_classifier()
        scorer = PairClassifierScorer(model, tokenizer, both_orders=False)
        assert_by_hand(scorer, classify(model, tokenizer))
        assert scorer.forward_passes == 3 + 1 + 6
        assert scorer.asymmetry is None
        assert [found.disagreement for found in scorer.score(PROMPTS, GROUPS)] == [None] * 3

    def test_without_average(self, tokenizer):
        model = build_deberta_classifier()
        scorer = PairClassifierScorer(model, tokenizer, average=False)
        asymmetry = assert_by_hand(scorer, classify(model, tokenizer))
        assert scorer.asymmetry == pytest.approx(asymmetry, abs=1e-5)

    @pytest.mark.parametrize("pad", [0, 1, None])
    @pytest.mark.parametrize("build", [build_llama_classifier, build_deberta_classifier])
    def test_padding(self, build, pad):
        model = build(pad_token_id=pad)
        one_pair = functools.cache(classify(model, build_tokenizer(bos=True)))
        for batch_size, side in BATCHES:
            tokenizer = build_tokenizer(bos=True, pad_is_eos=True, padding_side=side)
            assert_by_hand(PairClassifierScorer(model, tokenizer, batch_size=batch_size), one_pair)

    def test_from_a_folder(self, tmp_path, tokenizer):
        model = build_deberta_classifier(2)
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        scorer = PairClassifierScorer(str(tmp_path), device="cpu", template="{a}{b}{prompt}")
        expected = PairClassifierScorer(model, tokenizer, template="{a}{b}{prompt}")(PROMPTS, GROUPS)
        for matrix, other in zip(scorer(PROMPTS, GROUPS), expected):
            assert torch.allclose(matrix, other, rtol=0, atol=1e-6)

    def test_errors(self, tokenizer):
        with pytest.raises(ValueError, match=r"num_labels=3; a classifier of pairs has one label or two"):
            PairClassifierScorer(build_deberta_classifier(3), tokenizer)
        with pytest.raises(ValueError, match=r"general preference model.*use GPMScorer"):
            PairClassifierScorer(build_gpm(embedding_dim=4), tokenizer)
        with pytest.raises(ValueError, match=r"a_label=1, but .* has 1 label"):
            PairClassifierScorer(build_deberta_classifier(), tokenizer, a_label=1)
        with pytest.raises(ValueError, match=r"lacks \{a\}, \{b\}"):
            PairClassifierScorer(build_deberta_classifier(), tokenizer, template="{prompt} {A} {B}")
        with pytest.raises(
            ValueError, match=r"Prompt 1: the prompt with the responses 0 and 1 has \d+ tokens, more th"
        ):
            PairClassifierScorer(build_deberta_classifier(), tokenizer)(["x", "y"], [["a"], ["b", "c " * 300]])
        message = {"role": "user", "content": [{"type": "image"}]}
        with pytest.raises(ValueError, match=r"Prompt 1: .*the prompt has a part of the type 'image'"):
            PairClassifierScorer(build_deberta_classifier(), tokenizer)(["x", [message]], [["a"], ["b", "c"]])

    def test_longer_than_the_configuration_says(self, tokenizer):
        """DeBERTa's positions are relative."""
        scorer = PairClassifierScorer(build_deberta_classifier(), tokenizer, max_length=2048)
        assert scorer(["y"], [["b", "c " * 300]])[0].shape == (2, 2)


class TestPairCompletion:
    def test_rlhflow_by_hand(self, tokenizer):
        """
        The default is what RLHFlow's program reads; its rendering of a conversation, spelled out, lacks the line
        breaks of the template that come right after a tag, which Jinja eats as transformers sets it.
        """
        model = build_language_model()
        contexts = [
            "\n\n<turn> user\n What is the capital of France?\n",
            "\n\n<turn> user\n Be brief.\n<turn> assistant\n How do I bake bread?\n<turn> user\n With flour."
            "\n<turn> assistant\n And the oven?\n",
            "\n\n<turn> user\n Red, green or blue?\n",
        ]
        context_of = dict(zip(SHOWN, contexts))
        scorer = PairCompletionScorer(model, tokenizer)

        def ids_of(prompt, a, b):
            text = f"[CONTEXT] {context_of[prompt]} [RESPONSE A] {a} [RESPONSE B] {b} \n"
            return tokenizer(chat_text(text))["input_ids"]

        for prompt, shown in zip(PROMPTS, SHOWN):
            assert scorer._prompt_text(prompt) == context_of[shown]
        asymmetry = assert_by_hand(scorer, judge(model, ids_of, tokenizer=tokenizer))
        assert scorer.forward_passes == 3 * 2 + 2 * 1 + 4 * 3
        assert scorer.asymmetry == pytest.approx(asymmetry, abs=1e-5)
        assert scorer.asymmetry > 0.01

    @pytest.mark.parametrize("backbone", ["llama", "gpt2", "gemma2"])
    def test_padding(self, backbone):
        """Plain text, positions that count (GPT-2), soft-capped logits and a sliding window (Gemma 2)."""
        model = build_language_model(backbone=backbone, pad_token_id=1)
        plain = build_tokenizer(chat=False)

        def ids_of(prompt, a, b):
            return plain(f"Question: {prompt}\nA: {a}\nB: {b}\nBetter:")["input_ids"]

        one_pair = functools.cache(judge(model, ids_of, tokenizer=plain))
        for batch_size, side in BATCHES:
            tokenizer = build_tokenizer(chat=False, pad_is_eos=True, padding_side=side)
            scorer = PairCompletionScorer(model, tokenizer, template=JUDGE, batch_size=batch_size)
            assert_by_hand(scorer, one_pair)

    @pytest.mark.parametrize("both_orders", [True, False])
    def test_chat_template_with_bos(self, both_orders):
        """A template of one's own keeps BOS; other answers; one order."""
        model, tokenizer = build_language_model(), build_tokenizer(bos=True)
        template = [{"role": "system", "content": "Judge."}, {"role": "user", "content": JUDGE}]
        scorer = PairCompletionScorer(
            model, tokenizer, template=template, answers=("0", "1"), both_orders=both_orders, average=False
        )

        def ids_of(prompt, a, b):
            user = {"role": "user", "content": f"Question: {prompt}\nA: {a}\nB: {b}\nBetter:"}
            return tokenizer(chat_text([template[0], user]))["input_ids"]

        assert ids_of("", "", "")[0] == 2
        assert_by_hand(scorer, judge(model, ids_of, ("0", "1"), tokenizer))
        assert scorer.forward_passes == (20 if both_orders else 10)
        assert (scorer.asymmetry is None) is not both_orders

    def test_default_format_has_no_bos(self):
        scorer = PairCompletionScorer(build_language_model(), build_tokenizer(bos=True))
        assert scorer._encode("x", "a", "b")[0] == 3

    def test_tokenizer_that_ends_with_eos(self):
        from tokenizers import processors

        tokenizer = build_tokenizer(chat=False)
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A <eos>", special_tokens=[("<bos>", 2), ("<eos>", 1)]
        )
        scorer = PairCompletionScorer(build_language_model(), tokenizer, template=JUDGE)
        ids = scorer._encode("x", "a", "b")
        assert ids[0] == 2 and tokenizer.decode(ids).endswith("Better:")

    def test_context_template(self, tokenizer):
        scorer = PairCompletionScorer(
            build_language_model(), tokenizer, template=JUDGE, context_template=RLHFLOW_CONTEXT
        )
        assert scorer._prompt_text("x") == "\n\n<turn> user\n x\n"

    def test_model_that_cannot_keep_logits(self, tokenizer):
        """Code of its own may not know `logits_to_keep`."""
        model = build_language_model()

        class Old(torch.nn.Module):
            """The same model, with fewer arguments."""

            def __init__(self):
                super().__init__()
                self.config, self.device = model.config, model.device

            def forward(self, input_ids, attention_mask):
                return model(input_ids, attention_mask=attention_mask)

        expected = PairCompletionScorer(model, tokenizer)(PROMPTS, GROUPS)
        for matrix, other in zip(PairCompletionScorer(Old(), tokenizer)(PROMPTS, GROUPS), expected):
            assert torch.allclose(matrix, other, rtol=0, atol=1e-5)

    def test_model_in_training(self, tokenizer):
        model = build_language_model(backbone="gpt2")
        expected = PairCompletionScorer(model, tokenizer)(PROMPTS, GROUPS)[0]
        model.train()
        assert torch.equal(PairCompletionScorer(model, tokenizer)(PROMPTS, GROUPS)[0], expected)
        assert model.training

    def test_from_a_folder(self, backbone_folder, tokenizer):
        scorer = PairCompletionScorer(backbone_folder, device="cpu")
        assert scorer(["x"], [["a", "b"]])[0].shape == (2, 2)
        assert scorer.name == backbone_folder

    def test_errors(self, tokenizer, tmp_path):
        model = build_language_model()
        with pytest.raises(ValueError, match=r"The answer 'first' is not one token but \d+, \["):
            PairCompletionScorer(model, tokenizer, answers=("first", "B"))
        with pytest.raises(ValueError, match=r"cannot render the roles \['tool'\]: unknown role tool"):
            PairCompletionScorer(model, tokenizer, template=[{"role": "tool", "content": JUDGE}])(["x"], [["a", "b"]])
        with pytest.raises(ValueError, match=r"Prompt 0: Message 0 of the prompt \(user\) has no content"):
            PairCompletionScorer(model, tokenizer)([[{"role": "user", "content": None}]], [["a", "b"]])
        with pytest.raises(ValueError, match="Two different answers are needed"):
            PairCompletionScorer(model, tokenizer, answers=("A", "A"))
        with pytest.raises(ValueError, match=r"lacks \{prompt\}"):
            PairCompletionScorer(model, tokenizer, template="{a} or {b}?")
        with pytest.raises(
            ValueError, match=r"template is chat messages, and the tokenizer of .* has no chat template"
        ):
            PairCompletionScorer(model, build_tokenizer(chat=False), template=[{"role": "user", "content": JUDGE}])
        with pytest.raises(ValueError, match=r"Prompt 1: the prompt with the responses 0 and 1 has \d+ tokens"):
            PairCompletionScorer(model, tokenizer)(["x", "y"], [["a"], ["b", "c " * 300]])
        with pytest.raises(ValueError, match=r"general preference model.*use GPMScorer"):
            PairCompletionScorer(build_gpm(embedding_dim=4), tokenizer)
        build_gpm(embedding_dim=4).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=r"general preference model.*use GPMScorer"):
            PairCompletionScorer(str(tmp_path))


def test_cost_and_asymmetry_side_by_side(gpm, tokenizer):
    """The same group: K sequences and no contradiction, K(K-1) and some."""
    scorers = [GPMScorer(gpm, tokenizer), PairCompletionScorer(build_language_model(), tokenizer)]
    for scorer in scorers:
        scorer(PROMPTS[2:], GROUPS[2:])
    assert [scorer.forward_passes for scorer in scorers] == [4, 12]
    assert scorers[0].asymmetry == 0.0 < scorers[1].asymmetry


def test_one_response_needs_no_forward_pass(tokenizer):
    scorer = PairClassifierScorer(build_deberta_classifier(), tokenizer)
    assert scorer(["x"], [["a"]])[0].tolist() == [[0.0]]
    assert scorer.forward_passes == 0


class TestPairText:
    def test_fields_inside_the_values_stay(self):
        assert fill_template("{prompt}|{a}|{b}|{c}", "say {a}", "{b}", "{prompt}") == "say {a}|{b}|{prompt}|{c}"

    def test_turns(self):
        assert as_text("x", "user") == "x"
        assert as_text([{"role": "user", "content": "x"}], "user") == "x"
        assert as_text([{"role": "system", "content": "x"}], "user") == "system: x"
        assert as_text(PROMPTS[1], "user") == CONVERSATION
