"""A server in a process of its own: trainers that ask it, kills, many clients, malformed and large requests."""

import concurrent.futures
import json
import random
import signal
import threading
import time

import psutil
import pytest
import requests
import torch

from gpm_hf.scoring import load_scorer
from tests.conftest import save_backbone
from tests.serving.groups import KINDS, assert_agree, groups_of_eight, save_model
from tests.serving.servers import ServerProcess, time_limit
from tests.serving.test_app import BAD

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def limited():
    with time_limit(240):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("process") / "gpm"
    save_model(folder, **KINDS["gate"])
    return str(folder)


def grpo(policy, output, reward, steps=3):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    args = GRPOConfig(
        str(output),
        max_steps=steps,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=8,
        report_to="none",
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
    )
    prompts = [[{"role": "user", "content": prompt}] for prompt in groups_of_eight(6)[0]]
    return GRPOTrainer(policy, reward, args, Dataset.from_dict({"prompt": prompts}))


def test_grpo_trains_on_a_server_that_is_killed_and_comes_back(folder, tmp_path):
    """The server is killed before the second step and started again two seconds later."""
    from gpm_hf import GPMReward

    calls, expected = [], []
    with ServerProcess(folder) as server:
        reward = GPMReward(f"remote:{server.url}")
        here = GPMReward(folder)

        def watched(prompts, completions, **columns):
            calls.append(len(completions))
            if len(calls) == 2:
                server.kill()
                threading.Timer(2.0, server.start, [False]).start()
            found = reward(prompts, completions, **columns)
            expected.append((found, here(prompts, completions, **columns)))
            return found

        trainer = grpo(save_backbone(tmp_path / "policy"), tmp_path / "out", watched)
        trainer.train()
    assert trainer.state.global_step == 3 and len(calls) == 3
    for found, local in expected:
        assert found == pytest.approx(local, abs=5e-4)


def test_a_server_that_stays_away_is_one_clear_error(folder, tmp_path):
    from gpm_hf import GPMReward

    with ServerProcess(folder) as server:
        reward = GPMReward(f"remote:{server.url}", init_kwargs={"retry_for": 1.0})
        trainer = grpo(save_backbone(tmp_path / "policy"), tmp_path / "out", reward)
        assert server.kill() == -signal.SIGKILL
        with pytest.raises(OSError, match=r"cannot be used: there is no connection to it.*gpm-hf serve MODEL"):
            trainer.train()
    assert not list((tmp_path / "out").glob("**/*.safetensors"))


def test_it_is_told_to_stop_and_answers_what_it_has(folder):
    ids = [[5 + number % 90, *range(5, 200)] for number in range(1024)]
    with ServerProcess(folder) as server, concurrent.futures.ThreadPoolExecutor(1) as pool:
        process = psutil.Process(server.process.pid)
        idle = process.cpu_times().user
        waiting = pool.submit(requests.post, server.url + "/v1/embeddings", json={"input": ids}, timeout=120)
        while process.cpu_times().user < idle + 0.5:  # it is being computed
            time.sleep(0.01)
        assert not waiting.done()
        assert server.kill(signal.SIGTERM) in (0, -signal.SIGTERM)
        answer = waiting.result()
    assert answer.status_code == 200 and len(answer.json()["data"]) == 1024
    with pytest.raises(requests.ConnectionError):
        requests.get(server.url + "/health", timeout=5)


def test_many_clients_and_bad_requests(folder):
    """200 malformed requests among those of 64 clients, and 10 MB: every row is its own, and the memory is bounded."""
    rng = random.Random(0)
    # The other tests' server takes 64 sequences in a request, this one more.
    faulty = [one for one in BAD if "are the most" not in one[3]]
    prompts, groups = groups_of_eight(64, prompt_words=20)
    with ServerProcess(folder) as server:
        local = load_scorer(f"gpm:{folder}")
        expected = local(prompts, groups)
        scorer = load_scorer(f"remote:{server.url}", connections=64)
        assert_agree(scorer(prompts, groups), expected)
        process = psutil.Process(server.process.pid)
        before = process.memory_info().rss

        def bad(number):
            route, body, status, _ = rng.choice(faulty)
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            if number % 40 == 0:
                route, data, status = "/score", b"[" * 10 * 2**20, 413
            headers = {"content-type": "application/json"}
            try:
                found = requests.post(server.url + route, data=data, headers=headers, timeout=60).status_code
            except requests.ConnectionError:
                return status == 413  # closed while the rest was being sent
            return found == status

        def good(number):
            request = {"groups": [{"prompt": prompts[number], "responses": groups[number]}]}
            answer = requests.post(server.url + "/score", json=request, timeout=120)
            return torch.tensor(answer.json()["results"][0]["scores"])

        with concurrent.futures.ThreadPoolExecutor(72) as pool:
            faults = [pool.submit(bad, number) for number in range(200)]
            rows = list(pool.map(good, range(64)))
        assert all(fault.result() for fault in faults)
        assert_agree(rows, expected)
        assert process.memory_info().rss - before < 300 * 2**20
        assert requests.get(server.url + "/ready", timeout=10).json()["ready"]
