"""
Every command that stores or resumes, with the model work replaced by a number that depends on all that the real one
may depend on, as it is when it is asked: what is on the disk, the options, the versions. A result of anything earlier
is then another number.
"""

import hashlib
import json
import math
import os
from contextlib import contextmanager
from types import SimpleNamespace

import torch

from gpm_hf.cli import main
from gpm_hf.identity import software
from tests.evaluation.scorers import FunctionScorer

CONFIG = {"model_type": "llama", "prompt_format": "clean", "max_position_embeddings": 64, "dtype": "float32"}
MODEL_FILES = {
    "model.safetensors": "weights",
    "config.json": json.dumps(CONFIG),
    "vocab.json": '{"a": 0}',
    "merges.txt": "a b",
    "chat_template.jinja": "{{ messages }}",
}
RESPONSES = ["short", "a longer one", "the longest of all of them"]


class World:
    """Models and data on a disk, and options."""

    def __init__(self, root, adapter, data_in_folder):
        self.root, self.dtype = root, "float32"
        self.base = root / "models" / "base"
        self.model = root / "models" / ("adapter" if adapter else "base")
        for name, text in MODEL_FILES.items():
            self.write(self.base / name, text)
        if adapter:
            self.write(self.model / "adapter_model.safetensors", "adapter")
            self.write(self.model / "adapter_config.json", json.dumps({"base_model_name_or_path": str(self.base)}))
        self.other = root / "other"
        self.write(self.other / "model.safetensors", "of another role")
        self.in_folder = data_in_folder
        for name, rows in _rows().items():
            self.write_rows(name, rows)

    def data(self, name):
        path = self.root / "data" / name
        return str(path if self.in_folder else path / "train.jsonl")

    def write_rows(self, name, rows):
        self.write(self.root / "data" / name / "train.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def write(self, path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def change(self, path, old, new):
        """In place, to the same size and time of change, where only the content tells."""
        before, text = path.stat(), path.read_text()
        assert old in text and len(old) == len(new)
        with open(path, "r+") as file:
            file.write(text.replace(old, new, 1))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def number(self, *asked):
        """Between 0 and 1, of all that there is now and of what is asked."""
        files = sorted(path for path in (self.root / "models").rglob("*") if path.is_file())
        told = [[path.name, path.read_text()] for path in files]
        told += [(self.other / "model.safetensors").read_text(), self.dtype, software.version("transformers"), asked]
        return int(hashlib.sha256(json.dumps(told).encode()).hexdigest()[:8], 16) / 16**8

    def scores(self, prompt, responses):
        values = torch.tensor([self.number(prompt, response) for response in responses], dtype=torch.float64)
        return values[:, None] - values[None, :]


def _rows():
    prompts = [f"Question {number}?" for number in range(1, 4)]
    groups = [{"prompt": prompt, "responses": [f"{text} {prompt}" for text in RESPONSES]} for prompt in prompts]
    pairs = [
        {"prompt": row["prompt"], "chosen": row["responses"][0], "rejected": row["responses"][1], "subset": "hep-go"}
        for row in groups
    ]
    several = [
        {"id": str(number), "subset": "Math", "num_correct": 1, "prompt": row["prompt"]}
        | {"chosen": row["responses"][:1], "rejected": row["responses"][1:]}
        for number, row in enumerate(groups)
    ]
    rings = [{**row, "ring": True} for row in groups]
    answers = [{"instruction": row["prompt"], "output": row["responses"][0], "generator": "x"} for row in groups]
    others = [{**row, "output": row["output"] + " other", "generator": "y"} for row in answers]
    found = {"groups": groups, "rings": rings, "pairs": pairs, "several": several, "x": answers, "y": others}
    return found | {"prompts": [{"prompt": prompt} for prompt in prompts]}


class Killed(BaseException):
    """What a kill is to a process that is also the test's."""


class Runner:
    """Runs a command; after `limit` pieces of work it is killed."""

    def __init__(self, world, monkeypatch, capsys):
        self.world, self.monkeypatch, self.capsys = world, monkeypatch, capsys
        self.limit, self.done = math.inf, 0

    def work(self):
        if self.done == self.limit:
            raise Killed
        self.done += 1

    @contextmanager
    def killed_after(self, limit):
        self.limit, self.done = limit, 0
        try:
            yield
        finally:
            self.limit, self.done = math.inf, 0

    def ask(self, *arguments):
        """What the command printed; `Refused` with its sentence where it ended in an error."""
        self.capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = self.capsys.readouterr()
        if code:
            raise Refused(captured.err)
        return captured.out

    # --- in place of models -----------------------------------------------------------------------------------------

    def scoring_model(self, options):
        def preference_scores(tokenizer, prompts, groups, **batch):
            self.work()
            return [self.world.scores(prompt, group) for prompt, group in zip(prompts, groups)]

        dtype = vars(torch)[self.world.dtype]
        config, device = SimpleNamespace(template_date="2024-07-26"), torch.device("cpu")
        return SimpleNamespace(
            config=config, dtype=dtype, device=device, rounding_bound=1.0, preference_scores=preference_scores
        ), None

    def scorer(self, spec, name="scorer", **options):
        def log_odds(prompt, a, b):
            return self.world.number(prompt, a) - self.world.number(prompt, b)

        runner = self

        class Counting(FunctionScorer):
            def __call__(self, prompts, groups):
                runner.work()
                return super().__call__(prompts, groups)

        return Counting(log_odds, name)

    def sampler(self, policy, sampling, *arguments, **options):
        def sample(prompts, seed):
            self.work()
            count = sampling.num_generations
            return [[str(self.world.number(prompt, seed, place)) for place in range(count)] for prompt in prompts]

        def groups(prompts, seed):
            return [
                SimpleNamespace(columns=lambda texts=texts: {"responses": texts}) for texts in sample(prompts, seed)
            ]

        class Sampler:
            check = staticmethod(lambda prompts, source: None)
            sample = staticmethod(groups)

            def __call__(self, prompts, seed):
                return sample(prompts, seed)

        return Sampler()

    # --- the commands -----------------------------------------------------------------------------------------------

    def score(self, output, command="score"):
        self.monkeypatch.setattr("gpm_hf.cli.scoring.load_model", self.scoring_model)
        options = ["--input", self.world.data("groups"), "--output", output / "out.jsonl", "--chunk-size", "1"]
        self.ask(command, self.world.model, *options, "--dtype", self.world.dtype)
        return (output / "out.jsonl").read_text()

    def rank(self, output):
        return self.score(output, "rank")

    def answer(self, output):
        self.monkeypatch.setattr("gpm_hf.recipes.policies.load_sampler", self.sampler)
        options = ["--prompts", self.world.data("prompts"), "--output", output / "out.json", "--shard-size", "1"]
        self.ask("answer", self.world.model, *options, "--dtype", self.world.dtype, "--device", "cpu")
        return (output / "out.json").read_text()

    def best_of_n(self, output, as_policy=True):
        self.monkeypatch.setattr("gpm_hf.recipes.policies.load_sampler", self.sampler)
        self.monkeypatch.setattr("gpm_hf.recipes.policies.load_placed_scorer", self.scorer)
        roles = [self.world.model, self.world.other]
        policy, scorer = roles if as_policy else reversed(roles)
        options = ["--input", self.world.data("prompts"), "--output", output / "out.jsonl", "--shard-size", "1"]
        options += ["--scorer", f"gpm:{scorer}", "--n", "2", "--device", "cpu"]
        self.ask("best-of-n", policy, *options, "--dtype", self.world.dtype)
        return (output / "out.jsonl").read_text()

    def best_of_n_scorer(self, output):
        return self.best_of_n(output, as_policy=False)

    def evaluation(self, output, kind, *options):
        self.monkeypatch.setattr("gpm_hf.scoring.load_scorer", self.scorer)
        options = [*options, "--store", output / "store", "--dtype", self.world.dtype, "--chunk-size", "1"]
        return self.ask("eval", kind, *options, "--format", "json")

    def eval_pairs(self, output):
        return self.evaluation(output, "pairs", f"gpm:{self.world.model}", "--dataset", self.world.data("pairs"))

    def eval_rewardbench(self, output):
        return self.evaluation(output, "rewardbench", f"gpm:{self.world.model}", "--dataset", self.world.data("pairs"))

    def eval_rewardbench2(self, output):
        data = self.world.data("several")
        return self.evaluation(output, "rewardbench2", f"gpm:{self.world.model}", "--dataset", data)

    def eval_win_rates(self, output):
        files = [f"{name}={self.world.data(name)}" for name in ("x", "y")]
        return self.evaluation(output, "win-rates", "--scorer", f"gpm:{self.world.model}", *files)

    def _grid(self, module, output, *options):
        def cell(*arguments):
            self.work()
            (asked,) = [one for one in arguments if isinstance(one, dict)]
            return {"prompts": [], "number": self.world.number(asked, _data_of(self.world, asked))}

        def systematic(*arguments):
            found = cell(*arguments)
            return SimpleNamespace(prompts=found["prompts"], skew_error=found["number"])

        recipe = f"gpm_hf.recipes.{module}"
        for name, fake in (("_systematic", systematic), ("_real", systematic), ("_run", cell)):
            self.monkeypatch.setattr(f"{recipe}.{name}", fake, raising=False)
        for name in ("_write_csv", "_plot"):
            self.monkeypatch.setattr(f"{recipe}.{name}", lambda *arguments: None, raising=False)
        self.monkeypatch.setattr(f"{recipe}._table", lambda rows: json.dumps([row["result"] for row in rows]))
        command = ["table1"] if module == "table1" else ["eval", "ablation"]
        self.ask(*command, "--output", output, "--base", self.world.model, "--dimensions", "2", *options)
        return (output / f"{module}.md").read_text()

    def table1(self, output):
        return self._grid("table1", output, "--seeds", "0", "--rings", self.world.data("rings"))

    def ablation(self, output):
        return self._grid("ablation", output)

    def iterate(self, output):
        """Whether a job may go on: its samples, scores and first policy are there."""
        from gpm_hf.recipes.iterate_config import IterateConfig
        from gpm_hf.recipes.iterate_settings import check_settings
        from gpm_hf.training import OfflineGPOConfig

        config = IterateConfig(
            str(self.world.model), f"gpm:{self.world.other}", self.world.data("prompts"), output=str(output / "job")
        )
        options = {"model_init_kwargs": {"dtype": self.world.dtype}, "use_cpu": True, "bf16": False}
        check_settings(config, OfflineGPOConfig(**options))
        (output / "job" / "iteration-1" / "policy").mkdir(parents=True, exist_ok=True)
        self.work()
        return "goes on"

    def card(self, output):
        """The result that a card states, measured on the model of then."""
        from gpm_hf.hub.results import load_results, save_result

        path = self.world.model / "results" / "pairs.json"
        if not path.exists():
            save_result(path, self.world.model, "pairs", "data", {"accuracy": 0.5})
        self.work()
        return json.dumps(load_results(self.world.model))


def _data_of(world, cell):
    return (world.root / "data" / "rings" / "train.jsonl").read_text() if "rings" in cell else ""


class Refused(Exception):
    """A command ended with a sentence."""
