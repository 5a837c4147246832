"""Records ../testdata/template.json: what Jinja makes of v1.jinja and v3.jinja for the conversations of graph/token's tests.

Needs jinja2 3.1. Run in this folder. The environment is the one in which transformers and vLLM render templates.
"""
import hashlib, json

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def environment(**more):
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, **more)
    env.filters["tojson"] = lambda x, **more: json.dumps(x, ensure_ascii=False, **more)
    env.globals["raise_exception"] = raise_exception
    return env


data = "../../../graph/token/testdata/"
source = {v: open(v + ".jinja", encoding="utf-8").read() for v in ("v1", "v3")}
template = {v: environment().from_string(text) for v, text in source.items()}
# lm-eval gives messages alone, and to it what is not there is an error.
strict = {v: environment(undefined=jinja2.StrictUndefined).from_string(text) for v, text in source.items()}

chats = [("v1", c["messages"], None) for c in json.load(open(data + "chats.json"))["chats"]]
chats += [(c["template"], c["messages"], c["tools"]) for c in json.load(open(data + "v3.json"))["chats"] if "error" not in c]
rendered = []
for version, messages, tools in chats:
    rendered.append(template[version].render(messages=messages, tools=tools, bos_token="<s>", eos_token="</s>"))
    if not tools:
        assert strict[version].render(messages=messages, add_generation_prompt=True) == rendered[-1]
sums = {v: hashlib.sha256(text.encode()).hexdigest() for v, text in source.items()}
with open("../testdata/template.json", "w", encoding="utf-8") as out:
    json.dump({"sha256": sums, "rendered": rendered}, out, ensure_ascii=False, indent=0)
    out.write("\n")
