"""Writes peft/ beside this file: adapters of every linear layer of the recording c_odd as PEFT saves them,
and the logits that PEFT and transformers give with them.

    python make.py FOLDER-OF-THE-CHECKPOINT

Made with peft 0.21.2, transformers 5.24.0, torch 2.15.0 on a CPU. transformers 5 holds experts fused, so
the folder is saved from a tree of modules that has transformers 4's names; PEFT itself brings it to the
fused form when it is loaded.
"""
import os, sys
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import nn
from transformers import MixtralForCausalLM

checkpoint = sys.argv[1]
out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peft")
model = MixtralForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
c = model.config


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs, bias=False)


def module(**children):
    m = nn.Module()
    for name, child in children.items():
        m.add_module(name, child)
    return m


def layer():
    d, a = c.hidden_size, c.head_dim
    expert = lambda: module(w1=linear(d, c.intermediate_size), w2=linear(c.intermediate_size, d), w3=linear(d, c.intermediate_size))
    return module(
        self_attn=module(q_proj=linear(d, c.num_attention_heads * a), k_proj=linear(d, c.num_key_value_heads * a),
                         v_proj=linear(d, c.num_key_value_heads * a), o_proj=linear(c.num_attention_heads * a, d)),
        block_sparse_moe=module(gate=linear(d, c.num_local_experts), experts=nn.ModuleList(expert() for _ in range(c.num_local_experts))))


torch.manual_seed(0)
tree = module(model=module(layers=nn.ModuleList(layer() for _ in range(c.num_hidden_layers))))
targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate", "w1", "w2", "w3"]
tuned = get_peft_model(tree, LoraConfig(r=4, lora_alpha=10, target_modules=targets, task_type=None))
for name, p in tuned.named_parameters():
    if "lora_B" in name:
        nn.init.normal_(p, std=0.2)
tuned.peft_config["default"].task_type = "CAUSAL_LM"
tuned.save_pretrained(out)
os.remove(os.path.join(out, "README.md"))

ids = torch.tensor([[1, 17, 198, 4, 4, 90, 33, 120, 7, 64, 2, 55]])
loaded = PeftModel.from_pretrained(model, out).eval()
with torch.no_grad():
    save_file({"input_ids": ids[0].contiguous(), "logits": loaded(input_ids=ids).logits[0].contiguous()}, os.path.join(out, "..", "logits.safetensors"))
