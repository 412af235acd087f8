"""From chats to token ids, compared with renderings written out by hand."""

import pytest
import torch
from tokenizers import processors

from gpm_hf.modeling import EncodedGroup, collate_groups, encode_group
from tests.conftest import build_gpm, build_tokenizer

QUESTION = "What is the capital of France?"
RESPONSES = ["Paris.", "The capital of France is Paris, a city on the river Seine.", "Bake it in a hot oven"]


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def rendered(*turns):
    return "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.fixture(scope="module")
def bos_tokenizer():
    """Its template writes BOS and its post-processor adds one: tokenising rendered text doubles it."""
    return build_tokenizer(bos=True)


def tokenizer_with_eos():
    """A plain-text tokenizer that adds EOS itself."""
    tokenizer = build_tokenizer(chat=False)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", tokenizer.eos_token_id)]
    )
    return tokenizer


class TestChat:
    def test_sequences_and_prompt_as_written_by_hand(self, tokenizer):
        group = encode_group(tokenizer, QUESTION, RESPONSES)
        prompt = rendered(("user", QUESTION))
        assert group.prompt_ids == ids_of(tokenizer, prompt + "<|im_start|>assistant\n")
        for sequence, response in zip(group.sequences, RESPONSES, strict=True):
            assert sequence == ids_of(tokenizer, prompt + rendered(("assistant", response)))

    def test_prompt_is_a_prefix_of_every_sequence(self, tokenizer):
        group = encode_group(tokenizer, QUESTION, RESPONSES)
        for sequence in group.sequences:
            assert sequence[: len(group.prompt_ids)] == group.prompt_ids
            assert len(sequence) > len(group.prompt_ids)

    def test_string_is_one_user_message(self, tokenizer):
        assert encode_group(tokenizer, QUESTION, RESPONSES) == encode_group(tokenizer, [user(QUESTION)], RESPONSES)

    def test_responses_may_be_messages(self, tokenizer):
        messages = [[assistant(response)] for response in RESPONSES]
        assert encode_group(tokenizer, QUESTION, messages) == encode_group(tokenizer, QUESTION, RESPONSES)

    def test_several_turns_with_system_message(self, tokenizer):
        prompt = [
            {"role": "system", "content": "Be short"},
            user("How do I bake bread?"),
            assistant("Mix flour"),
            user("And then?"),
        ]
        group = encode_group(tokenizer, prompt, ["Let the dough rest"])
        text = rendered(
            ("system", "Be short"), ("user", "How do I bake bread?"), ("assistant", "Mix flour"), ("user", "And then?")
        )
        assert group.prompt_ids == ids_of(tokenizer, text + "<|im_start|>assistant\n")
        assert group.sequences == [ids_of(tokenizer, text + rendered(("assistant", "Let the dough rest")))]

    def test_prompt_is_not_changed(self, tokenizer):
        prompt = [user(QUESTION)]
        encode_group(tokenizer, prompt, RESPONSES)
        assert prompt == [user(QUESTION)]

    def test_whole_conversations_without_prompt(self, tokenizer):
        conversations = [[user(QUESTION), assistant(response)] for response in RESPONSES]
        assert encode_group(tokenizer, None, conversations) == encode_group(tokenizer, QUESTION, RESPONSES)
        alone = encode_group(tokenizer, None, conversations[:1])
        assert alone.prompt_ids is None
        assert alone.sequences == encode_group(tokenizer, QUESTION, RESPONSES[:1]).sequences

    def test_bos_comes_once(self, bos_tokenizer):
        bos = bos_tokenizer.bos_token_id
        text = bos_tokenizer.apply_chat_template([user(QUESTION)], tokenize=False)
        assert bos_tokenizer(text)["input_ids"][:2] == [bos, bos], "the trap of this test is not set"
        group = encode_group(bos_tokenizer, QUESTION, RESPONSES)
        for ids in [*group.sequences, group.prompt_ids]:
            assert ids[0] == bos
            assert ids.count(bos) == 1

    def test_bos_tokenizer_differs_by_bos_only(self, bos_tokenizer, tokenizer):
        with_bos = encode_group(bos_tokenizer, QUESTION, RESPONSES)
        without = encode_group(tokenizer, QUESTION, RESPONSES)
        assert [ids[1:] for ids in with_bos.sequences] == without.sequences
        assert with_bos.prompt_ids[1:] == without.prompt_ids


class TestPlainText:
    def test_concatenation_ends_with_one_eos(self, plain_tokenizer):
        group = encode_group(plain_tokenizer, QUESTION, [" Paris.", " Rome."])
        eos = plain_tokenizer.eos_token_id
        assert group.sequences[0] == [*ids_of(plain_tokenizer, QUESTION + " Paris."), eos]
        assert group.sequences[1] == [*ids_of(plain_tokenizer, QUESTION + " Rome."), eos]
        assert group.prompt_ids == ids_of(plain_tokenizer, QUESTION)

    def test_tokenizer_that_adds_eos(self):
        tokenizer = tokenizer_with_eos()
        eos = tokenizer.eos_token_id
        assert tokenizer(QUESTION)["input_ids"][-1] == eos, "the trap of this test is not set"
        group = encode_group(tokenizer, QUESTION, [" Paris."])
        assert group.sequences[0].count(eos) == 1
        assert group.sequences[0][-1] == eos
        assert eos not in group.prompt_ids

    def test_tokenizer_that_adds_bos(self):
        tokenizer = build_tokenizer(chat=False, bos=True)
        group = encode_group(tokenizer, QUESTION, [" Paris."])
        for ids in (group.sequences[0], group.prompt_ids):
            assert ids[0] == tokenizer.bos_token_id
            assert ids.count(tokenizer.bos_token_id) == 1
        assert group.sequences[0][: len(group.prompt_ids)] == group.prompt_ids

    def test_whole_texts_without_prompt(self, plain_tokenizer):
        group = encode_group(plain_tokenizer, None, [QUESTION + " Paris."])
        assert group.prompt_ids is None
        assert group.sequences == encode_group(plain_tokenizer, QUESTION, [" Paris."]).sequences

    def test_tokenizer_without_eos(self):
        tokenizer = build_tokenizer(chat=False)
        tokenizer.eos_token = None
        # Text without EOS will do, and so will an error that says what is missing.
        try:
            group = encode_group(tokenizer, QUESTION, [" Paris."])
        except ValueError as error:
            assert "EOS" in str(error)
        else:
            assert None not in group.sequences[0]


class TestMergingBorder:
    """A prompt that ends with a space: most responses swallow the space into their first token."""

    prompt = "A good answer is "
    merging = "short"
    separate = "?!"

    def test_the_trap_is_set(self, plain_tokenizer):
        prompt = ids_of(plain_tokenizer, self.prompt)
        assert ids_of(plain_tokenizer, self.prompt + self.merging)[: len(prompt)] != prompt
        assert ids_of(plain_tokenizer, self.prompt + self.separate)[: len(prompt)] == prompt

    @pytest.mark.parametrize("responses", [("short",), ("?!", "short"), ("short", "?!")], ids=" ".join)
    def test_prompt_gets_a_row_of_its_own(self, plain_tokenizer, responses):
        group = encode_group(plain_tokenizer, self.prompt, responses)
        batch = collate_groups([group], pad_token_id=0)
        row = len(responses)
        assert batch["gate_rows"].tolist() == [row]
        prompt = ids_of(plain_tokenizer, self.prompt)
        assert batch["input_ids"][row, : len(prompt)].tolist() == prompt
        assert batch["attention_mask"][row].sum() == batch["prompt_lengths"][row] == len(prompt)

    def test_no_row_where_no_response_merges(self, plain_tokenizer):
        group = encode_group(plain_tokenizer, self.prompt, [self.separate])
        batch = collate_groups([group], pad_token_id=0)
        assert len(batch["input_ids"]) == 1
        assert batch["gate_rows"].tolist() == [0]
        assert batch["prompt_lengths"].tolist() == [len(ids_of(plain_tokenizer, self.prompt))]

    def test_scales_are_those_of_every_other_response(self, plain_tokenizer, gpm):
        expected = gpm.embed(plain_tokenizer, self.prompt, [self.separate])[1]
        for responses in (["short"], ["long and clear"], ["short", "?!"], ["?!", "short", "clear"]):
            scales = gpm.embed(plain_tokenizer, self.prompt, responses)[1]
            torch.testing.assert_close(scales, expected, atol=1e-5, rtol=0)
        other = gpm.embed(plain_tokenizer, "A good answer is", [" short"])[1]
        assert (other - expected).abs().max() > 1e-3, "the gate does not tell these prompts apart"

    def test_template_whose_generation_prompt_ends_with_a_space(self, gpm):
        tokenizer = build_tokenizer()
        tokenizer.chat_template = (
            "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}<|im_end|>{% endfor %}"
            "{% if add_generation_prompt %}assistant: {% endif %}"
        )
        group = encode_group(tokenizer, QUESTION, ["short"])
        assert group.sequences[0][: len(group.prompt_ids)] != group.prompt_ids, "the trap of this test is not set"
        merging = gpm.embed(tokenizer, QUESTION, ["short"])[1]
        separate = gpm.embed(tokenizer, QUESTION, ["?!"])[1]
        torch.testing.assert_close(merging, separate, atol=1e-5, rtol=0)

    def test_template_that_renders_the_prompt_otherwise_when_a_reply_follows(self, gpm):
        """As templates of thinking models do: the generation prompt opens a part that a finished reply lacks."""
        tokenizer = build_tokenizer()
        tokenizer.chat_template = tokenizer.chat_template.replace("assistant\n{% endif", "assistant\nred: {% endif")
        group = encode_group(tokenizer, QUESTION, RESPONSES)
        prompt = ids_of(tokenizer, rendered(("user", QUESTION)) + "<|im_start|>assistant\nred: ")
        assert group.prompt_ids == prompt
        batch = collate_groups([group], pad_token_id=0)
        assert batch["gate_rows"].tolist() == [3]
        assert batch["input_ids"][3, : len(prompt)].tolist() == prompt
        scales = [gpm.embed(tokenizer, QUESTION, [response])[1] for response in RESPONSES]
        torch.testing.assert_close(scales[0], scales[1], atol=1e-5, rtol=0)
        torch.testing.assert_close(scales[0], scales[2], atol=1e-5, rtol=0)


class TestReferenceFormat:
    def test_text_round_trip_with_eos_over_the_last_token(self, bos_tokenizer):
        group = encode_group(bos_tokenizer, QUESTION, RESPONSES, prompt_format="reference")
        bos, eos = bos_tokenizer.bos_token_id, bos_tokenizer.eos_token_id
        for sequence, response in zip(group.sequences, RESPONSES, strict=True):
            text = rendered(("user", QUESTION), ("assistant", response))
            assert sequence == [bos, bos, *ids_of(bos_tokenizer, text)[:-1], eos]

    def test_gate_reads_the_first_message_alone(self, bos_tokenizer):
        prompt = [user(QUESTION), assistant("Paris."), user("Why?")]
        group = encode_group(bos_tokenizer, prompt, RESPONSES, prompt_format="reference")
        bos = bos_tokenizer.bos_token_id
        assert group.prompt_ids == [bos, bos, *ids_of(bos_tokenizer, rendered(("user", QUESTION)))]

    def test_needs_a_prompt(self, tokenizer):
        with pytest.raises(ValueError, match="explicit prompt"):
            encode_group(tokenizer, None, [[user("a"), assistant("b")]], prompt_format="reference")


@pytest.mark.parametrize("prompt_format", ["clean", "reference"])
class TestErrors:
    def test_no_responses(self, tokenizer, prompt_format):
        with pytest.raises(ValueError, match="at least one response"):
            encode_group(tokenizer, QUESTION, [], prompt_format)

    def test_one_string_in_place_of_a_list(self, tokenizer, prompt_format):
        """Its letters would be scored as responses."""
        with pytest.raises(ValueError, match="must be a list"):
            encode_group(tokenizer, QUESTION, "Paris", prompt_format)

    @pytest.mark.parametrize("empty", ["", "  ", "\n\t ", []], ids=repr)
    def test_empty_response_is_named(self, tokenizer, prompt_format, empty):
        with pytest.raises(ValueError, match="Response 1 is empty"):
            encode_group(tokenizer, QUESTION, ["Paris", empty], prompt_format)

    @pytest.mark.parametrize("content", ["", " \n"], ids=repr)
    def test_message_without_content_is_an_empty_response(self, tokenizer, prompt_format, content):
        with pytest.raises(ValueError, match="Response 1 is empty"):
            encode_group(tokenizer, QUESTION, ["Paris", [assistant(content)]], prompt_format)

    def test_response_that_is_none(self, tokenizer, prompt_format):
        with pytest.raises(ValueError, match="Response 1"):
            encode_group(tokenizer, QUESTION, ["Paris", None], prompt_format)

    def test_messages_without_a_template(self, plain_tokenizer, prompt_format):
        with pytest.raises(ValueError, match="no chat template"):
            encode_group(plain_tokenizer, [user(QUESTION)], RESPONSES, prompt_format)

    def test_role_that_the_template_refuses(self, tokenizer, prompt_format):
        with pytest.raises(ValueError, match=r"cannot render.*judge.*unknown role judge"):
            encode_group(tokenizer, [{"role": "judge", "content": "Hm"}], RESPONSES, prompt_format)

    def test_message_without_a_role(self, tokenizer, prompt_format):
        with pytest.raises(ValueError, match="cannot render"):
            encode_group(tokenizer, [{"content": "Hm"}], RESPONSES, prompt_format)


def test_plain_prompt_with_message_responses(plain_tokenizer):
    with pytest.raises(ValueError, match="plain text, but a response is a list"):
        encode_group(plain_tokenizer, QUESTION, [[assistant("Paris")]])


class TestCollation:
    groups = (
        EncodedGroup([[5, 6, 7], [5, 6, 8, 9]], [5, 6]),
        EncodedGroup([[4, 3], [4, 9, 9, 9, 9]], [4, 2, 2]),  # neither begins with the prompt
        EncodedGroup([[7, 1]], [7]),
    )

    def test_rows_prompts_and_gate_rows_by_hand(self):
        batch = collate_groups(self.groups, pad_token_id=99)
        assert batch["input_ids"].tolist() == [
            [5, 6, 7, 99, 99],
            [5, 6, 8, 9, 99],
            [4, 3, 99, 99, 99],
            [4, 9, 9, 9, 9],
            [7, 1, 99, 99, 99],
            [4, 2, 2, 99, 99],
        ]
        assert batch["attention_mask"].tolist() == [
            [1, 1, 1, 0, 0],
            [1, 1, 1, 1, 0],
            [1, 1, 0, 0, 0],
            [1, 1, 1, 1, 1],
            [1, 1, 0, 0, 0],
            [1, 1, 1, 0, 0],
        ]
        assert batch["gate_rows"].tolist() == [0, 5, 4]
        lengths = batch["prompt_lengths"].tolist()
        assert [lengths[row] for row in (0, 1, 4, 5)] == [2, 2, 1, 3]
        assert all(1 <= length <= size for length, size in zip(lengths, batch["attention_mask"].sum(-1)))

    def test_padding_id_that_occurs_as_a_token_is_attended(self):
        batch = collate_groups([EncodedGroup([[5, 1], [5, 1, 1, 1]], [5])], pad_token_id=1)
        assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]

    @pytest.mark.parametrize(("multiple", "length"), [(None, 5), (1, 5), (4, 8), (5, 5), (8, 8), (64, 64)])
    def test_pad_to_multiple_of(self, multiple, length):
        batch = collate_groups(self.groups, pad_token_id=99, pad_to_multiple_of=multiple)
        assert batch["input_ids"].shape == batch["attention_mask"].shape == (6, length)
        assert batch["input_ids"][:, 5:].eq(99).all()
        assert batch["attention_mask"].sum(-1).tolist() == [3, 4, 2, 5, 2, 3]

    def test_without_gate_only_the_sequences(self):
        groups = [*self.groups, EncodedGroup([[3]], None)]
        batch = collate_groups(groups, pad_token_id=99, with_prompts=False)
        assert set(batch) == {"input_ids", "attention_mask"}
        assert len(batch["input_ids"]) == 6

    def test_gate_without_prompt(self):
        with pytest.raises(ValueError, match="explicit prompt"):
            collate_groups([*self.groups, EncodedGroup([[3]], None)], pad_token_id=0)


def test_gated_model_asks_for_the_prompt(gpm, tokenizer):
    with pytest.raises(ValueError, match="explicit prompt"):
        gpm.embed(tokenizer, None, [[user(QUESTION), assistant("Paris.")]])


def test_gateless_model_needs_no_prompt(tokenizer):
    model = build_gpm(embedding_dim=4, scale_gate=False)
    conversations = [[user(QUESTION), assistant(response)] for response in RESPONSES]
    embeddings, scales = model.embed(tokenizer, None, conversations)
    assert scales is None
    torch.testing.assert_close(embeddings, model.embed(tokenizer, QUESTION, RESPONSES)[0])


class TestSequencesThatAreNoLists:
    """Columns of data sets and tables, tuples, generators, mappings of names: never taken for something else."""

    prompts = (QUESTION, "How do I bake bread?")
    groups = (RESPONSES, RESPONSES[::-1][:2])

    def right(self, gpm, tokenizer):
        return [gpm.preference_scores(tokenizer, *group) for group in zip(self.prompts, self.groups)]

    @pytest.mark.parametrize("kind", ["column", "series", "array", "tuple", "generator"])
    def test_many_prompts(self, gpm, tokenizer, kind):
        numpy, pandas, datasets = (pytest.importorskip(name) for name in ("numpy", "pandas", "datasets"))
        groups = [list(group) for group in self.groups]
        data = datasets.Dataset.from_dict({"prompt": list(self.prompts), "responses": groups})
        prompts, groups = {
            "column": lambda: (data["prompt"], data["responses"]),
            "series": lambda: (pandas.Series(self.prompts), pandas.Series(groups)),
            "array": lambda: (numpy.array(self.prompts), [numpy.array(group) for group in groups]),
            "tuple": lambda: (self.prompts, tuple(map(tuple, groups))),
            "generator": lambda: (iter(self.prompts), (iter(group) for group in groups)),
        }[kind]()
        scores = gpm.preference_scores(tokenizer, prompts, groups)
        for found, right in zip(scores, self.right(gpm, tokenizer), strict=True):
            torch.testing.assert_close(found, right, atol=1e-4, rtol=0)

    @pytest.mark.parametrize("kind", [tuple, iter, dict], ids=["tuple", "generator", "mapping"])
    def test_one_prompt(self, gpm, tokenizer, kind):
        def given():
            return dict(zip("abc", RESPONSES)) if kind is dict else kind(RESPONSES)

        right = gpm.preference_scores(tokenizer, QUESTION, RESPONSES)
        torch.testing.assert_close(gpm.preference_scores(tokenizer, QUESTION, given()), right)
        torch.testing.assert_close(gpm.preference_scores(tokenizer, iter([user(QUESTION)]), given()), right)
        assert gpm.rank(tokenizer, QUESTION, given()) == gpm.rank(tokenizer, QUESTION, RESPONSES)

    def test_names_are_no_responses(self, tokenizer):
        with pytest.raises(ValueError, match="must be a list with at least one response"):
            encode_group(tokenizer, QUESTION, assistant("Paris."))


class TestPartsOfATextThatATemplateDrops:
    def test_said_and_scored_as_rendered(self, monkeypatch):
        from gpm_hf.modeling import template_gpm
        from tests.modeling.chat_templates import tokenizer_for

        said = set()
        monkeypatch.setattr(template_gpm.logger, "warning_once", said.add)
        r1 = tokenizer_for("deepseek_r1_distill")
        whole = encode_group(r1, QUESTION, ["Paris.", "Rome."])
        assert not said
        assert encode_group(r1, QUESTION, ["<think>a</think>Paris.", "<think>b</think>Rome."]) == whole
        (sentence,) = said  # the same for every row, so that it is printed once
        assert "leaves out parts of the texts, such as reasoning before `</think>`" in sentence

    def test_responses_that_a_tokenizer_cannot_tell_apart(self):
        from tokenizers import normalizers

        lower = build_tokenizer()
        lower.backend_tokenizer.normalizer = normalizers.Lowercase()
        with pytest.raises(ValueError, match=r"Responses 0 and 2 differ, but .*same tokens"):
            encode_group(lower, QUESTION, ["Paris.", "Rome.", "paris."])

    def test_white_space_is_no_difference(self, tokenizer):
        tokenizer = build_tokenizer()
        tokenizer.chat_template = tokenizer.chat_template.replace("message['content']", "message['content'] | trim")
        group = encode_group(tokenizer, QUESTION, ["Paris.", " Paris. "])
        assert group.sequences[0] == group.sequences[1]


def test_a_row_that_cannot_be_used_is_named():
    from gpm_hf.data.preference import encode_preference

    row = {"prompt": QUESTION, "chosen": "Paris.", "rejected": " "}
    with pytest.raises(
        ValueError, match=r"Row 7, with the prompt 'What is the capital of France\?'.*rejected response"
    ):
        encode_preference(row, build_tokenizer(), index=7)
