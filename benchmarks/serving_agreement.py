"""
Log-odds of a preference model by every engine that serves it, against `gpm-hf score` in this process: the small server
and vLLM by `remote:`, sentence-transformers by the settings of the export.

    python benchmarks/serving_agreement.py runs/demo/gpm                    # where vLLM is installed it is one of them
    python benchmarks/serving_agreement.py runs/demo/gpm --dtype bfloat16

Eight prompts of the generator with eight responses each: a ring of four, and that of another prompt on the topic. In
another type than the model's the export is compared with the model as it is.
"""

import argparse
import tempfile
from collections.abc import Iterator

import torch
from serving import server

from gpm_hf.batch_tokens import default_batch_tokens
from gpm_hf.data.generator import TOPICS, generate_rings
from gpm_hf.hub.sentence_transformers_export import export_sentence_transformers
from gpm_hf.modeling import condorcet_winner, encode_group, has_cycle
from gpm_hf.scoring import ServedHeads, load_preference_model, load_scorer, load_tokenizer
from gpm_hf.serving.vllm_command import vllm_is_installed
from gpm_hf.tables import markdown_table

ENGINES = ("app", "sentence-transformers", "vllm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a preference model")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, help="default: all that are installed")
    parser.add_argument("--dtype", default="float32", help="of the export")
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--vllm-option", action="append", default=[], help="as of `gpm-hf serve`")
    options = parser.parse_args()

    prompts, groups = groups_of_eight(options.groups)
    model, tokenizer = load_preference_model(options.model), load_tokenizer(options.model)
    tokens = {"max_batch_tokens": default_batch_tokens(model.device.type)}
    expected = model.preference_scores(tokenizer, prompts, groups, **tokens)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        export_sentence_transformers(options.model, f"{folder}/export", options.dtype)
        for engine in options.engines or ENGINES[: 3 if vllm_is_installed() else 2]:
            if engine == "sentence-transformers":
                found = list(by_sentence_transformers(f"{folder}/export", prompts, groups))
            else:
                extra = [f"--vllm-option={one}" for one in options.vllm_option] if engine == "vllm" else []
                with server(f"{folder}/export", engine, *extra) as (url, _):
                    found = load_scorer(f"remote:{url}", retry_for=600)(prompts, groups)
            rows.append([engine, options.dtype, *compared(found, expected)])
            print(rows[-1], flush=True)
    header = ["engine", "dtype", "largest error of a log-odds", "largest log-odds", "signs", "winners", "cycles"]
    print(markdown_table(header, rows))


def groups_of_eight(count: int) -> tuple[list[str], list[list[str]]]:
    rows = generate_rings(2 * count, ring_size=4, seed=11, topics=list(TOPICS)[:count])  # two on each topic
    rows.sort(key=lambda row: row["topic"])
    pairs = list(zip(rows[::2], rows[1::2]))
    return [one["prompt"] for one, _ in pairs], [one["responses"] + other["responses"] for one, other in pairs]


def by_sentence_transformers(folder: str, prompts: list, groups: list) -> Iterator[torch.Tensor]:
    from sentence_transformers import SentenceTransformer

    settings, tokenizer = ServedHeads.from_folder(folder), load_tokenizer(folder)
    engine = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": settings.dtype})
    for prompt, responses in zip(prompts, groups):
        group = encode_group(tokenizer, prompt, responses, must_differ=False, **settings.encoding_options)
        rows = [*group.sequences, *([group.prompt_ids] if settings.scale_gate else [])]
        length = max(map(len, rows))
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        with torch.no_grad():
            outputs = engine({"input_ids": ids, "attention_mask": mask})["sentence_embedding"].float()
        yield settings.scores(outputs[: len(responses)], outputs[-1] if settings.scale_gate else None)


def compared(found: list[torch.Tensor], expected: list[torch.Tensor]) -> list[str]:
    pairs = list(zip(found, expected, strict=True))
    above = [torch.ones_like(one).triu(1).bool() for one in expected]

    def same(rule) -> str:
        return f"{sum(bool(torch.equal(rule(one), rule(other))) for one, other in pairs)} of {len(pairs)}"

    signs = sum(int((one[up].sign() == other[up].sign()).sum()) for (one, other), up in zip(pairs, above))
    return [
        f"{max(float((one - other).abs().max()) for one, other in pairs):.1e}",
        f"{max(float(other.abs().max()) for other in expected):.2f}",
        f"{signs} of {sum(int(up.sum()) for up in above)}",
        same(condorcet_winner),
        same(has_cycle),
    ]


if __name__ == "__main__":
    main()
