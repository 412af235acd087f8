"""Secrets in options, records, reports and settings."""

import json

import pytest
from trl import DPOConfig, GRPOConfig, RewardConfig

from gpm_hf import GPMRewardConfig, OnlineGPOConfig
from gpm_hf.files import report_text
from gpm_hf.hub.record import RunRecord
from gpm_hf.masking import MASK, masked
from gpm_hf.training import OfflineGPOConfig

SECRET = "s3cret"
HUB_TOKEN = "hf_" + "aB3" * 10


SECRET_KEYS = """
    token hub_token HF_TOKEN use_auth_token api_key OPENAI_API_KEY WANDB-API-KEY password aws_secret_access_key
    client_secret credentials Authorization private_key
"""


@pytest.mark.parametrize("key", SECRET_KEYS.split())
def test_what_is_under_a_secrets_name_is_masked_at_any_depth(key):
    found = masked({"model_init_kwargs": [{key: SECRET}], "plain": (key, 1)})
    assert found == {"model_init_kwargs": [{key: MASK}], "plain": (key, 1)}


@pytest.mark.parametrize(
    "value",
    [
        {"pad_token": "<pad>", "eos_token": "<eos>", "max_new_tokens": 5, "num_tokens": [3.0], "tokenizer": "a"},
        {"token": None, "hub_token": "", "num_token": 3, "key": "a", "author": "b", "token_ids": [1]},
        ["hf_model", "user/hf_tokenizer", "https://host/a@b", 1.5, None],
    ],
)
def test_what_is_no_secret_stays(value):
    assert masked(value) == value


def test_tokens_and_passwords_inside_texts_are_masked():
    text = f"curl -H {HUB_TOKEN} https://me:pass@host/x"
    assert masked(text) == f"curl -H {MASK} https://{MASK}@host/x"


@pytest.mark.parametrize(
    ("kind", "parent"), [(GPMRewardConfig, RewardConfig), (OnlineGPOConfig, GRPOConfig), (OfflineGPOConfig, DPOConfig)]
)
def test_options_show_no_secret_and_have_trls_defaults(kind, parent, tmp_path):
    options = {"use_cpu": True, "bf16": False, "hub_token": SECRET, "model_init_kwargs": {"token": SECRET}}
    args = kind(str(tmp_path), **options)
    for shown in (repr(args), str(args), args.to_json_string(), str(args.to_sanitized_dict())):
        assert SECRET not in shown and "model_init_kwargs" in shown
    assert args.model_init_kwargs == {"token": SECRET} and args.hub_token == SECRET
    of_parent = parent(str(tmp_path), use_cpu=True, bf16=False)
    assert (args.logging_steps, args.gradient_checkpointing) == (10, of_parent.gradient_checkpointing)
    assert of_parent.logging_steps == 10


def test_a_record_and_a_report_hold_none(tmp_path):
    RunRecord("policy", settings={"hub_token": SECRET}, datasets=[{"name": f"https://a:{SECRET}@b/c"}]).save(tmp_path)
    assert SECRET not in (tmp_path / "gpm_run.json").read_text()
    report = report_text({"api_key": SECRET, "mean": float("nan"), "bounds": (float("-inf"), 1.0), "n": 3})
    assert json.loads(report) == {"api_key": MASK, "mean": None, "bounds": [None, 1.0], "n": 3}


def test_an_iterative_alignment_keeps_no_token(tmp_path):
    """With which token a policy was loaded is no setting: another one goes on with the job."""
    from gpm_hf.recipes.iterate_config import IterateConfig
    from gpm_hf.recipes.iterate_settings import check_settings

    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n')
    config = IterateConfig(
        str(tmp_path / "policy"), "random", str(tmp_path / "prompts.jsonl"), output=str(tmp_path / "job")
    )
    for token in (SECRET, HUB_TOKEN):
        options = {"token": token, "dtype": "float32"}
        check_settings(config, OfflineGPOConfig(use_cpu=True, bf16=False, model_init_kwargs=options, hub_token=token))
        written = (tmp_path / "job" / "iterate.json").read_text()
        assert token not in written
        assert json.loads(written)["training.model_init_kwargs"] == {"token": MASK, "dtype": "float32"}
