"""The cases of folder_sweep_test.py: every key of a model folder's files, changed one at a time.

The keys are those of the published Qwen3 embedding folders, of Qwen3Config and PretrainedConfig in
transformers 4 and 5, of their tokenizers, and of sentence-transformers' modules, and some that
nobody knows. Each gets values of every JSON type, none at all, and others that are valid.
"""

import copy
import dataclasses
import json

MISSING = object()
EVERY_TYPE = [None, "abc", 17, 0, -1, 1.5, True, False, [], {}, {"abc": 1}]
SOME_TYPES = [None, "abc", 17, True, [], {"abc": 1}]
FEW_TYPES = ["abc", 17, {"abc": 1}]  # for what decides nothing


@dataclasses.dataclass
class Case:
    file: str        # the file that is changed
    key: str         # with dots into objects, "|" between several; "" for the file itself
    what: str        # the value, for people
    files: dict      # file name -> its text, or None where it is taken away
    loads: bool      # whether every server of the ecosystem takes it, so that this one has to


def show(value):
    return "missing" if value is MISSING else json.dumps(value)


def change(base, key, value):
    """A copy of `base` with one key set or taken away; dots and numbers lead inwards."""
    changed = copy.deepcopy(base)
    *way, last = key.split(".")
    at = changed
    for step in way:
        at = at[int(step) if isinstance(at, list) else step]
    if value is MISSING:
        at.pop(last, None)
    else:
        at[last] = value
    return changed


def key_cases(file, base, key, values, loads=(), named=""):
    """One case a value; those in `loads` have to load. `named`: other keys that it is about."""
    unchanged = json.dumps(base, indent=1, ensure_ascii=False)
    needed = {show(value) for value in loads}
    for value in {show(value): value for value in [*values, *loads]}.values():
        text = json.dumps(change(base, key, value), indent=1, ensure_ascii=False)
        if text != unchanged:
            yield Case(file, key + named, show(value), {file: text}, show(value) in needed)


def file_cases(file, missing_loads, object_too=True):
    """The file is missing, empty, no JSON, of another shape."""
    yield Case(file, "", "missing", {file: None}, missing_loads)
    for text in ("", "{", "[1, 2", "\u0000", "null", "7", '"abc"', "[]" if object_too else "{}",
                 "[[]]"):
        yield Case(file, "", repr(text), {file: text}, False)


# --- config.json -------------------------------------------------------------------------------

# key: values that decide a vector or may; values that have to load.
ROPE_DEFAULTS = [{"rope_type": "default"}, {"type": "default"},
                 {"rope_type": "default", "rope_theta": 1000000}]
ROPE_OTHERS = [
    {"rope_type": "default", "rope_theta": 10000.0},
    {"rope_type": "linear", "factor": 2.0}, {"type": "linear", "factor": 2.0},
    {"rope_type": "dynamic", "factor": 2.0}, {"rope_type": "proportional", "rope_theta": 1e6},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    {"rope_type": "longrope", "short_factor": [2.0] * 64, "long_factor": [2.0] * 64,
     "original_max_position_embeddings": 32},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 32},
    {"rope_type": "default", "type": "linear", "factor": 2.0},
    {"rope_type": "linear", "type": "default", "factor": 2.0}, {"factor": 2.0},
    {"rope_type": None}, {"rope_type": 5}, {"rope_type": "Default"},
    {"rope_type": "default", "rope_theta": None}, {"rope_type": "default", "rope_theta": "1e6"},
    {"rope_type": "default", "rope_theta": 0}, {"rope_type": "default", "rope_theta": -10000.0},
    {"rope_type": "default", "partial_rotary_factor": 0.5}, {"rope_theta": 500000.0},
    {"rope_type": "default", "factor": 2.0}, {"rope_type": "default", "abc": 1},
    {"rope_type": "default", "mrope_section": [16, 24, 24]},
    {"full_attention": {"rope_type": "default", "rope_theta": 1e6}},
    {"full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e6},
     "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}]
CONFIG_DECIDING = {
    "model_type": (["qwen2", "qwen3_moe", "qwen3_vl", "llama", "Qwen3"], []),
    "architectures": ([["Qwen3BidirectionalModel"], ["Qwen3ForSequenceClassification"],
                       ["Qwen2ForCausalLM"], ["Qwen3ForCausalLM", "abc"]], [["Qwen3Model"]]),
    "vocab_size": ([16002, 16004, 151936, 16003.0], []),
    "hidden_size": ([128, 255, 512, 256.0, 1 << 40], []),
    "intermediate_size": ([384, 1536, 768.0], []),
    "num_hidden_layers": ([1, 3, 5, 28, 4.0], []),
    "num_attention_heads": ([2, 3, 8, 4.0], []),
    "num_key_value_heads": ([1, 3, 4, 2.0], []),
    "head_dim": ([64, 96, 256, 128.0], [MISSING]),
    "hidden_act": (["gelu", "gelu_pytorch_tanh", "relu", "SiLU"], [MISSING, "silu"]),
    "rms_norm_eps": ([1e-3, 1e-2, 1, 1e-40, 1e40, "1e-6"], [MISSING, 1e-5, 1e-06]),
    "max_position_embeddings": ([1, 2, 24, 8192.0, 1 << 40], [512, 40960]),
    "attention_bias": ([1], [MISSING, False]),
    "use_sliding_window": ([1], [MISSING, False]),
    "sliding_window": ([16, 4096], [MISSING, None, 4096]),
    "layer_types": ([["sliding_attention"] * 4, ["full_attention"] * 3, ["attention"] * 4,
                     ["full_attention"] * 3 + ["sliding_attention"],
                     ["linear_attention"] * 4, ["full_attention"] * 5],
                    [None, ["full_attention"] * 4]),
    "max_window_layers": ([2], [MISSING, 28, 0]),
    "rope_theta": ([1, "1000000", 1e-6, 1e30], [MISSING, 10000, 5000000.0]),
    "rope_scaling": (ROPE_OTHERS, [MISSING, None, *ROPE_DEFAULTS]),
    "rope_parameters": (ROPE_OTHERS, [None, *ROPE_DEFAULTS]),
    "partial_rotary_factor": ([0.5, 0.25, 1.0], []),
    "original_max_position_embeddings": ([32], []),
    "is_causal": ([], [True]),
    "use_bidirectional_attention": ([], []),
    "per_layer_config": ([{"0": {"head_dim": 64}}, {"1": {"sliding_window": 8}}], []),
    "quantization_config": ([{"quant_method": "fp8"}, {"quant_method": "awq", "bits": 4}], [None]),
    "auto_map": ([{"AutoModel": "modeling_abc.AbcModel"}], []),
    "is_encoder_decoder": ([], [False]),
    "tokenizer_class": (["BertTokenizer"], [None, "Qwen2Tokenizer"]),
    "num_experts": ([8], []),
    "attn_logit_softcapping": ([50.0], []),
    "mlp_bias": ([], []),
    "scale_embedding": ([], []),
    "pooling": (["mean"], []),
    "abc_unknown": ([], []),
}
# Keys that decide nothing: values that have to load. Each gets some of every type, too.
GENERATION_KEYS = (
    "max_length min_length do_sample early_stopping num_beams temperature top_k top_p typical_p "
    "repetition_penalty length_penalty no_repeat_ngram_size num_return_sequences "
    "bad_words_ids remove_invalid_values forced_bos_token_id forced_eos_token_id "
    "num_beam_groups diversity_penalty output_scores return_dict_in_generate suppress_tokens "
    "begin_suppress_tokens encoder_no_repeat_ngram_size exponential_decay_length_penalty").split()
CONFIG_NEUTRAL = {
    "attention_dropout": [MISSING, 0.1, 0], "bos_token_id": [MISSING, None, 5],
    "eos_token_id": [MISSING, None, 5, [5, 16000]], "pad_token_id": [None, 16000],
    "initializer_range": [MISSING, 0.01], "tie_word_embeddings": [MISSING, False],
    "torch_dtype": [MISSING, None, "float32", "float16"], "dtype": ["float32", "bfloat16"],
    "use_cache": [MISSING, False], "transformers_version": ["4.57.6", "5.24.0"],
    "_name_or_path": ["", "/tmp/model"], "name_or_path": [], "return_dict": [False],
    "output_hidden_states": [False], "output_attentions": [False],
    "id2label": [{"0": "LABEL_0"}], "label2id": [{"LABEL_0": 0}], "num_labels": [1],
    "problem_type": [None], "chunk_size_feed_forward": [0], "sep_token_id": [None],
    "decoder_start_token_id": [None], "torchscript": [False], "use_bfloat16": [False],
    "pruned_heads": [{}], "is_decoder": [False], "add_cross_attention": [False],
    "cross_attention_hidden_size": [None], "tie_encoder_decoder": [False], "prefix": [None],
    "finetuning_task": [None], "task_specific_params": [None], "tf_legacy_loss": [False],
    "attn_implementation": [None], "_attn_implementation": [], "_commit_hash": [],
    "tie_last_hidden_states": [], "base_model_tp_plan": [],
    **{key: [] for key in GENERATION_KEYS}}


def config_cases(base):
    file = "config.json"
    yield from file_cases(file, False)
    for key, (values, loads) in CONFIG_DECIDING.items():
        gone = [MISSING] if key in base else []
        yield from key_cases(file, base, key, [*gone, *EVERY_TYPE, *values], loads)
    for key, loads in CONFIG_NEUTRAL.items():
        yield from key_cases(file, base, key, FEW_TYPES, loads)
    # Where theta stands, and in how many places.
    bare = {k: v for k, v in base.items() if k not in ("rope_theta", "rope_scaling")}
    for theta in (None, 10000.0, 1000000):
        for scaling in (MISSING, None, {}, {"rope_type": "default"},
                        {"rope_type": "default", "rope_theta": 50000.0}):
            start = bare if theta is None else {**bare, "rope_theta": theta}
            start = start if scaling is MISSING else {**start, "rope_scaling": scaling}
            # Of two that disagree the versions of the libraries take different ones.
            values = [MISSING, {}, {"rope_type": "default"}, {"rope_theta": 1e6},
                      {"rope_theta": 1e6, "rope_type": "default"},
                      {"rope_type": "linear", "factor": 4}]
            agreed = [] if scaling not in (MISSING, None, {}) else [
                MISSING, {"rope_type": "default"}]
            yield from key_cases(file, start, "rope_parameters", values, agreed,
                                 "|rope_scaling|rope_theta")
    yield from key_cases(file, {**base, "use_sliding_window": True, "sliding_window": 16},
                         "max_window_layers", [MISSING, 0, 3, 4, 28, "abc"], (),
                         "|use_sliding_window")


# --- tokenizer files ---------------------------------------------------------------------------

def added(content, **flags):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False,
            "single_word": False, "special": True, **flags}


# As the published folders have it, with the demo model's tokens.
TOKENIZER_CONFIG = {
    "add_bos_token": False, "add_prefix_space": False,
    "added_tokens_decoder": {"16000": added("<|endoftext|>"), "16001": added("<|im_start|>"),
                             "16002": added("<|im_end|>")},
    "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
    "bos_token": None, "chat_template": "{{ messages[0].content }}",
    "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "errors": "replace",
    "model_max_length": 131072, "pad_token": "<|endoftext|>", "split_special_tokens": False,
    "tokenizer_class": "Qwen2Tokenizer", "unk_token": None}
TOKENIZER_KEYS = {
    "add_bos_token": ([], [MISSING, False, True]),
    "add_eos_token": ([], [False, True]),
    "add_prefix_space": ([1], [MISSING, False]),
    "added_tokens_decoder": ([{"16002": added("<|im_end|>")}, {"16003": added("Find")},
                              {"16002": added("<|other|>")},
                              {"16002": added("<|im_end|>", lstrip=True)},
                              {"16001": added("<|im_end|>")}, {"16002": "<|im_end|>"}], [MISSING]),
    "additional_special_tokens": ([["Find"], ["<|other|>"], [added("<|im_end|>")]],
                                  [MISSING, [], ["<|im_end|>"]]),
    "extra_special_tokens": ([["Find"], ["<|other|>"], {"abc_token": "Find"}],
                             [[], {}, ["<|im_end|>"]]),
    **{key: (["Find", "<|other|>", added("Find"), added("<|im_end|>")],
             [MISSING, "<|endoftext|>", "<|im_end|>"])
       for key in ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token",
                   "mask_token")},
    "audio_token": (["Find", "<|other|>"], []),
    "split_special_tokens": ([1], [MISSING, False]),
    "model_max_length": ([2, 24, 1, "512", 1e30, 512.5], [MISSING, None, 32, 1 << 100]),
    "max_len": ([24], []),
    "truncation_side": (["left"], ["right"]),
    "tokenizer_class": (["BertTokenizer", "LlamaTokenizerFast", "Qwen3Tokenizer"],
                        [MISSING, "Qwen2TokenizerFast", "PreTrainedTokenizerFast",
                         "TokenizersBackend"]),
    "do_lower_case": ([], [False]),
    "auto_map": ([{"AutoTokenizer": ["abc.Abc", None]}], []),
}
TOKENIZER_NEUTRAL = {
    "padding_side": [MISSING, "left", "right"], "errors": [MISSING, "replace"],
    "clean_up_tokenization_spaces": [MISSING, False, True], "chat_template": [MISSING, "abc"],
    "model_input_names": [["input_ids", "attention_mask"]], "name_or_path": ["abc"],
    "processor_class": [], "backend": ["tokenizers"], "is_local": [True], "max_length": [512],
    "stride": [0], "truncation_strategy": ["longest_first"], "pad_to_multiple_of": [None, 8],
    "pad_token_type_id": [0], "use_fast": [True], "legacy": [], "from_slow": [],
    "response_schema": [], "tokenizer_file": [None], "vocab_file": [], "merges_file": [],
    "special_tokens_map_file": [None], "abc_unknown": []}
PADDING = {"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": None,
           "pad_id": 16000, "pad_type_id": 0, "pad_token": "<|endoftext|>"}
TRUNCATION = {"direction": "Right", "max_length": 24, "strategy": "LongestFirst", "stride": 0}


def tokenizer_cases(tokenizer):
    file = "tokenizer_config.json"
    yield Case(file, "", "the published one", {file: json.dumps(TOKENIZER_CONFIG)}, True)
    yield from file_cases(file, True)
    for key, (values, loads) in TOKENIZER_KEYS.items():
        gone = [MISSING] if key in TOKENIZER_CONFIG else []
        yield from key_cases(file, TOKENIZER_CONFIG, key, [*gone, *SOME_TYPES, *values], loads)
    for key, loads in TOKENIZER_NEUTRAL.items():
        yield from key_cases(file, TOKENIZER_CONFIG, key, FEW_TYPES, loads)
    for key, values, loads in (
            ("padding", [], [None, PADDING, {**PADDING, "strategy": {"Fixed": 512}},
                             {**PADDING, "pad_to_multiple_of": 8, "direction": "Right"}]),
            ("truncation", [{**TRUNCATION, "max_length": 1}, {**TRUNCATION, "max_length": "24"}],
             [None, TRUNCATION, {**TRUNCATION, "max_length": 512, "direction": "Left"},
              {**TRUNCATION, "max_length": 100000}, {**TRUNCATION, "stride": 4}])):
        yield from key_cases("tokenizer.json", tokenizer, key, values, loads)
    for name, texts in {
            "special_tokens_map.json": ['{"eos_token": "<|im_end|>"}', '{"eos_token": "Find"}',
                                        '{"additional_special_tokens": ["<|other|>"]}'],
            "added_tokens.json": ['{"<|im_end|>": 16002}', '{"Find": 16003}']}.items():
        for i, text in enumerate(texts):
            yield Case(name, "", text, {name: text}, i == 0)
    for name, text in {"generation_config.json": '{"temperature": 0.5}', "README.md": "# Model",
                       "chat_template.jinja": "abc", "vocab.json": "{}", "merges.txt": "",
                       "preprocessor_config.json": "{}"}.items():
        yield Case(name, "", text, {name: text}, name != "preprocessor_config.json")
