#!/usr/bin/env bash
# All that needs a GPU, on one of them, in under ten minutes: correctness (bfloat16, attention backends, packed rows,
# FSDP2, ZeRO-3, QLoRA) and every benchmark. Stops at the first failure with a status that is not 0.
#
#   pip install -e ".[dev,deepspeed,quantization]"
#   bash benchmarks/gpu.sh            # results in $OUT, by default benchmarks/out
#   bash benchmarks/gpu.sh --cpu      # what can be run without a GPU, on tiny models: does the script work?
#
# PYTHON names the interpreter; MODEL a language model in place of SmolLM2-135M-Instruct.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python}
OUT=${OUT:-benchmarks/out}
DEVICE=cuda
case "${1:-}" in
  "") ;;
  --cpu) DEVICE=cpu ;;
  *) echo "Unknown option $1: there is only --cpu." >&2; exit 2 ;;
esac
MODEL=${MODEL:-}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

# step NAME COMMAND...: its output goes to the screen and to NAME.log.
step() {
  local name=$1 start=$SECONDS
  shift
  echo "== $name: $*"
  if ! "$@" 2>&1 | tee "$OUT/$name.log"; then
    echo "FAILED: $name, after $((SECONDS - start)) s; see $OUT/$name.log" >&2
    exit 1
  fi
  echo "== $name: $((SECONDS - start)) s"
}

if [ "$DEVICE" = cpu ]; then
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} ACCELERATE_USE_CPU=true
  small=(--model "${MODEL:-tiny}" --device cpu)
  step scores "$PYTHON" benchmarks/gpu_checks.py scores "${small[@]}" --output "$OUT/scores.json"
  step plain "$PYTHON" benchmarks/gpu_checks.py train "${small[@]}" --output "$OUT/plain.json"
  step qlora "$PYTHON" benchmarks/gpu_checks.py train "${small[@]}" --qlora --output "$OUT/qlora.json"
  echo "== Not on a CPU: FSDP2 and ZeRO-3 (the slow tests run these), flash and flex attention."
  step scoring "$PYTHON" benchmarks/scoring.py --quick --output "$OUT/scoring.json"
  step reward_step "$PYTHON" benchmarks/reward_step.py --model tiny --device cpu --lengths 64/16 --rounds 2 \
    --output "$OUT/reward_step.json"
  step gpo_step "$PYTHON" benchmarks/gpo_step.py --hidden_size 32 --layers 2 --prompts 2 --completion_tokens 4 \
    --rounds 2 --out "$OUT/gpo_step.json"
  echo "All of it passed in $SECONDS s. Results: $OUT"
  exit
fi

step machine "$PYTHON" -c '
import torch
assert torch.cuda.is_available(), "PyTorch finds no GPU. `bash benchmarks/gpu.sh --cpu` runs what a CPU can."
import bitsandbytes, deepspeed
print(torch.cuda.get_device_name(), "torch", torch.__version__, "deepspeed", deepspeed.__version__)'

model=(${MODEL:+--model "$MODEL"})
attention=(flex_attention)
if "$PYTHON" -c "import flash_attn"; then attention+=(flash_attention_2); fi
sharded() {
  step "$1" "$PYTHON" -m accelerate.commands.launch --config_file "trainers/configs/$1.yaml" --num_processes 1 \
    benchmarks/gpu_checks.py train "${model[@]}" --sharded "$1" --like "$OUT/plain.json" --output "$OUT/$1.json"
}
step scores "$PYTHON" benchmarks/gpu_checks.py scores "${model[@]}" --output "$OUT/scores.json"
step plain "$PYTHON" benchmarks/gpu_checks.py train "${model[@]}" --output "$OUT/plain.json"
sharded fsdp2
sharded zero3
step qlora "$PYTHON" benchmarks/gpu_checks.py train "${model[@]}" --qlora --output "$OUT/qlora.json"
step scoring "$PYTHON" benchmarks/scoring.py "${model[@]}" --device cuda --dtype bfloat16 --rounds 10 \
  --pair-encodes 16 --batch-size 16 --output "$OUT/scoring.json"
step reward_step "$PYTHON" benchmarks/reward_step.py "${model[@]}" --device cuda --dtype bfloat16 --pairs 16 \
  --rounds 10 --attention "${attention[@]}" --output "$OUT/reward_step.json"
step gpo_step "$PYTHON" benchmarks/gpo_step.py --prompts 16 --prompt_words 200 --rounds 5 --out "$OUT/gpo_step.json"
echo "All of it passed in $SECONDS s. Results: $OUT"
