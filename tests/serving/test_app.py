"""The small server's routes, and the scorer that asks it, against the model in this process."""

import concurrent.futures
import contextlib
import json

import pytest
import requests
import torch

from gpm_hf.scoring import load_preference_model, load_scorer
from gpm_hf.serving import load_served
from gpm_hf.serving.app import Limits, build_app
from tests.conftest import build_tokenizer
from tests.serving.groups import KINDS, assert_agree, groups_of_eight, save_model
from tests.serving.servers import app_in_thread

KEY = "k-1234567890"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "gpm"
    save_model(folder, **KINDS["gate"])
    return str(folder)


@pytest.fixture(scope="module")
def url(folder):
    limits = Limits(max_body_bytes=2**20, max_rows=64, group_size=None)
    with app_in_thread(build_app(load_served(folder), limits=limits)) as url:
        yield url


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("backbone", "kind"),
    [
        ("llama", "reward"),
        *(slow("llama", kind) for kind in ("gate", "no-gate", "bradley-terry")),
        *(slow("qwen3", kind) for kind in ("gate", "reward")),
        *(slow("gemma3_text", kind) for kind in ("gate", "reward")),
    ],
)
def test_log_odds_are_the_models(backbone, kind, tmp_path):
    model = save_model(tmp_path / "gpm", backbone, **KINDS[kind])
    prompts, groups = groups_of_eight()
    groups[0][3] = groups[0][1]  # twice the same response
    with app_in_thread(build_app(load_served(str(tmp_path / "gpm")))) as url:
        scorer = load_scorer(f"remote:{url}")
        largest = assert_agree(scorer(prompts, groups), model.preference_scores(build_tokenizer(), prompts, groups))
        print(f"{backbone} {kind}: largest error {largest:.1e}")
        assert scorer.forward_passes == 64 and scorer.asymmetry == 0
        answer = requests.post(url + "/score", json={"groups": [{"prompt": prompts[0], "responses": groups[0]}]})
    (found,) = answer.json()["results"]
    expected = model.preference_scores(build_tokenizer(), prompts[0], groups[0])
    assert_agree([torch.tensor(found["scores"])], [expected])
    assert found["ranking"] == model.rank(build_tokenizer(), prompts[0], groups[0])
    torch.testing.assert_close(torch.tensor(found["probabilities"]), expected.sigmoid(), atol=1e-4, rtol=0)


def test_what_a_server_says_of_itself(url, folder):
    assert requests.get(url + "/health").json() == {"status": "ok"}
    assert requests.get(url + "/ready").json() == {"ready": True, "model": "gpm"}
    (model,) = requests.get(url + "/v1/models").json()["data"]
    assert model["root"] == folder and model["max_model_len"] == 256
    assert requests.get(url + "/settings").json()["embedding_dim"] == 4


def test_one_vector_for_each_sequence(url):
    one = requests.post(url + "/v1/embeddings", json={"input": [5, 6, 7]}).json()
    many = requests.post(url + "/pooling", json={"input": [[5, 6, 8], [5, 6, 7]]}).json()
    assert [row["index"] for row in many["data"]] == [0, 1] and many["usage"]["prompt_tokens"] == 6
    found = torch.tensor([one["data"][0]["embedding"], many["data"][1]["data"]])
    assert found.shape == (2, 6)
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=0)


def test_clients_in_parallel_get_their_own_rows(url, folder):
    model = load_preference_model(folder)
    prompts, groups = groups_of_eight(8, prompt_words=20)
    expected = model.preference_scores(build_tokenizer(), prompts, groups)

    def ask(number):
        request = {"groups": [{"prompt": prompts[number], "responses": groups[number]}]}
        return torch.tensor(requests.post(url + "/score", json=request, timeout=60).json()["results"][0]["scores"])

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert_agree(found, expected)


BAD = [
    ("/score", b"{", 422, "JSON decode error"),
    ("/score", b"[]", 422, "body: "),
    ("/score", b"\xff\xfe", 422, "JSON decode error"),
    ("/score", {"groups": []}, 422, "groups: "),
    ("/score", {"groups": [{"prompt": "x", "responses": []}]}, 422, "responses: "),
    ("/score", {"groups": [{"prompt": "x", "responses": ["a", ""]}]}, 422, "responses.1"),
    ("/score", {"groups": [{"prompt": "x", "responses": ["a"], "more": 1}]}, 422, "more: "),
    ("/score", {"groups": [{"prompt": None, "responses": ["a", "b"]}]}, 422, "The scale gate reads the prompt"),
    ("/score", {"groups": [{"prompt": "x", "responses": ["a", "b " * 400]}]}, 422, "context holds 256"),
    ("/score", {"groups": [{"prompt": [{"role": "judge", "content": "x"}], "responses": ["a"]}]}, 422, "Prompt 0: "),
    ("/v1/embeddings", {"input": "text"}, 422, "send token ids"),
    ("/v1/embeddings", {"input": ["text"]}, 422, "send token ids"),
    ("/v1/embeddings", {"input": []}, 422, "input"),
    ("/v1/embeddings", {"input": [[]]}, 422, "input"),
    ("/v1/embeddings", {"input": [1.5]}, 422, "input"),
    ("/v1/embeddings", {"input": [True]}, 422, "input"),
    ("/v1/embeddings", {"input": [-1]}, 422, "below 0"),
    ("/v1/embeddings", {"input": [400]}, 422, "embeddings for 0 to 399"),
    ("/v1/embeddings", {"input": [5] * 257}, 422, "context holds 256"),
    ("/v1/embeddings", {"input": [[5]] * 65}, 422, "64 are the most"),
    ("/v1/embeddings", {"input": [5], "use_activation": True}, 422, "must be false"),
    ("/get_reward", {"query": ["pa"], "prompts": ["p"], "labels": [""]}, 422, "query 0 is alone"),
    ("/get_reward", {"query": ["xa", "xb"], "prompts": ["p", "p"]}, 422, "does not begin with its prompt"),
    ("/get_reward", {"query": ["pa"], "prompts": ["p", "p"]}, 422, "of one length"),
    ("/get_reward", {"query": ["pa"], "prompts": ["p"], "labels": ['{"messages": 3}']}, 422, "label 0"),
    ("/nowhere", {}, 404, "Not Found"),
]


@pytest.mark.parametrize(("route", "body", "status", "sentence"), BAD)
def test_bad_requests_are_refused_in_words(route, body, status, sentence, url):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = requests.post(url + route, data=data, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert sentence in answer.json()["detail"]
    assert requests.get(url + "/ready").json()["ready"]


def test_large_bodies(url):
    """Refused by their length, and where none is stated as soon as they are too large."""
    assert requests.post(url + "/score", data=b"x" * (2**20 + 1)).status_code == 413
    parts = (b"x" * 2**16 for _ in range(160))
    with contextlib.suppress(requests.ConnectionError):  # closed while the rest was being sent
        assert requests.post(url + "/score", data=parts).status_code == 413
    assert requests.get(url + "/ready").json()["ready"]


def test_the_key(folder, monkeypatch):
    with app_in_thread(build_app(load_served(folder), KEY)) as url:
        for headers in (
            {},
            {"Authorization": "Bearer no"},
            {"Authorization": KEY},
            {"Authorization": f"Bearer {KEY}x"},
        ):
            answer = requests.get(url + "/settings", headers=headers)
            assert answer.status_code == 401 and KEY not in answer.text
        assert requests.get(url + "/health").status_code == 200
        monkeypatch.delenv("GPM_HF_API_KEY", raising=False)
        with pytest.raises(OSError, match="does not take requests without its key: it asks for one"):
            load_scorer(f"remote:{url}", retry_for=0)
        monkeypatch.setenv("GPM_HF_API_KEY", "another")
        with pytest.raises(OSError, match="is not its own") as error:
            load_scorer(f"remote:{url}", retry_for=0)
        assert "another" not in str(error.value)
        monkeypatch.setenv("GPM_HF_API_KEY", KEY)
        assert load_scorer(f"remote:{url}")(["x"], [["a", "b"]])[0].shape == (2, 2)


def test_what_waits_has_an_end(folder):
    limits = Limits(max_waiting_tokens=40)
    with app_in_thread(build_app(load_served(folder), limits=limits)) as url:

        def ask(number):
            return requests.post(url + "/v1/embeddings", json={"input": [5 + number] * 30}, timeout=60)

        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(ask, range(24)))
    codes = {answer.status_code for answer in answers}
    assert codes <= {200, 503} and 200 in codes
    assert all(answer.headers["Retry-After"] == "1" for answer in answers if answer.status_code == 503)
