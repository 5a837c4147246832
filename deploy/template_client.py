"""Renders the chat template of /tokenizer_info as lm-eval does, and holds its ids to those of the server: template_client.py URL."""

import sys

import requests
from lm_eval.utils import RemoteTokenizer

url = sys.argv[1]
tokenizer = RemoteTokenizer(url)
for chat in [
    [{"role": "user", "content": "Define patience."}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Who are you?"}],
    [{"role": "user", "content": "one"}, {"role": "user", "content": [{"type": "text", "text": "two"}, {"type": "text", "text": "three"}]}],
]:
    text = tokenizer.apply_chat_template(chat)
    want = requests.post(url + "/tokenize", json={"messages": chat}).json()["tokens"]
    assert tokenizer.encode(text) == want, (text, want)
assert [tokenizer.bos_token_id, tokenizer.eos_token_id] == [1, 2]
print("the template writes what the server writes")
