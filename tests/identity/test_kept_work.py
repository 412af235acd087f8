"""What is kept between runs and is no command's: states of a backbone, tokenised rows."""

import pytest
from datasets import Dataset

from gpm_hf.data.preference import encode_preference
from gpm_hf.data.preference_rows import preparation_version
from gpm_hf.identity import software, tied_to_versions
from gpm_hf.training.head_states import _fingerprint
from tests.conftest import build_gpm, build_tokenizer

ROW = {"prompt": "What is the capital?", "chosen": "Paris.", "rejected": "Bread."}


@pytest.fixture
def upgraded(monkeypatch):
    def upgrade(library):
        number = software.version
        monkeypatch.setattr(software, "version", lambda name: "9.9" if name == library else number(name))

    return upgrade


def test_rows_are_tokenised_anew_after_an_upgrade(upgraded):
    """`datasets` finds what it kept by the fingerprint of the rows and the arguments of a function."""
    rows = Dataset.from_list([ROW])
    before = preparation_version(), tied_to_versions(rows)._fingerprint
    assert before == (preparation_version(), tied_to_versions(rows)._fingerprint)
    assert tied_to_versions(rows).to_list() == [ROW]
    upgraded("tokenizers")
    after = preparation_version(), tied_to_versions(rows)._fingerprint
    assert before[0] != after[0] and before[1] != after[1]


def test_states_are_of_the_backbone_as_it_is_and_of_what_computes_them(upgraded):
    model, other = build_gpm(embedding_dim=4), build_gpm(embedding_dim=4)
    found = {_fingerprint([b"ids"], model)}
    assert found == {_fingerprint([b"ids"], other)}  # of equal models they are shared, also where the heads differ
    found.add(_fingerprint([b"other ids"], model))
    next(other.model.parameters()).data.flatten()[0] += 1
    found.add(_fingerprint([b"ids"], other))
    found.add(_fingerprint([b"ids"], build_gpm(embedding_dim=4).half()))
    upgraded("transformers")
    found.add(_fingerprint([b"ids"], model))
    assert len(found) == 5


def test_ids_tell_tokenizer_template_and_prompt_format():
    """So that states, found by ids, depend on them."""
    plain, other = build_tokenizer(), build_tokenizer()
    other.chat_template = other.chat_template.replace("<|im_end|>", "<|im_end|> ")
    options = [(plain, "clean"), (other, "clean"), (build_tokenizer(bos=True), "clean"), (plain, "reference")]
    ids = [encode_preference(ROW, tokenizer, prompt_format)["chosen_ids"] for tokenizer, prompt_format in options]
    assert len(set(map(tuple, ids))) == 4
