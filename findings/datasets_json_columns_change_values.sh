#!/usr/bin/env bash
# datasets 5.2.0 (pandas and pyarrow as installed with it, Python 3.11).
# Where objects of a JSON Lines file have differing keys (the arguments of tool calls in chat data, as a rule), the
# column gets the feature `Json`. Its values are not what stands in the file: 0.3 is read as 0.30000000000000004 (50 of
# the 10,000 numbers with two decimals below 100), and a text that happens to be JSON loses its quotation marks: "1969"
# is the number 1969, "true" the truth value. A chat template renders other tool calls than the file holds.
# Seen: {'t': 0.30000000000000004}; 50; [1969, True, 'plain'].
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet datasets==5.2.0
cat > run.py <<'PY'
import json

from datasets import Dataset, Features, Json, load_dataset

calls = [{"t": 0.3}, {"unit": "C"}]
with open("chats.jsonl", "w") as file:
    for arguments in calls:
        call = {"function": {"name": "weather", "arguments": arguments}}
        file.write(json.dumps({"messages": [{"role": "assistant", "tool_calls": [call]}]}) + "\n")
rows = load_dataset("json", data_files="chats.jsonl", split="train")
read = rows[0]["messages"][0]["tool_calls"][0]["function"]["arguments"]
print(read)
assert read == {"t": 0.30000000000000004} != calls[0], "numbers are kept now"

numbers = [number / 100 for number in range(10_000)]
column = Dataset.from_dict({"value": [{"t": number} for number in numbers]}, features=Features({"value": Json()}))
changed = sum(row["value"]["t"] != number for row, number in zip(column, numbers))
print(changed)
assert changed == 50

texts = ["1969", "true", "plain"]
column = Dataset.from_dict({"value": texts}, features=Features({"value": Json()}))
read = [row["value"] for row in column]
print(read)
assert read == [1969, True, "plain"], "texts are kept now"
PY
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" env/bin/python run.py
echo "As described: Json columns change numbers and texts."
