"""The common tests of transformers' models; run by `run.py`, from a checkout of transformers."""

import os
import unittest

import local_hub
import torch
from tests.test_modeling_common import ModelTesterMixin, ids_tensor

from gpm_hf import GPMConfig, GPMForPreference

OPTIONS = {"embedding_dim": 1 if os.environ["PEERS_VARIANT"] == "bradley_terry" else 4}


class Tester:
    """What the mixin asks a model's own tester for."""

    batch_size, seq_length, hidden_size, num_hidden_layers, num_attention_heads, vocab_size = 3, 9, 16, 2, 4, 400
    is_training = True

    def __init__(self, parent):
        self.parent = parent

    def get_config(self):
        return GPMConfig(text_config=local_hub.config("llama", initializer_range=0.02), **OPTIONS)

    def prepare_config_and_inputs_for_common(self):
        ids = ids_tensor([self.batch_size, self.seq_length], self.vocab_size - 10) + 5
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if OPTIONS["embedding_dim"] > 1:
            inputs["prompt_lengths"] = torch.full((self.batch_size,), 4)
        return self.get_config(), inputs


class GPMTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (GPMForPreference,)
    test_resize_embeddings = True

    def setUp(self):
        self.model_tester = Tester(self)
