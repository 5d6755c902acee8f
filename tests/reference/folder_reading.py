"""What sentence-transformers over transformers would make of a model folder, read file by file.

`Folder(dir)` holds everything that decides a vector, with the libraries' own defaults (transformers
4.57 and 5.24, sentence-transformers 5.3 and 6.2; where the majors differ, the newer one's, or
Differs). Keys that decide nothing are not looked at. Whatever the libraries refuse, or would
compute in another way than qwen3_reference.py does, raises Differs: such a folder may be refused,
never served. check_reference.py holds this page against the libraries themselves.
"""

import collections
import functools
import json
import os
import pathlib

PREFIX = "sentence_transformers."
MODULES = {name: kind for kind, names in {
    "Transformer": ["models.Transformer", "base.modules.transformer.Transformer",
                    "base.modules.Transformer"],
    "Pooling": ["models.Pooling", "sentence_transformer.modules.pooling.Pooling",
                "sentence_transformer.modules.Pooling"],
    "Dense": ["models.Dense", "base.modules.dense.Dense", "base.modules.Dense"],
    "Normalize": ["models.Normalize", "base.modules.normalize.Normalize",
                  "base.modules.Normalize"],
}.items() for name in (PREFIX + n for n in names)}
OLD_POOLING = {"pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max",
               "pooling_mode_mean_tokens": "mean",
               "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
               "pooling_mode_weightedmean_tokens": "weightedmean",
               "pooling_mode_lasttoken": "lasttoken"}
ACTIVATIONS = {"torch.nn.modules.linear.Identity": "identity",
               "torch.nn.modules.activation.Tanh": "tanh",
               "torch.nn.modules.activation.ReLU": "relu",
               "torch.nn.modules.activation.SiLU": "silu",
               "torch.nn.modules.activation.Sigmoid": "sigmoid"}
BERT_FILES = [f"sentence_{n}_config.json" for n in
              ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")]
TEXT_MODALITY = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
TOKENIZER_CLASSES = [None, "Qwen2Tokenizer", "Qwen2TokenizerFast", "PreTrainedTokenizerFast",
                     "TokenizersBackend"]
SPECIAL_TOKENS = [f"{n}_token" for n in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")]
HARMLESS_ARGUMENTS = ["attn_implementation", "torch_dtype", "dtype", "device_map",
                      "low_cpu_mem_usage"]  # how the library computes, not what
UNLIMITED = 10**20  # transformers calls a larger model_max_length no limit


class Differs(Exception):
    """The libraries refuse this, or compute what this reference does not."""


def need(holds, file, key, value="?"):
    if not holds:
        raise Differs(f"{file}: {key}: {value!r}")


def read(path, kind=dict):
    """The parsed file, or None where there is none."""
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Differs(f"{path.name}: {error}") from error
    need(isinstance(value, kind), path.name, "its type", type(value).__name__)
    return value


def is_int(value):
    return isinstance(value, int) and not isinstance(value, bool)


class Config:
    """config.json as Qwen3Config reads it."""

    def __init__(self, raw):
        self.raw = raw
        self.need("model_type", raw.get("model_type") == "qwen3")
        self.vocab_size = self.integer("vocab_size", 151936)
        self.hidden_size = self.integer("hidden_size", 4096)
        self.intermediate_size = self.integer("intermediate_size", 22016)
        self.num_hidden_layers = self.integer("num_hidden_layers", 32)
        self.num_attention_heads = self.integer("num_attention_heads", 32)
        if raw.get("num_key_value_heads", 32) is None:
            self.num_key_value_heads = self.num_attention_heads
        else:
            self.num_key_value_heads = self.integer("num_key_value_heads", 32)
        self.need("num_key_value_heads",
                  self.num_attention_heads % self.num_key_value_heads == 0)
        self.head_dim = self.integer("head_dim", 128)
        self.max_position_embeddings = self.integer("max_position_embeddings", 32768)
        self.rms_norm_eps = self.number("rms_norm_eps", 1e-6)
        self.need("hidden_act", raw.get("hidden_act", "silu") in ("silu", "swish"))
        self.need("attention_bias", not raw.get("attention_bias", False))
        self.need("is_causal", raw.get("is_causal", True))
        self.need("per_layer_config", raw.get("per_layer_config") in (None, {}))
        self.need("quantization_config", raw.get("quantization_config") is None)
        self.need("tokenizer_class", raw.get("tokenizer_class") in TOKENIZER_CLASSES)
        self.read_layers()
        self.read_rope()

    def need(self, key, holds):
        need(holds, "config.json", key, self.raw.get(key))

    def integer(self, key, default):
        value = self.raw.get(key, default)
        self.need(key, is_int(value) and value > 0)
        return value

    def number(self, key, default):
        value = self.raw.get(key, default)
        self.need(key, isinstance(value, (int, float)) and not isinstance(value, bool)
                  and value >= 0)
        return float(value)

    def read_layers(self):
        types = self.raw.get("layer_types")
        if types is not None:
            self.need("layer_types", isinstance(types, list)
                      and types == [t for t in types if t in ("full_attention", "attention")]
                      and len(types) == self.num_hidden_layers)
        elif self.raw.get("use_sliding_window", False):
            window = self.raw.get("sliding_window", 4096)
            hides = window is not None and self.integer("sliding_window", 4096) < \
                self.max_position_embeddings
            self.need("use_sliding_window", not hides or
                      self.integer("max_window_layers", 28) >= self.num_hidden_layers)

    def read_rope(self):
        """A non-empty rope_scaling replaces rope_parameters; rope_theta beside it fills in."""
        for key in ("rope_scaling", "rope_parameters"):
            self.need(key, self.raw.get(key) is None or isinstance(self.raw[key], dict))
        name = "rope_scaling" if self.raw.get("rope_scaling") else "rope_parameters"
        rope = self.raw.get(name) or {}
        if list(rope) == ["full_attention"] and isinstance(rope["full_attention"], dict):
            rope = rope["full_attention"]  # One object a layer type; all layers are of this one.
        self.need(name, not any(isinstance(value, dict) for value in rope.values()))
        self.need(name, rope.get("rope_type", rope.get("type", "default")) == "default")
        for source in (rope, self.raw):
            self.need("partial_rotary_factor", source.get("partial_rotary_factor") in (None, 1))
        theta = rope["rope_theta"] if "rope_theta" in rope else self.raw.get("rope_theta", 1e4)
        self.need("rope_theta", isinstance(theta, (int, float)) and not isinstance(theta, bool)
                  and theta >= 1)
        self.rope_theta = float(theta)


def check_tokens(path, values, known):
    """Token strings, or objects with `content`, that tokenizer.json does not add would be added."""
    for key, value in values:
        content = value.get("content") if isinstance(value, dict) else value
        need(content is None or (isinstance(content, str) and content in known), path, key, value)


def once_for_all_links(read_file):
    """`read_file(path)`, remembered by what the path leads to; the last few files are kept."""
    kept = collections.OrderedDict()

    @functools.wraps(read_file)
    def reader(path):
        status = os.stat(path)
        identity = (status.st_dev, status.st_ino, status.st_mtime_ns)
        if identity not in kept:
            kept[identity] = read_file(path)
        kept.move_to_end(identity)
        while len(kept) > 4:
            kept.popitem(last=False)
        return kept[identity]
    return reader


@once_for_all_links
def read_tokenizer(path):
    """Added tokens by content, and the limit that truncation sets, if it does."""
    tokenizer = read(path)
    cut = tokenizer.get("truncation")
    need(cut is None or (is_int(cut.get("max_length")) and cut["max_length"] > 1),
         "tokenizer.json", "truncation", cut)
    return {t["content"]: t for t in tokenizer["added_tokens"]}, cut and cut["max_length"]


class Folder:
    """Everything that decides a vector; see the top of this file for what raises Differs."""

    def __init__(self, directory):
        self.path = pathlib.Path(directory)
        raw = read(self.path / "config.json")
        need(raw is not None, "config.json", "the file")
        self.config = Config(raw)
        self.limits = [self.config.max_position_embeddings]
        self.prompts = {"query": "", "document": ""}
        self.default_prompt_name = None
        self.truncate_dim = None
        self.max_seq_length = None
        self.read_modules()
        self.read_tokenizer()

    @property
    def max_seqlen(self):
        return min(self.limits)

    # --- modules -------------------------------------------------------------------------------

    def read_modules(self):
        """self.steps: what follows the last token's state, as ("dense", ...) or ("normalize",)."""
        self.steps = []
        entries = read(self.path / "modules.json", list)
        self.read_sentence_config()
        self.read_bert_config()
        if entries is None:
            self.read_unlisted()
            return
        kinds = {}
        for place, entry in enumerate(entries):
            need(isinstance(entry, dict) and not entry.get("kwargs"), "modules.json", "an entry",
                 entry)
            for key in ("path", "type"):
                need(isinstance(entry.get(key), str), "modules.json", key, entry.get(key))
            kind = MODULES.get(entry["type"])
            need(kind, "modules.json", "type", entry["type"])
            name = json.dumps(entry.get("name"))
            need(name not in kinds, "modules.json", "name", name)
            kinds[name] = kind
            need((kind == "Transformer") == (place == 0), "modules.json", "type", entry)
            need((kind == "Pooling") == (place == 1), "modules.json", "type", entry)
            getattr(self, "read_" + kind.lower())(entry["path"])
        need(len(kinds) >= 2, "modules.json", "its entries", len(kinds))

    def read_unlisted(self):
        """Without modules.json a causal model is pooled by its last token, any other by the mean.
        A pooling file and prompts in the folder count here, though the libraries do not read them
        then: they may only be of the same pooling, and queries get the prompt that is theirs."""
        if (self.path / "1_Pooling/config.json").exists():
            self.read_pooling("1_Pooling")
        kinds = self.config.raw.get("architectures") or [""]
        need(isinstance(kinds, list) and str(kinds[0]).endswith("ForCausalLM"),
             "config.json", "architectures", kinds)

    def read_transformer(self, path):
        need(path in ("", "."), "modules.json", "path", path)

    def read_pooling(self, path):
        file = path + "/config.json"
        raw = read(self.path / file)
        need(raw is not None, file, "the file")
        known = {"word_embedding_dimension", "embedding_dimension", "pooling_mode",
                 "include_prompt", *OLD_POOLING}
        for key in raw:
            need(key in known, file, key, raw[key])
        mode = raw.get("pooling_mode")
        if "pooling_mode" not in raw:
            mode = [mode for key, mode in OLD_POOLING.items() if raw.get(key)] or "mean"
        mode = mode[0] if isinstance(mode, list) and len(mode) == 1 else mode
        need(mode == "lasttoken", file, "pooling_mode", mode)

    def read_dense(self, path):
        file = path + "/config.json"
        raw = read(self.path / file) or {}
        for key in raw:
            need(key in ("in_features", "out_features", "bias", "activation_function",
                         "module_input_name", "module_output_name", "use_residual"),
                 file, key, raw[key])
        need(raw.get("module_input_name", "sentence_embedding") == "sentence_embedding",
             file, "module_input_name", raw.get("module_input_name"))
        need(raw.get("module_output_name") in (None, "sentence_embedding"),
             file, "module_output_name", raw.get("module_output_name"))
        need(not raw.get("use_residual", False), file, "use_residual")
        activation = raw.get("activation_function", "torch.nn.modules.activation.Tanh")
        need(isinstance(activation, str) and activation in ACTIVATIONS, file,
             "activation_function", activation)
        for key in ("in_features", "out_features"):
            need(is_int(raw.get(key)), file, key, raw.get(key))
        self.steps.append(("dense", self.path / path / "model.safetensors",
                           (raw["out_features"], raw["in_features"]),
                           bool(raw.get("bias", True)), ACTIVATIONS[activation]))

    def read_normalize(self, path):
        raw = read(self.path / path / "config.json") or {}
        for key in ("module_input_name", "module_output_name"):
            need(raw.get(key, "sentence_embedding") == "sentence_embedding" or
                 (key == "module_output_name" and raw[key] is None),
                 path + "/config.json", key, raw.get(key))
        self.steps.append(("normalize",))

    # --- sentence-transformers' own files ------------------------------------------------------

    def read_sentence_config(self):
        file = "config_sentence_transformers.json"
        raw = read(self.path / file)
        if raw is None:
            return
        need(raw.get("model_type", "SentenceTransformer") == "SentenceTransformer",
             file, "model_type", raw.get("model_type"))
        # Nothing in the libraries reads it; a model's own code, which they may run, puts it behind
        # every text.
        need("suffix" not in raw, file, "suffix", raw.get("suffix"))
        prompts = {} if raw.get("prompts") is None else raw["prompts"]
        need(isinstance(prompts, dict), file, "prompts", prompts)
        for name, text in prompts.items():
            need(text is None or isinstance(text, str), file, "prompts." + name, text)
            self.prompts[name] = text or ""
        self.default_prompt_name = raw.get("default_prompt_name")
        need(self.default_prompt_name is None or
             (isinstance(self.default_prompt_name, str)
              and self.default_prompt_name in self.prompts),
             file, "default_prompt_name", self.default_prompt_name)
        self.truncate_dim = raw.get("truncate_dim")
        need(self.truncate_dim is None or (is_int(self.truncate_dim) and self.truncate_dim > 0),
             file, "truncate_dim", self.truncate_dim)

    def read_bert_config(self):
        file, raw = next(((name, found) for name in BERT_FILES
                          if (found := read(self.path / name))), ("", {}))
        limit = raw.get("max_seq_length")
        need(limit is None or (is_int(limit) and limit > 1), file, "max_seq_length", limit)
        self.max_seq_length = limit
        if "modality_config" in raw:
            need(raw["modality_config"] == TEXT_MODALITY, file, "modality_config")
            need(raw.get("module_output_name", "token_embeddings") == "token_embeddings", file,
                 "module_output_name")
        need(raw.get("transformer_task", "feature-extraction") == "feature-extraction",
             file, "transformer_task", raw.get("transformer_task"))
        for key, value in raw.items():
            if key in ("model_args", "model_kwargs") and isinstance(value, dict):
                need(all(k in HARMLESS_ARGUMENTS for k in value), file, key, value)
            elif key in ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs",
                         "config_args", "config_kwargs", "processing_kwargs", "do_lower_case"):
                need(not value, file, key, value)
            elif key in ("query_length", "document_length", "query_expansion",
                         "tokenizer_name_or_path"):
                need(value is None, file, key, value)
            else:
                need(key in ("max_seq_length", "modality_config", "module_output_name",
                             "transformer_task", "unpad_inputs"), file, key, value)

    # --- tokenizer -----------------------------------------------------------------------------

    def read_tokenizer(self):
        path = self.path / "tokenizer.json"
        need(path.exists(), "tokenizer.json", "the file")
        known, limit = read_tokenizer(path)
        self.limits += [limit] if limit else []
        file = "tokenizer_config.json"
        raw = read(self.path / file) or {}
        limit = raw.get("model_max_length")
        need(limit is None or (isinstance(limit, (int, float)) and limit > 1), file,
             "model_max_length", limit)
        # sentence-transformers' max_seq_length stands in for it.
        limit = limit if self.max_seq_length is None else self.max_seq_length
        self.limits += [int(limit)] if limit is not None and limit < UNLIMITED else []
        need(raw.get("tokenizer_class") in TOKENIZER_CLASSES, file, "tokenizer_class",
             raw.get("tokenizer_class"))
        for key in ("add_prefix_space", "split_special_tokens"):
            need(not raw.get(key), file, key, raw.get(key))
        decoder = raw.get("added_tokens_decoder") or {}
        need(isinstance(decoder, dict), file, "added_tokens_decoder", decoder)
        # Where it names only some of tokenizer.json's, transformers 5 numbers them anew.
        need(not decoder or len(decoder) == len(known), file, "added_tokens_decoder", decoder)
        for token_id, token in decoder.items():
            need(isinstance(token, dict) and
                 {**token, "id": token_id} == {**known.get(token.get("content"), {}),
                                               "id": token_id}
                 and str(known[token["content"]]["id"]) == token_id,
                 file, "added_tokens_decoder", token)
        check_tokens(file, self.special_tokens(raw), known)
        extra = read(self.path / "special_tokens_map.json") or {}
        check_tokens("special_tokens_map.json", self.special_tokens(extra), known)
        check_tokens("added_tokens.json",
                     [(t, t) for t in read(self.path / "added_tokens.json") or {}], known)

    @staticmethod
    def special_tokens(raw):
        """(key, token) of every special token that a tokenizer file names."""
        tokens = [(key, raw.get(key)) for key in SPECIAL_TOKENS]
        for key in ("additional_special_tokens", "extra_special_tokens"):
            value = raw.get(key) or []
            need(isinstance(value, (dict, list)), "tokenizer_config.json", key, value)
            tokens += [(key, t) for t in (value.values() if isinstance(value, dict) else value)]
        return tokens
