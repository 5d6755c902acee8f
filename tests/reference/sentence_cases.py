"""The part of sweep_cases.py about sentence-transformers' own files."""

import json
import struct

from sweep_cases import (EVERY_TYPE, MISSING, SOME_TYPES, Case, change, file_cases, key_cases,
                         show)

HIDDEN = 256


def dump(value):
    return json.dumps(value, indent=2)


# --- modules.json ------------------------------------------------------------------------------

PREFIX = "sentence_transformers."
NEW_TYPES = [PREFIX + t for t in ("base.modules.transformer.Transformer",
                                  "sentence_transformer.modules.pooling.Pooling",
                                  "base.modules.normalize.Normalize")]
OTHER_TYPES = ["LayerNorm", "Dropout", "CNN", "LSTM", "WeightedLayerPooling", "WordWeights", "BoW",
               "CLIPModel", "WordEmbeddings", "StaticEmbedding", "Asym", "Router"]


def entry(place, kind, path=None):
    return {"idx": place, "name": str(place), "path": f"{place}_{kind}" if path is None else path,
            "type": f"{PREFIX}models.{kind}"}


def modules_cases(base, config):
    file = "modules.json"
    yield from file_cases(file, True, object_too=False)
    for architectures in (["Qwen3Model"], [], MISSING):  # No causal language model: the mean.
        changed = change(config, "architectures", architectures)
        yield Case("config.json", "architectures", "no modules.json",
                   {file: None, "config.json": dump(changed)}, False)
        yield Case("config.json", "architectures", "neither modules.json nor pooling",
                   {file: None, "1_Pooling/config.json": None, "config.json": dump(changed)}, False)

    def case(what, value, loads=False, key="", files=None):
        return Case(file, key, what, {file: dump(value), **(files or {})}, loads)

    for place in range(len(base)):
        for key in ("idx", "name", "path", "type"):
            loads = {"idx": [MISSING, 7], "name": ["abc"], "path": ["2_Norm"] if place == 2 else [],
                     "type": NEW_TYPES[place:place + 1]}[key]
            for value in [*SOME_TYPES, MISSING, "../1_Pooling", "/etc", "1_Pooling/", "3_None",
                          *loads]:
                yield Case(file, f"{place}.{key}", show(value),
                           {file: dump(change(base, f"{place}.{key}", value))},
                           show(value) in [show(v) for v in loads])
        yield case('["task"]', change(base, f"{place}.kwargs", ["task"]), key=f"{place}.kwargs")
        yield case("1", change(base, f"{place}.abc", 1), key=f"{place}.abc")
        yield case(f"without {place}", [e for i, e in enumerate(base) if i != place])
        yield case(f"{place} twice", [*base[:place + 1], *base[place:]])
        yield case(f"{place} twice, named", [*base, {**base[place], "name": "3", "idx": 3}])
    yield case("new types", [{**e, "type": t} for e, t in zip(base, NEW_TYPES)], True)
    yield case("in other order", [base[1], base[0], base[2]])
    yield case("in other order", [base[0], base[2], base[1]])
    yield case("a moved pooling", change(base, "1.path", "pooling"), True,
               files={"pooling/config.json": dump(POOLING), "1_Pooling/config.json": None})
    mean = {**POOLING, "pooling_mode_lasttoken": False, "pooling_mode_mean_tokens": True}
    yield Case("pooling/config.json", "pooling_mode", "the other left",
               {file: dump(change(base, "1.path", "pooling")), "pooling/config.json": dump(mean)},
               False)
    for kind in OTHER_TYPES:
        yield case(kind, [*base, entry(3, kind)], False, "type",
                   {f"3_{kind}/config.json": '{"dropout": 0.5, "dimension": 256}'})
        yield case(kind + " for pooling", [base[0], entry(1, kind), base[2]], False, "type",
                   {f"1_{kind}/config.json": "{}"})
    for name in ("abc.Abc", "sentence_transformers.models.Abc", "torch.nn.Identity",
                 "modeling_abc.Normalize", "sentence_transformers.cross_encoder.CrossEncoder"):
        yield case(name, [*base, {**entry(3, "Abc"), "type": name}], key="type")
        yield case(name, [*base[:2], {**base[2], "type": name}], key="type")


# --- pooling -----------------------------------------------------------------------------------

POOLING = {"word_embedding_dimension": HIDDEN, "pooling_mode_cls_token": False,
           "pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": False,
           "pooling_mode_mean_sqrt_len_tokens": False, "pooling_mode_weightedmean_tokens": False,
           "pooling_mode_lasttoken": True, "include_prompt": True}
NEW_POOLING = {"embedding_dimension": HIDDEN, "pooling_mode": "lasttoken", "include_prompt": True}
MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "LastToken", "last"]


def pooling_cases():
    file = "1_Pooling/config.json"
    yield from file_cases(file, False)
    yield Case(file, "", "the new form", {file: dump(NEW_POOLING)}, True)
    for form in (POOLING, NEW_POOLING):
        for key in form:
            loads = {"include_prompt": [MISSING, True, False],
                     "pooling_mode": [["lasttoken"]]}.get(key, [])
            if key.startswith("pooling_mode_") and key != "pooling_mode_lasttoken":
                loads = [MISSING, False]
            values = [*EVERY_TYPE, *MODES, ["lasttoken", "mean"], ["mean"]] \
                if key == "pooling_mode" else SOME_TYPES
            yield from key_cases(file, form, key, [MISSING, *values, False, 128], loads)
        yield from key_cases(file, form, "abc", SOME_TYPES)
    yield from key_cases(file, POOLING, "pooling_mode", ["mean", ["cls"], None, "lasttoken"])
    yield from key_cases(file, POOLING, "embedding_dimension", [HIDDEN, 128])
    yield from key_cases(file, NEW_POOLING, "pooling_mode_mean_tokens", [True, False])
    yield from key_cases(file, NEW_POOLING, "word_embedding_dimension", [HIDDEN, 128])
    yield Case(file, "pooling_mode", "no word of it", {file: dump({"embedding_dimension": 256})},
               False)


# --- dense and normalize -----------------------------------------------------------------------

DENSE = {"in_features": HIDDEN, "out_features": 64, "bias": False,
         "activation_function": "torch.nn.modules.linear.Identity"}


def safetensors(tensors):
    """F32 tensors by name: (shape, floats) as the bytes of a file."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (shape, floats) in tensors.items():
        part = struct.pack(f"<{len(floats)}f", *floats)
        header[name] = {"dtype": "F32", "shape": shape,
                        "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def dense_weights(rows, cols, bias=False):
    """A rotation of the axes with unlike lengths, so that no other matrix passes for it."""
    matrix = [0.0] * (rows * cols)
    for i in range(rows):
        matrix[i * cols + (i * 7) % cols] = 1 + i / rows
        matrix[i * cols + (i * 5 + 3) % cols] -= 0.25
    tensors = {"linear.weight": ([rows, cols], matrix)}
    if bias:
        tensors["linear.bias"] = ([rows], [0.01 * (i % 5) for i in range(rows)])
    return safetensors(tensors)


def dense_case(modules, what, config, weights, loads=False, place=3):
    """The module behind the others, or in front of Normalize with place 2."""
    dense = entry(place, "Dense")
    chain = [*modules, dense] if place == 3 else [*modules[:2], dense, {**modules[2], "name": "3"}]
    return Case(f"{place}_Dense/config.json", what, "Dense " + what,
                {"modules.json": dump(chain), f"{place}_Dense/config.json": dump(config),
                 f"{place}_Dense/model.safetensors": weights}, loads)


def dense_cases(modules):
    plain = dense_weights(64, HIDDEN)
    for place in (2, 3):
        yield dense_case(modules, "", DENSE, plain, place=place)
        yield dense_case(modules, "square", {**DENSE, "out_features": HIDDEN},
                         dense_weights(HIDDEN, HIDDEN), place=place)
        yield dense_case(modules, "with bias", {**DENSE, "bias": True},
                         dense_weights(64, HIDDEN, True), place=place)
        yield dense_case(modules, "with tanh", {**DENSE, "activation_function":
                                                "torch.nn.modules.activation.Tanh"},
                         plain, place=place)
    for key in (*DENSE, "module_input_name", "module_output_name", "use_residual", "abc"):
        values = [*SOME_TYPES, False, 128, "sentence_embedding", "token_embeddings",
                  "torch.nn.modules.activation.ReLU", "torch.nn.modules.activation.GELU"]
        values += [MISSING] if key in DENSE else []
        for value in values:
            if value != DENSE.get(key, MISSING):
                yield dense_case(modules, key, change(DENSE, key, value), plain)
    for what, weights in {"another shape": dense_weights(32, HIDDEN),
                          "a bias too many": dense_weights(64, HIDDEN, True),
                          "no weights": b"", "no tensors": safetensors({})}.items():
        yield dense_case(modules, what, DENSE, weights)
    file = "2_Normalize/config.json"
    for value in ({}, {"normalize_embeddings": True},
                  {"module_input_name": "sentence_embedding", "module_output_name": None},
                  {"module_input_name": "sentence_embedding",
                   "module_output_name": "sentence_embedding"}):
        yield Case(file, "", json.dumps(value), {file: dump(value)}, True)
    for value in ({"module_input_name": "token_embeddings"}, {"module_output_name": "abc"}):
        yield Case(file, next(iter(value)), json.dumps(value), {file: dump(value)}, False)


# --- config_sentence_transformers.json and sentence_bert_config.json ---------------------------

ST_KEYS = {
    "prompts": ([{"query": 5}, {"abc": ["x"]}, ["query"]],
                [{"query": "q: ", "document": "d: "}, {"query": "", "document": ""},
                 {"query": "q: ", "passage": "p: "}, {"document": None, "query": "q: "}]),
    "prompts.query": ([], ["search_query: "]),
    "prompts.document": ([], ["passage: ", " "]),
    "prompts.abc": ([], ["abc: "]),
    "default_prompt_name": (["abc", 5], [MISSING, None, "document"]),
    "similarity_fn_name": (["euclidean", "manhattan", "abc"], [MISSING, None, "dot"]),
    "truncate_dim": ([64, 256, 300, 31, 64.0], [None]),
    "model_type": (["SparseEncoder", "CrossEncoder", "MultiVectorEncoder"],
                   ["SentenceTransformer"]),
    "__version__": ([], [{"sentence_transformers": "6.2.0", "transformers": "5.24.0",
                          "pytorch": "2.15.0"}]),
    "requirements": ([{"transformers": ">=99"}], []),
    "suffix": (["<|im_end|>\n"], []),
    "abc_unknown": ([], []),
}
BERT = {"max_seq_length": 512, "do_lower_case": False}
NEW_BERT = {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings",
            "modality_config": {"text": {"method": "forward",
                                         "method_output_name": "last_hidden_state"}}}
BERT_KEYS = {
    "max_seq_length": ([1, 2, 24, 100000, 512.5], [MISSING, None, 64, 32768]),
    "do_lower_case": ([1], [MISSING, False]),
    "transformer_task": (["text-generation", "fill-mask", "retrieval"], ["feature-extraction"]),
    "modality_config": ([{"message": {"method": "forward",
                                      "method_output_name": "last_hidden_state"}},
                         {"text": {"method": "forward", "method_output_name": "pooler_output"}}],
                        []),
    "module_output_name": (["token_embeddings", "sentence_embedding"], []),
    "processing_kwargs": ([{"text": {"max_length": 24}}, {"chat_template": {"abc": 1}}], [{}]),
    "unpad_inputs": ([], [None, False, True]),
    "query_length": ([24], [None]), "document_length": ([24], [None]),
    "query_expansion": ([{"strategy": "fixed", "length": 32}], [None]),
    "tokenizer_name_or_path": ([], [None]),
    "model_args": ([{"torch_dtype": "float16"}], [{}]),
    "model_kwargs": ([{"attn_implementation": "eager"}], [{}]),
    "tokenizer_args": ([{"model_max_length": 24}], [{}]),
    "processor_kwargs": ([{"truncation_side": "left"}], [{}]),
    "config_args": ([{"rope_theta": 10000}], [{}]),
    "config_kwargs": ([{"rms_norm_eps": 0.01}], [{}]),
    "abc_unknown": ([], []),
}


def sentence_cases(base):
    file = "config_sentence_transformers.json"
    # Without the file queries have no prompt in the library; a server may ask for one.
    yield from file_cases(file, False)
    for key, (values, loads) in ST_KEYS.items():
        gone = [MISSING] if key in base or "." in key else []
        if MISSING in loads or key in ("prompts.query", "prompts"):
            gone = []
        yield from key_cases(file, base, key, [*gone, *SOME_TYPES, *values], loads)
    yield from key_cases(file, base, "prompts", [MISSING])
    yield from key_cases(file, base, "prompts.query", [MISSING])
    with_both = change(base, "prompts", {"query": "q: ", "document": "d: ", "other": "o: "})
    yield from key_cases(file, with_both, "default_prompt_name", ["query", "other"], ["document"])


def bert_cases():
    file = "sentence_bert_config.json"
    yield Case(file, "", "the old form", {file: dump(BERT)}, True)
    yield Case(file, "", "the new form", {file: dump(NEW_BERT)}, True)
    yield from file_cases(file, True)
    for key, (values, loads) in BERT_KEYS.items():
        gone = [MISSING] if key in BERT else []
        yield from key_cases(file, BERT, key, [*gone, *SOME_TYPES, *values], loads)
    for key in NEW_BERT:
        yield from key_cases(file, NEW_BERT, key, [MISSING, *SOME_TYPES])
    yield Case("sentence_roberta_config.json", "do_lower_case", "behind an empty one",
               {file: "{}", "sentence_roberta_config.json": dump({"do_lower_case": True})}, False)
    for name in ("sentence_roberta_config.json", "sentence_xlm-roberta_config.json"):
        for value in ({"max_seq_length": 24}, {"do_lower_case": True}, {"abc": 1}):
            yield Case(name, next(iter(value)), json.dumps(value), {name: dump(value)}, False)
