"""
What it costs to look whether a policy's samples are its own, against the generation before which that is done, in
this process's CPU seconds. Both in turn; of the looks the median.

    OMP_NUM_THREADS=1 python benchmarks/sampling_check.py            # SmolLM2-135M, float32
    python benchmarks/sampling_check.py --rows 2 --new-tokens 8      # in seconds: does it run?
"""

import argparse
import statistics
import time

import torch
from transformers import GenerationConfig

from gpm_hf.generation.sampling_check import find_sampling_road
from gpm_hf.recipes.heads import find_base_model
from gpm_hf.scoring import load_gguf_language_model, load_tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=16, help="completions sampled at once")
    parser.add_argument("--new-tokens", type=int, default=256, help="of each")
    parser.add_argument("--looks", type=int, default=5)
    options = parser.parse_args()
    base = find_base_model()
    model, tokenizer = load_gguf_language_model(base, dtype="float32").eval(), load_tokenizer(base)
    length = {"max_new_tokens": options.new_tokens, "min_new_tokens": options.new_tokens}
    settings = GenerationConfig(do_sample=True, pad_token_id=tokenizer.eos_token_id, **length)
    prompts = tokenizer(["What is the sea like in winter?"] * options.rows, return_tensors="pt")

    def seconds(work) -> float:
        begin = time.process_time()
        work()
        return time.process_time() - begin

    looks = [seconds(lambda: find_sampling_road(model, tokenizer, settings)) for _ in range(options.looks)]
    with torch.no_grad():
        generation = seconds(lambda: model.generate(**prompts, generation_config=settings))
    looks += [seconds(lambda: find_sampling_road(model, tokenizer, settings)) for _ in range(options.looks)]
    look = statistics.median(looks)
    size = f"{options.rows} x {options.new_tokens} tokens"
    print(f"{size}: {generation:.2f} s; a look {look:.3f} s ({look / generation:.2%})")


if __name__ == "__main__":
    main()
