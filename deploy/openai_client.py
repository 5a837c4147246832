"""Asks a server through the openai package, and checks what comes: openai_client.py BASE_URL."""

import sys

import openai
from openai import OpenAI

client = OpenAI(base_url=sys.argv[1], api_key="any", max_retries=0)
model = client.models.list().data[0].id
assert client.models.retrieve(model).id == model

whole = client.completions.create(model=model, prompt="In the beginning", max_tokens=12, temperature=0, logprobs=2)
assert whole.usage.completion_tokens == 12, whole
assert len(whole.choices[0].logprobs.tokens) == 12, whole
parts = client.completions.create(model=model, prompt="In the beginning", max_tokens=12, temperature=0, stream=True)
assert "".join(p.choices[0].text for p in parts) == whole.choices[0].text

say = [{"role": "user", "content": "Define patience."}]
stream = client.chat.completions.create(model=model, messages=say, max_tokens=8, seed=5, stream=True, stream_options={"include_usage": True})
text, usage = "", None
for part in stream:
    if part.choices:
        text += part.choices[0].delta.content or ""
    usage = part.usage or usage
again = client.chat.completions.create(model=model, messages=say, max_tokens=8, seed=5)
assert again.choices[0].message.content == text, (again, text)
assert usage.completion_tokens == again.usage.completion_tokens, (usage, again)

answer = client.chat.completions.create(model=model, messages=say, max_tokens=8, extra_body={"structured_outputs": {"choice": ["yes", "no"]}})
assert answer.choices[0].message.content in ("yes", "no"), answer

for wanted, ask in [
    (openai.NotFoundError, dict(model="nobody", prompt="a")),
    (openai.BadRequestError, dict(model=model, prompt="a", temperature=-1)),
    (openai.BadRequestError, dict(model=model, prompt="a", max_tokens=100000)),
]:
    try:
        client.completions.create(**ask)
    except wanted:
        continue
    raise AssertionError(f"{ask} is not refused with {wanted.__name__}")
print(f"openai {openai.__version__}: models, completions, streams, chat, constraints and errors are as they should be")
