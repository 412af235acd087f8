"""A scorer at a URL: what it sends, and what it says of servers that are not what they should be."""

import http.server
import json
import os
import signal
import sys
import threading
import time

import pytest
import torch

from gpm_hf.cli import main
from gpm_hf.endpoints import Endpoint
from gpm_hf.hub.sentence_transformers_export import export_sentence_transformers
from gpm_hf.identity import scorer_identity
from gpm_hf.scoring import load_scorer
from gpm_hf.serving import load_served, run, vllm_command
from gpm_hf.serving.app import build_app
from gpm_hf.serving.run import check_address
from gpm_hf.training import GPMReward
from tests.conftest import build_tokenizer
from tests.serving.groups import KINDS, assert_agree, groups_of_eight, save_model
from tests.serving.servers import app_in_thread


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model, its export, and the numbers that an engine gives for it."""
    root = tmp_path_factory.mktemp("remote")
    model = save_model(root / "gpm", **KINDS["gate"])
    export_sentence_transformers(str(root / "gpm"), root / "out")
    return root, model


class Engine:
    """An engine in vLLM's forms, which a test may spoil."""

    def __init__(self, folder, **spoilt):
        self.requests, self.spoilt = [], {"limit": 256, "root": str(folder / "out"), **spoilt}
        self.engine = build_engine(str(folder / "out"))
        self.lock = threading.Lock()

    def __enter__(self):
        engine = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, value, status=200):
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                one = {"id": "m", "root": engine.spoilt["root"], "max_model_len": engine.spoilt["limit"]}
                self.answer({"data": [one | {"owned_by": "vllm"}]})

            def do_POST(self):
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with engine.lock:
                    engine.requests.append(request)
                    outputs = engine.engine(request["input"])
                outputs = engine.spoilt.get("change", lambda outputs: outputs)(outputs)
                # Not in order: the index says whose they are.
                rows = [{"index": n, "embedding": row} for n, row in enumerate(outputs.tolist())][::-1]
                self.answer({"data": rows}, engine.spoilt.get("status", 200))

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        return self

    def __exit__(self, *exception):
        self.server.shutdown()
        self.server.server_close()


def build_engine(folder):
    from transformers import AutoModel

    from gpm_hf.scoring import stacked_heads

    backbone, weight = AutoModel.from_pretrained(folder).eval(), stacked_heads(load_served(folder).model)

    def outputs(rows):
        with torch.no_grad():
            return torch.stack([weight @ backbone(torch.tensor([row])).last_hidden_state[0, -1] for row in rows])

    return outputs


def test_an_engine_is_sent_token_ids_the_prompt_first(world):
    root, model = world
    prompts, groups = groups_of_eight(3)
    groups[0][5] = groups[0][2]
    with Engine(root) as engine:
        scorer = load_scorer(f"remote:{engine.url}")
        engine.requests.clear()
        assert_agree(scorer(prompts, groups), model.preference_scores(build_tokenizer(), prompts, groups))
        sent = [request["input"] for request in engine.requests]
        assert sorted(map(len, sent)) == [1, 1, 1, 7, 8, 8]
        assert all(request["use_activation"] is False for request in engine.requests)
        prompt_ids = build_tokenizer().apply_chat_template(
            [{"role": "user", "content": prompts[0]}], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        assert [prompt_ids] in sent
        assert len({tuple(row) for rows in sent for row in rows}) == sum(map(len, sent))


@pytest.mark.parametrize(
    ("spoilt", "sentence"),
    [
        ({"change": lambda outputs: outputs.half().float() * 1.01}, "gives other log-odds for the reference group"),
        ({"change": lambda outputs: torch.nn.functional.normalize(outputs, dim=-1)}, "`use_activation` must be false"),
        ({"change": lambda outputs: outputs[:, :4]}, "gives 4 numbers for a sequence, and gpm has 6"),
        ({"change": lambda outputs: outputs[:1]}, "for 4 sequences"),
        ({"change": lambda outputs: outputs * torch.nan}, "gives other log-odds"),
        ({"status": 500}, "answered 500"),
        ({"root": "/no/such/folder"}, "neither a folder here nor an exported model"),
    ],
)
def test_a_server_that_is_not_what_it_should_be(spoilt, sentence, world):
    with Engine(world[0], **spoilt) as engine, pytest.raises((ValueError, OSError), match=sentence):
        load_scorer(f"remote:{engine.url}", retry_for=0)


def test_nothing_is_cut(world):
    with Engine(world[0], limit=60) as engine:
        scorer = load_scorer(f"remote:{engine.url}")
        with pytest.raises(ValueError, match=r"more than the 60 that the model reads.*was started with so few"):
            scorer(["What?"], [["Short.", "long " * 60]])


def test_the_model_can_be_named(world):
    with Engine(world[0], root="/elsewhere") as engine:
        scorer = load_scorer(f"remote:{engine.url}#{world[0] / 'out'}", name="mine")
        assert scorer.name == "mine" and scorer(["x"], [["a", "b"]])[0].shape == (2, 2)
        assert scorer_identity(f"remote:{engine.url}#{world[0] / 'out'}").startswith("remote@sha256:")


def test_no_server(capsys):
    with pytest.raises(OSError, match=r"cannot be used: there is no connection to it.*gpm-hf serve MODEL"):
        load_scorer("remote:http://127.0.0.1:9", retry_for=0)
    for url, sentence in {
        "nowhere": "no address of a server",
        "ftp://x": "no address of a server",
        "http://me:secret@x": "Give the key of x in GPM_HF_API_KEY",
        "http://x?a=1": "more than a path",
    }.items():
        with pytest.raises(ValueError, match=sentence) as error:
            Endpoint(url)
        assert "secret" not in str(error.value)


def test_wherever_a_scorer_is_named(world, tmp_path, capsys):
    root, model = world
    prompts, groups = groups_of_eight(2)
    (tmp_path / "groups.jsonl").write_text(
        "".join(json.dumps({"prompt": p, "responses": g}) + "\n" for p, g in zip(prompts, groups))
    )
    pair = {"prompt": prompts[0], "chosen": groups[0][0], "rejected": groups[0][1]}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    expected = model.preference_scores(build_tokenizer(), prompts, groups)
    with app_in_thread(build_app(load_served(str(root / "out")))) as url:
        spec = f"remote:{url}"
        one = ["--prompt", prompts[0], "--responses", *groups[0][:3]]
        for command in (
            ["score", spec, "--input", str(tmp_path / "groups.jsonl"), "--output", str(tmp_path / "scored.jsonl")],
            ["rank", spec, *one, "--format", "json"],
            ["compare", spec, "--prompt", prompts[0], "--a", groups[0][0], "--b", groups[0][1]],
            ["inspect", spec, *one],
            ["eval", "pairs", spec, "--dataset", str(tmp_path / "pairs.jsonl"), "--store", str(tmp_path / "store")],
        ):
            assert main(command) == 0, capsys.readouterr().err
        assert main(["score", spec, "--precise", *one]) == 1
        reward = GPMReward(spec)
        rewards = reward([prompts[0]] * 8, groups[0])
        assert rewards == pytest.approx(expected[0].mean(-1).tolist(), abs=5e-4)
    rows = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    assert_agree([torch.tensor(row["scores"]) for row in rows], expected)
    assert list((tmp_path / "store").iterdir())


def test_the_command_of_vllm(world, capsys):
    command = vllm_command(world[0] / "out", port=8123, extra=["--max-model-len", "4096"])
    text = " ".join(command)
    for part in ("--runner pooling", "--dtype float32", "--host 127.0.0.1 --port 8123", "--max-model-len 4096"):
        assert part in text
    out = str(world[0] / "out")
    assert main(["serve", out, "--engine", "vllm", "--print-command"]) == 0
    assert f"--model {out}" in capsys.readouterr().out
    assert main(["serve", str(world[0] / "gpm"), "--engine", "vllm", "--print-command"]) == 1
    assert "gpm-hf export sentence-transformers" in capsys.readouterr().err


def test_who_starts_vllm_stops_it(world, monkeypatch, tmp_path):
    """A SIGTERM reaches the engine, here a stand-in, and is no failure; its own failure is one."""
    script = f"import pathlib, time; pathlib.Path({str(tmp_path / 'started')!r}).touch(); time.sleep(60)"
    monkeypatch.setattr(run, "vllm_command", lambda *_: [sys.executable, "-c", script])

    def stop():
        while not (tmp_path / "started").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=stop).start()
    start = time.monotonic()
    assert run.serve_vllm(str(world[0] / "out")) == 0 and time.monotonic() - start < 50
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.setattr(run, "vllm_command", lambda *_: [sys.executable, "-c", "raise SystemExit(3)"])
    assert run.serve_vllm(str(world[0] / "out")) == 3


def test_other_machines_need_a_key(monkeypatch):
    monkeypatch.delenv("GPM_HF_API_KEY", raising=False)
    assert (
        check_address("127.0.0.1", False) is check_address("localhost", False) is check_address("::1", False) is None
    )
    with pytest.raises(ValueError, match="can be reached from other machines"):
        check_address("0.0.0.0", False)
    assert check_address("0.0.0.0", True) is None
    monkeypatch.setenv("GPM_HF_API_KEY", "k")
    assert check_address("0.0.0.0", False) == "k"
