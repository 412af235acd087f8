#!/usr/bin/env bash
# transformers 5.23.0 (torch 2.13.0, jinja2 of that install, Python 3.11).
# `apply_chat_template` hands further keyword arguments to the template as variables, and templates that write today's
# date (Llama 3.2, gpt-oss) call the variable `strftime_now`. A function given under that name, to fix the date, does
# not reach the template: a text stands in its place, and rendering ends in a TypeError about a str that is not
# callable. A plain text as variable arrives as it is.
# Seen: TypeError: 'str' object is not callable.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet torch==2.13.0
env/bin/pip install --quiet transformers==5.23.0 jinja2
cat > run.py <<'PY'
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
chat = [{"role": "user", "content": "hello"}]
tokenizer.chat_template = "{{ day }}"
assert tokenizer.apply_chat_template(chat, tokenize=False, day="Monday") == "Monday"
tokenizer.chat_template = "{{ strftime_now('%Y') }}"
assert len(tokenizer.apply_chat_template(chat, tokenize=False)) == 4
try:
    text = tokenizer.apply_chat_template(chat, tokenize=False, strftime_now=lambda form: "1969")
except TypeError as error:
    print(f"TypeError: {error}")
    assert "'str' object is not callable" in str(error)
else:
    raise SystemExit(f"changed: the template wrote {text!r}")
PY
HF_HUB_OFFLINE=1 env/bin/python run.py
echo "As described: a function does not reach the template."
