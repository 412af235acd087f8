"""Training, pushing and loading, end to end: through a loopback Hub, each step in an interpreter of its own."""

import json
import re
import textwrap

import pytest
from huggingface_hub import ModelCard

from gpm_hf.cli import main
from tests.conftest import CODE
from tests.loopback_hub import HubServer, run_python

PROMPT = "How do I keep basil alive on a windowsill?"
RESPONSES = ["Water it when the soil feels dry.", "Basil is a plant.", "Ask a gardener."]

TRAIN = """
    import json, sys, torch
    from datasets import Dataset, load_dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM
    from gpm_hf import GPMRewardConfig, GPMRewardTrainer
    from gpm_hf.hub.publishing import publish
    from tests.conftest import backbone_config, build_tokenizer
    from tests.training.test_reward_trainer import ring_rows

    folder, prompt, responses = sys.argv[1], sys.argv[2], sys.argv[3:]
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(backbone_config("llama")).push_to_hub("alice/base")
    tokenizer.push_to_hub("alice/base")
    Dataset.from_list(ring_rows(4)).push_to_hub("alice/pairs")

    scores = {}

    def train(name, base, peft_config=None, **options):
        args = GPMRewardConfig(
            f"{folder}/{name}", hub_model_id=f"alice/{name}", use_cpu=True, bf16=False, report_to="none", max_steps=2,
            learning_rate=1e-2, save_strategy="steps", save_steps=1, disable_tqdm=True, logging_steps=1,
            push_to_hub=True, hub_token="hf_alice", **options
        )
        trainer = GPMRewardTrainer(
            base, args, train_dataset=load_dataset("alice/pairs", split="train"), peft_config=peft_config
        )
        trainer.train()
        trainer.push_to_hub(tags="of-a-test")
        trainer.model.eval()
        scores[name] = trainer.model.preference_scores(tokenizer, prompt, responses).tolist()

    # The token is in the arguments, and checkpoints are saved: neither may go to the Hub.
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    train("gpm", "alice/base", embedding_dim=4, hub_private_repo=True)
    train("bt", "alice/base", embedding_dim=1)
    train("lora", "alice/base", lora, embedding_dim=4)
    train("lora-of-gpm", "alice/gpm", lora)
    scores["merged"] = scores["lora"]
    publish(f"{folder}/lora", "alice/merged", merge=True)
    print(json.dumps(scores))
"""

STRANGER = """
    import sys

    class NoPackage:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == "gpm_hf":
                raise ImportError("gpm_hf is not installed here")

    sys.meta_path.insert(0, NoPackage())
"""


def script(*parts):
    return "\n".join(textwrap.dedent(part) for part in parts)


@pytest.fixture(scope="module")
def hub():
    with HubServer() as server:
        server.add_user("alice", token="hf_alice")
        yield server
    assert not server.errors, "\n".join(server.errors)


@pytest.fixture(scope="module")
def trained(hub, tmp_path_factory):
    """Folder of the runs, and the scores that the models had in memory when they were pushed."""
    folder = tmp_path_factory.mktemp("runs")
    done = run_python(hub, TRAIN, folder, PROMPT, *RESPONSES, token="hf_alice", timeout=300)
    return folder, json.loads(done.stdout.splitlines()[-1])


# Largest difference of log-odds; merging changes the weights by a rounding.
TOLERANCE = {"gpm": 5e-5, "bt": 5e-5, "lora": 5e-5, "lora-of-gpm": 5e-5, "merged": 2e-4}


def assert_close(found, expected, tolerance=5e-5):
    worst = max(abs(a - b) for line, other in zip(found, expected) for a, b in zip(line, other))
    assert worst <= tolerance, worst


LOAD = """
    import json
    from transformers import AutoModel, AutoTokenizer, pipeline
    prompt, *responses = sys.argv[2:]
    for repo, revision in json.loads(sys.argv[1]).items():
        model = AutoModel.from_pretrained(repo, trust_remote_code=True, revision=revision).eval()
        tokenizer = AutoTokenizer.from_pretrained(repo, trust_remote_code=True, revision=revision)
        scores = model.preference_scores(tokenizer, prompt, responses).tolist()
        preference = pipeline("preference", model=repo, trust_remote_code=True, revision=revision)
        piped = preference({"prompt": prompt, "responses": responses})["scores"]
        print(json.dumps([scores, piped]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("names, token", [(["gpm"], "hf_alice"), (["bt", "merged"], None)], ids=["private", "public"])
def test_a_stranger_loads_in_one_line_at_a_pinned_commit(hub, trained, names, token):
    pinned = json.dumps({f"alice/{name}": hub.repo(f"alice/{name}").resolve("main").oid for name in names})
    done = run_python(hub, script(STRANGER, LOAD), pinned, PROMPT, *RESPONSES, token=token)
    for name, line in zip(names, done.stdout.splitlines()[-len(names) :], strict=True):
        for found in json.loads(line):
            assert_close(found, trained[1][name], TOLERANCE[name])


def test_adapters_load_by_the_package(hub, trained):
    load = """
        import json, sys
        from gpm_hf import load_preference_model, load_tokenizer
        prompt, *responses = sys.argv[1:]
        for repo in ("alice/lora", "alice/lora-of-gpm"):
            model = load_preference_model(repo)
            print(json.dumps(model.preference_scores(load_tokenizer(repo), prompt, responses).tolist()))
    """
    done = run_python(hub, load, PROMPT, *RESPONSES, token="hf_alice")
    lora, lora_of_gpm = map(json.loads, done.stdout.splitlines()[-2:])
    assert_close(lora, trained[1]["lora"])
    assert_close(lora_of_gpm, trained[1]["lora-of-gpm"])


@pytest.fixture(scope="module")
def shown(hub, trained):
    """What the usage blocks of the cards give, each card's in names of its own, all in one stranger's interpreter."""
    run = """
        import json, traceback
        for name, code in json.loads(sys.argv[1]).items():
            names = {}
            try:
                exec(code, names)
                print(json.dumps([name, names["scores"].tolist()]))
            except Exception:
                print(json.dumps([name, traceback.format_exc()]))
    """
    codes = {}
    for name in trained[1]:
        card = hub.repo(f"alice/{name}").resolve("main").files["README.md"].data.decode()
        blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        assert len(blocks) == (1 if name.startswith("lora") else 2)
        codes[name] = "\n".join(blocks)
    done = run_python(hub, script(STRANGER, run), json.dumps(codes), token="hf_alice")
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith('["'))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpm", "bt", "lora", "lora-of-gpm", "merged"])
def test_the_cards_usage_blocks_run_and_give_the_models_scores(shown, trained, name):
    assert isinstance(shown[name], list), shown[name]
    assert_close(shown[name], trained[1][name], TOLERANCE[name])


def test_cards_say_what_the_run_was_and_nothing_of_this_machine(hub, trained):
    for name in ("gpm", "bt", "lora", "lora-of-gpm", "merged"):
        text = hub.repo(f"alice/{name}").resolve("main").files["README.md"].data.decode()
        card = ModelCard(text)
        commit = hub.repo("alice/pairs", "datasets").resolve("main").oid
        assert card.data.datasets == ["alice/pairs"] and f"`alice/pairs`, revision `{commit}`" in text
        assert {"of-a-test", "gpm-hf", "trl"} <= set(card.data.tags)
        assert card.data.base_model == ("alice/gpm" if name == "lora-of-gpm" else "alice/base")
        assert "| learning_rate | 0.01 |" in text and "Measured in this run" in text and "1 x" in text
        assert str(trained[0]) not in text and "(see `alice/" in text
    base = hub.repo("alice/base").resolve("main").oid
    assert f"revision `{base}`" in hub.repo("alice/gpm").resolve("main").files["README.md"].data.decode()


def test_what_is_uploaded_and_what_is_not(hub, trained):
    files = {name: set(hub.repo(f"alice/{name}").resolve("main").files) for name in ("gpm", "lora", "merged")}
    common = CODE | {"README.md", "config.json", "gpm_run.json", "tokenizer.json", "tokenizer_config.json"}
    common |= {"chat_template.jinja", ".gitattributes"}
    assert files["gpm"] - {".gitattributes"} == (common | {"model.safetensors"}) - {".gitattributes"}
    assert files["lora"] >= CODE | {"adapter_config.json", "adapter_model.safetensors", "config.json"}
    assert "model.safetensors" not in files["lora"]
    assert "adapter_config.json" not in files["merged"] and "model.safetensors" in files["merged"]
    for name in files:
        assert not any("/Users" in path or path.endswith((".bin", ".pt", ".pkl")) for path in files[name])
        for path, blob in hub.repo(f"alice/{name}").resolve("main").files.items():
            assert str(trained[0]).encode() not in blob.data and b"hf_alice" not in blob.data, (name, path)
        assert len(hub.matching(f"^POST .*alice/{name}/commit/")) == 1
    assert hub.repo("alice/gpm").private and not hub.repo("alice/bt").private


@pytest.mark.slow
def test_a_private_model_is_refused_without_a_token(hub, trained):
    load = """
        from gpm_hf.cli import main
        sys.exit(0 if main(["score", "alice/gpm", "--prompt", "a", "--response", "b"]) == 1 else 7)
    """
    done = run_python(hub, script("import sys", load))
    assert "alice/gpm" in done.stderr and "private" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["status 500", "drop"])
def test_an_interrupted_upload_leaves_the_previous_repository(trained, fault):
    """The commit fails for good; the repository is what it was, and the same command completes it later."""
    folder = trained[0] / "bt"
    push = """
        import sys
        from gpm_hf.cli import main
        sys.exit(main(["push", sys.argv[1], "alice/model", "--message", sys.argv[2]]))
    """
    with HubServer() as server:
        server.add_user("alice", token="hf_alice")
        run_python(server, push, folder, "first", token="hf_alice")
        before = server.repo("alice/model").resolve("main")
        (folder / "generation_config.json").write_text("{}")
        if fault == "drop":
            server.drop(times=9, match="commit/main")
        else:
            server.fail(times=9, status=500, match="commit/main")
        with pytest.raises(RuntimeError):
            run_python(server, push, folder, "second", token="hf_alice")
        assert server.repo("alice/model").resolve("main").oid == before.oid
        server.clear_faults()
        run_python(server, push, folder, "third", token="hf_alice")
        after = server.repo("alice/model").resolve("main")
        assert set(after.files) == set(before.files) | {"generation_config.json"}
        (folder / "generation_config.json").unlink()
        run_python(server, push, folder, "fourth", token="hf_alice")
        assert set(server.repo("alice/model").resolve("main").files) == set(before.files)


def test_dry_run_branches_pull_requests_and_a_local_base(hub, trained, capsys):
    folder = str(trained[0] / "bt")
    assert main(["push", folder, "alice/bt2", "--dry-run"]) == 0, "tests are offline: a request would be an error"
    shown = capsys.readouterr().out
    assert "model.safetensors" in shown and "would go to alice/bt2" in shown
    push = """
        import sys
        from gpm_hf.cli import main
        command = ["push", sys.argv[1], "alice/bt2"]
        sys.exit(main([*command, "--revision", "v2"]) or main([*command, "--create-pr"]))
    """
    run_python(hub, push, folder, token="hf_alice")
    assert "model.safetensors" in hub.repo("alice/bt2").resolve("v2").files
    assert "model.safetensors" not in hub.repo("alice/bt2").resolve("main").files
    assert "model.safetensors" in hub.repo("alice/bt2").resolve("refs/pr/1").files
    assert "model.safetensors" not in hub.repo("alice/bt2").resolve("main").files


POLICY = """
    import json, sys, torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM
    from gpm_hf import OnlineGPOConfig, OnlineGPOTrainer
    from tests.training.online import OPTIONS, build_policy, chat_prompts, prefer_by_text
    from tests.conftest import build_tokenizer

    folder = sys.argv[1]
    tokenizer = build_tokenizer()
    build_policy().push_to_hub("alice/policy-base")
    tokenizer.push_to_hub("alice/policy-base")
    chat_prompts(6).push_to_hub("alice/prompts")
    from datasets import load_dataset
    from gpm_hf.evaluation.plots.preference_plots import plot_policy_progress

    for name, lora in (("policy", None), ("policy-lora", LoraConfig(r=2, target_modules=["q_proj"]))):
        args = OnlineGPOConfig(
            f"{folder}/{name}", hub_model_id=f"alice/{name}", max_steps=2, **OPTIONS | {"win_rate_prompts": 2}
        )
        trainer = OnlineGPOTrainer(
            "alice/policy-base", prefer_by_text, args, load_dataset("alice/prompts", split="train"), peft_config=lora
        )
        trainer.train()
        plot_policy_progress(f"{folder}/{name}/progress.png", trainer.state.log_history, name)
        trainer.push_to_hub(plots={"progress.png": "Win rate."})
"""


@pytest.mark.slow
def test_policies_are_pushed_with_a_card_whose_usage_runs(hub, tmp_path):
    run_python(hub, POLICY, tmp_path, token="hf_alice", timeout=300)
    for name in ("policy", "policy-lora"):
        files = hub.repo(f"alice/{name}").resolve("main").files
        text = files["README.md"].data.decode()
        card = ModelCard(text)
        assert card.data.base_model == "alice/policy-base" and card.data.datasets == ["alice/prompts"]
        assert (
            "`prefer_by_text`" in text and "| gpo_beta | 0.5 |" in text and "| win rate (training, step 2) | " in text
        )
        assert "![Win rate.](progress.png)" in text and "progress.png" in files
        assert not any(path.endswith(".bin") or path.endswith(".py") for path in files)
        (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        run_python(hub, script(STRANGER, block))
