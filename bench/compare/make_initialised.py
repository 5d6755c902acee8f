"""Writes a model with the weights that transformers starts training from: every matrix and the
embedding table normal with a standard deviation of 0.02, norms 1. Shape and tokenizer are those of
another folder, such as one of `tessera model make`. Needs torch and safetensors.

    python3 bench/compare/make_initialised.py SHAPE_FOLDER NEW_FOLDER
"""

import json
import os
import shutil
import sys

import torch
from safetensors.torch import save_file


def main():
    source, target = sys.argv[1:3]
    with open(os.path.join(source, "config.json"), encoding="utf-8") as file:
        c = json.load(file)
    hidden, head, wide = c["hidden_size"], c["head_dim"], c["intermediate_size"]
    q, kv = c["num_attention_heads"] * head, c["num_key_value_heads"] * head
    shapes = {"embed_tokens": (c["vocab_size"], hidden), "norm": (hidden,)}
    for i in range(c["num_hidden_layers"]):
        layer = {"input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
                 "self_attn.q_norm": (head,), "self_attn.k_norm": (head,),
                 "self_attn.q_proj": (q, hidden), "self_attn.k_proj": (kv, hidden),
                 "self_attn.v_proj": (kv, hidden), "self_attn.o_proj": (hidden, q),
                 "mlp.gate_proj": (wide, hidden), "mlp.up_proj": (wide, hidden),
                 "mlp.down_proj": (hidden, wide)}
        shapes.update({f"layers.{i}.{name}": shape for name, shape in layer.items()})
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(1)
    tensors = {}
    for name, shape in shapes.items():
        values = torch.ones(shape) if len(shape) == 1 else torch.randn(shape, device=device) * 0.02
        tensors[f"{name}.weight"] = values.to(torch.bfloat16).cpu()
    os.makedirs(target)
    save_file(tensors, os.path.join(target, "model.safetensors"))
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(os.path.join(source, name), target)


if __name__ == "__main__":
    main()
