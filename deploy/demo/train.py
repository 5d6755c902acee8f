#!/usr/bin/env python3
"""Trains the demo model: a small embedder of the Qwen3 architecture, from nothing, on one GPU.

usage: train.py CORPUS.jsonl.gz OUT_DIR MINUTES      (PyTorch, transformers, tokenizers, safetensors)

Contrastive with in-batch negatives, at all Matryoshka widths at once. Writes a Hugging Face folder in
bf16, eval.json (recall of held-out descriptions) and golden.json (texts, ids and fp32 vectors).
"""

import collections
import gzip
import json
import math
import os
import pathlib
import queue
import random
import sys
import threading
import time

import numpy as np
import torch
import torch.nn.functional as F
from pairs import MAX_TOKENS, QUERY_PROMPT, Pairs
from safetensors.torch import save_file
from tokenizer_training import END_OF_TEXT, train_tokenizer
from transformers import Qwen3Config, Qwen3Model

WIDTHS = (256, 128, 64, 32)
BATCH = 4096
TEMPERATURE = 0.04
LEARNING_RATE = 2e-3
WARM_UP_STEPS = 150
SHAPE = dict(hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=4,
             num_key_value_heads=2, head_dim=128, max_position_embeddings=8192, rms_norm_eps=1e-6,
             tie_word_embeddings=True, attention_dropout=0.0)
EVAL_LANGUAGES = ("de", "fr", "it", "ja", "ru", "zh_CN", "es", "ko", "pl", "uk")
EXAMPLES = ("play music in the terminal", "edit photos", "server that sends email",
            "password manager", "learn to type faster", "Bilder bearbeiten",
            "logiciel de comptabilité", "天文软件", "draw molecules",
            "compress files with high ratio")


def last_hidden(model, ids, lengths):
    """Causal attention and padding on the right: the last real token does not see the padding."""
    hidden = model(input_ids=ids, use_cache=False).last_hidden_state
    return hidden[torch.arange(len(lengths), device=ids.device), lengths - 1].float()


def embed_side(model, ids, lengths):
    """One side of a batch, in four groups of like length to save padding."""
    order = torch.argsort(lengths)
    outputs = []
    for group in order.chunk(4):
        width = min(MAX_TOKENS, (int(lengths[group].max()) + 15) // 16 * 16)
        outputs.append(last_hidden(model, ids[group, :width], lengths[group]))
    return torch.cat(outputs)[torch.argsort(order)]


def embed_all(model, sequences, end, group=2048):
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    out = torch.empty(len(sequences), SHAPE["hidden_size"], device="cuda")
    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
        for first in range(0, len(order), group):
            rows = order[first:first + group]
            width = (max(len(sequences[i]) for i in rows) + 15) // 16 * 16
            ids = torch.full((len(rows), width), end)
            for at, i in enumerate(rows):
                ids[at, :len(sequences[i])] = torch.tensor(sequences[i])
            lengths = torch.tensor([len(sequences[i]) for i in rows]).cuda()
            out[torch.tensor(rows, device="cuda")] = last_hidden(model, ids.cuda(), lengths)
    return out


def start_feeders(keys, by_key, end_time):
    """Threads that draw pairs ahead of the GPU."""
    pairs = queue.Queue(16)

    def feed():
        while time.time() < end_time:
            drawn = np.array([Pairs.draw(by_key[key]) for key in random.sample(keys, BATCH)])
            pairs.put(torch.from_numpy(drawn).pin_memory())

    for _ in range(3):
        threading.Thread(target=feed, daemon=True).start()
    return pairs


def batch_loss(model, data, drawn):
    x, x_lengths = data.augmented(drawn[:, 0], 0.5, 0.0)
    y, y_lengths = data.augmented(drawn[:, 1], 0.2, 0.4)
    same = drawn[:, 0] == drawn[:, 1]
    if same.any():
        crop, crop_lengths = data.augmented(drawn[:, 0], 0.3, 1.0)
        x = torch.where(same[:, None], crop, x)
        x_lengths = torch.where(same, crop_lengths, x_lengths)
    with torch.autocast("cuda", torch.bfloat16):
        left, right = embed_side(model, x, x_lengths), embed_side(model, y, y_lengths)
    labels = torch.arange(len(drawn), device="cuda")
    loss = 0
    for width in WIDTHS:
        scores = F.normalize(left[:, :width], dim=-1) @ F.normalize(right[:, :width], dim=-1).T
        scores = scores / TEMPERATURE
        loss = loss + (F.cross_entropy(scores, labels) + F.cross_entropy(scores.T, labels)) / 2
    return loss


def train(model, data, keys, by_key, end_time):
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([dict(params=matrices, weight_decay=0.05),
                                   dict(params=vectors, weight_decay=0.0)],
                                  lr=LEARNING_RATE, betas=(0.9, 0.98), fused=True)
    pairs = start_feeders(keys, by_key, end_time)
    start, step = time.time(), 0
    while time.time() < end_time:
        try:
            drawn = pairs.get(timeout=20).cuda(non_blocking=True)
        except queue.Empty:
            break
        done = min(1, (time.time() - start) / (end_time - start))
        rate = min(1, (step + 1) / WARM_UP_STEPS) * (0.5 * (1 + math.cos(math.pi * done)) + 0.01)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate
        loss = batch_loss(model, data, drawn)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            print(f"step {step} loss {loss.item() / len(WIDTHS):.3f}", flush=True)
    return step


def save_model(model, vocabulary, end, out):
    with torch.no_grad():  # What is judged below is what is saved.
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16().float())
    save_file({name: tensor.detach().bfloat16().cpu().contiguous()
               for name, tensor in model.state_dict().items()},
              out / "model.safetensors", metadata={"format": "pt"})
    config = dict(architectures=["Qwen3ForCausalLM"], attention_bias=False, bos_token_id=end,
                  eos_token_id=end, hidden_act="silu", initializer_range=0.02,
                  max_window_layers=SHAPE["num_hidden_layers"], model_type="qwen3",
                  rope_scaling=None, rope_theta=1000000, sliding_window=None,
                  torch_dtype="bfloat16", use_cache=True, use_sliding_window=False,
                  vocab_size=vocabulary, **SHAPE)
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True))


def recall(queries, documents, gold, width):
    scores = (F.normalize(queries[:, :width], dim=-1) @ F.normalize(documents[:, :width], dim=-1).T)
    top = scores.topk(10, dim=1).indices
    return [round((top[:, :k] == gold[:, None]).any(1).float().mean().item(), 4) for k in (1, 10)]


def evaluate(model, data, by_key, test, steps, end):
    """Held-out short descriptions must find their long ones among all."""
    documents = [key for key in by_key if "en" in by_key[key] and by_key[key]["en"]["long"]]
    position = {key: i for i, key in enumerate(documents)}

    def vectors(keys, language, row):
        return embed_all(model, [data.sequences[by_key[k][language][row]] for k in keys], end)

    d = vectors(documents, "en", "long_row")
    gold = torch.tensor([position[key] for key in test], device="cuda")
    q = vectors(test, "en", "query_row")
    result = dict(steps=steps, docs=len(documents), test=len(test))
    for width in WIDTHS:
        result[f"en short->long, all docs, dim {width}: recall@1,@10"] = recall(q, d, gold, width)
    for language in EVAL_LANGUAGES:
        keys = [key for key in test if language in by_key[key]]
        if len(keys) > 20:
            gold = torch.tensor([position[key] for key in keys], device="cuda")
            result[f"{language} short -> en long ({len(keys)})"] = recall(
                vectors(keys, language, "query_row"), d, gold, WIDTHS[0])
    return result


def golden_vectors(model, tokenizer):
    model.float()
    golden = []
    for text in [*EXAMPLES, QUERY_PROMPT + EXAMPLES[0], "!", ""]:
        ids = tokenizer.encode(text).ids
        with torch.inference_mode():
            vector = last_hidden(model, torch.tensor([ids]).cuda(), torch.tensor([len(ids)]).cuda())
        vector = F.normalize(vector[0], dim=-1)
        golden.append(dict(text=text, ids=ids, vec=[round(v, 7) for v in vector.tolist()]))
    return golden


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")


def main():
    source, out, minutes = sys.argv[1], pathlib.Path(sys.argv[2]), float(sys.argv[3])
    end_time = time.time() + 60 * minutes
    os.makedirs(out, exist_ok=True)
    random.seed(0)
    torch.manual_seed(0)
    with gzip.open(source, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    by_key = collections.defaultdict(dict)
    for row in rows:
        by_key[row["key"]][row["lang"]] = row

    tokenizer = train_tokenizer(rows)
    tokenizer.save(str(out / "tokenizer.json"))
    end, vocabulary = tokenizer.token_to_id(END_OF_TEXT), tokenizer.get_vocab_size()
    data = Pairs(rows, tokenizer, end)
    english = {key: v["en"] for key, v in by_key.items() if "en" in v}
    keys = [key for key, row in english.items() if not row["test"]]
    test = [key for key, row in english.items() if row["test"] and row["long"]]

    config = Qwen3Config(vocab_size=vocabulary, rope_theta=1e6, **SHAPE)
    config._attn_implementation = "sdpa"
    model = Qwen3Model(config).cuda()
    steps = train(model, data, keys, by_key, end_time)
    model.eval()
    save_model(model, vocabulary, end, out)
    write_json(out / "eval.json", evaluate(model, data, by_key, test, steps, end))
    write_json(out / "golden.json", golden_vectors(model, tokenizer))
    print((out / "eval.json").read_text())


if __name__ == "__main__":
    main()
