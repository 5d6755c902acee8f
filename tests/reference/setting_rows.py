"""More rows of model_folders_test.py: settings as people's folders have them, and the folders of
published embedders with the demo model's weights."""

import json

from folder_makers import edit, put, remove
from folder_rows import PLAIN_ITEMS, refused, served
from sentence_cases import DENSE, NEW_POOLING, POOLING, dense_weights, entry
from sweep_cases import PADDING, TOKENIZER_CONFIG, TRUNCATION

POOLING_FILE = "1_Pooling/config.json"
ST_FILE = "config_sentence_transformers.json"
TASK = ("Instruct: Given a web search query, retrieve relevant passages that answer the query\n"
        "Query:")


def add_modules(place, *modules):
    listed = json.loads((place / "modules.json").read_text())
    put(place, "modules.json", [*listed, *modules])


def add_dense(place, weights=None, **changes):
    add_modules(place, entry(3, "Dense"))
    put(place, "3_Dense/config.json", {**DENSE, **changes})
    put(place, "3_Dense/model.safetensors", weights or dense_weights(64, 256))


KIND = "settings of the graph"
refused(KIND, "bidirectional", lambda p: edit(
    p, "config.json", is_causal=False, architectures=["Qwen3BidirectionalModel"]),
    "config.json", "Qwen3BidirectionalModel")
refused(KIND, "not causal", lambda p: edit(p, "config.json", is_causal=False), "config.json",
        "is_causal", "false")
served(KIND, "rope_parameters without theta", lambda p: edit(
    p, "config.json", rope_theta=10000.0, rope_parameters={"rope_type": "default"}), "10000")
served(KIND, "no theta at all", lambda p: put(p, "config.json", {
    k: v for k, v in json.loads((p / "config.json").read_text()).items() if k != "rope_theta"}),
    "10000")
served(KIND, "rope_scaling default", lambda p: edit(
    p, "config.json", rope_scaling={"rope_type": "default"}))
refused(KIND, "rope_scaling yarn", lambda p: edit(p, "config.json", rope_scaling={
    "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}),
    "config.json", "rope_scaling", "yarn")
refused(KIND, "quantised", lambda p: edit(p, "config.json", quantization_config={
    "quant_method": "fp8"}), "config.json", "quantization_config")
refused(KIND, "own code", lambda p: edit(p, "config.json", auto_map={
    "AutoModel": "modeling_abc.AbcModel"}), "config.json", "auto_map")
refused(KIND, "another family", lambda p: edit(p, "config.json", model_type="gemma3_text"),
        "config.json", "model_type", "gemma3_text")


def newer_config(place):
    """config.json as transformers 5 writes it."""
    config = json.loads((place / "config.json").read_text())
    theta = config.pop("rope_theta")
    for key in ("rope_scaling", "torch_dtype"):
        del config[key]
    put(place, "config.json", {
        **config, "dtype": "bfloat16", "layer_types": ["full_attention"] * 4,
        "pad_token_id": None, "rope_parameters": {"rope_theta": theta, "rope_type": "default"},
        "transformers_version": "5.24.0", "architectures": ["Qwen3Model"]})


served(KIND, "as transformers 5 writes it", newer_config, "1e+06")

KIND = "pooling and modules"
served(KIND, "pooling of the newer form", lambda p: put(p, POOLING_FILE, NEW_POOLING))
refused(KIND, "two modes", lambda p: edit(p, POOLING_FILE, pooling_mode_mean_tokens=True),
        POOLING_FILE, "pooling_mode_mean_tokens")
refused(KIND, "mean", lambda p: put(p, POOLING_FILE, {**NEW_POOLING, "pooling_mode": "mean"}),
        POOLING_FILE, "pooling_mode", "mean")
refused(KIND, "no mode at all", lambda p: put(p, POOLING_FILE, {"embedding_dimension": 256}),
        POOLING_FILE, "pooling_mode")
refused(KIND, "the pooling file missing", lambda p: remove(p, POOLING_FILE), POOLING_FILE)
served(KIND, "no prompt in the pooling", lambda p: edit(p, POOLING_FILE, include_prompt=False))
served(KIND, "no files of sentence-transformers", lambda p: remove(
    p, POOLING_FILE, "modules.json", ST_FILE), "last token", items=PLAIN_ITEMS[:1])
served(KIND, "dense", add_dense)
served(KIND, "dense with bias and tanh", lambda p: add_dense(
    p, dense_weights(64, 256, True), bias=True,
    activation_function="torch.nn.modules.activation.Tanh"))
refused(KIND, "dense with another activation", lambda p: add_dense(
    p, activation_function="torch.nn.modules.activation.GELU"), "3_Dense/config.json",
    "activation_function", "GELU")
refused(KIND, "dense without weights", lambda p: [add_dense(p), remove(
    p, "3_Dense/model.safetensors")], "3_Dense", weights=True)
refused(KIND, "dense of another width", lambda p: add_dense(p, in_features=128),
        "3_Dense/config.json", "in_features")
refused(KIND, "a pointer for the dense weights", lambda p: add_dense(
    p, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"), "3_Dense",
    "Git LFS", weights=True)
refused(KIND, "an unknown module", lambda p: add_modules(p, entry(3, "LayerNorm")),
        "modules.json", "LayerNorm")
refused(KIND, "a module of its own code", lambda p: add_modules(
    p, {**entry(3, "Suffix"), "type": "custom_st.SuffixModule"}), "modules.json", "custom_st")

KIND = "tokenizer state"
served(KIND, "padding", lambda p: edit(p, "tokenizer.json", padding=PADDING))
served(KIND, "truncation", lambda p: edit(
    p, "tokenizer.json", truncation={**TRUNCATION, "max_length": 512}), "512", "tokenizer.json")
served(KIND, "both", lambda p: edit(p, "tokenizer.json", padding=PADDING, truncation={
    **TRUNCATION, "max_length": 128, "direction": "Left"}), "128", "tokenizer.json")
served(KIND, "a longer truncation", lambda p: edit(
    p, "tokenizer.json", truncation={**TRUNCATION, "max_length": 100000}), "8192")
served(KIND, "a maximum of sentence-transformers", lambda p: put(
    p, "sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": False}), "256",
    "sentence_bert_config.json")
served(KIND, "a maximum of the tokenizer", lambda p: put(
    p, "tokenizer_config.json", {**TOKENIZER_CONFIG, "model_max_length": 300}), "300",
    "tokenizer_config.json")
refused(KIND, "lower case", lambda p: put(
    p, "sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": True}),
    "sentence_bert_config.json", "do_lower_case")
refused(KIND, "no end token", lambda p: edit(p, "tokenizer.json", post_processor=None),
        "tokenizer.json")

# --- published embedders, with what their files are known to hold ------------------------------

KIND = "published embedders"
SPECIAL_MAP = {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
               "eos_token": {"content": "<|im_end|>", "lstrip": False, "normalized": False,
                             "rstrip": False, "single_word": False},
               "pad_token": {"content": "<|endoftext|>", "lstrip": False, "normalized": False,
                             "rstrip": False, "single_word": False}}
ADDED_TOKENS = {"<|endoftext|>": 16000, "<|im_end|>": 16002, "<|im_start|>": 16001}


def with_tokenizer_files(place):
    put(place, "tokenizer_config.json", TOKENIZER_CONFIG)
    put(place, "special_tokens_map.json", SPECIAL_MAP)
    put(place, "added_tokens.json", ADDED_TOKENS)
    put(place, "chat_template.jinja", "{{ messages }}")
    put(place, "vocab.json", {})
    put(place, "merges.txt", "")
    put(place, "generation_config.json", {"do_sample": True, "temperature": 0.6, "top_k": 20})


def like_octen(place):
    """A fine-tuned model saved by way of transformers 4.57, with an old Normalize's config."""
    with_tokenizer_files(place)
    put(place, "2_Normalize/config.json", {"normalize_embeddings": True})
    edit(place, "config.json", layer_types=["full_attention"] * 4, pad_token_id=16000,
         dtype="bfloat16", transformers_version="4.57.1", max_window_layers=4)
    put(place, ST_FILE, {"prompts": {"query": "", "document": "- "}, "default_prompt_name": None,
                         "similarity_fn_name": "cosine"})


def like_harrier(place):
    """Many prompts by name, none for "query"; Qwen3Model; weights in bfloat16 without prefix."""
    with_tokenizer_files(place)
    edit(place, "config.json", architectures=["Qwen3Model"], use_cache=False)
    put(place, ST_FILE, {
        "model_type": "SentenceTransformer", "__version__": {"sentence_transformers": "5.2.0"},
        "prompts": {"web_search_query": TASK + " ", "sts_query":
                    "Instruct: Retrieve semantically similar text\nQuery: ",
                    "bitext_query": "Instruct: Retrieve parallel sentences\nQuery: "},
        "default_prompt_name": None, "similarity_fn_name": "cosine"})
    put(place, "sentence_bert_config.json", {"max_seq_length": 32768, "do_lower_case": False})


def like_zembed(place, suffix=False):
    """Chat tokens in the prompts and a default prompt; the real one also appends a suffix."""
    with_tokenizer_files(place)
    put(place, "sentence_bert_config.json", {"max_seq_length": 40960, "do_lower_case": False})
    put(place, ST_FILE, {
        "model_type": "SentenceTransformer",
        "prompts": {"query": "<|im_start|>system\nquery<|im_end|>\n<|im_start|>user\n",
                    "document": "<|im_start|>system\ndocument<|im_end|>\n<|im_start|>user\n"},
        **({"suffix": "<|im_end|>\n"} if suffix else {}),
        "default_prompt_name": "document", "similarity_fn_name": "cosine"})


def like_a_new_save(place):
    """All files as sentence-transformers 6 over transformers 5 writes them after training."""
    newer_config(place)
    put(place, POOLING_FILE, NEW_POOLING)
    put(place, "2_Normalize/config.json", {"module_input_name": "sentence_embedding",
                                           "module_output_name": "sentence_embedding"})
    put(place, "modules.json", [
        {"idx": 0, "name": "0", "path": "",
         "type": "sentence_transformers.base.modules.transformer.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling",
         "type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize",
         "type": "sentence_transformers.base.modules.normalize.Normalize"}])
    put(place, "sentence_bert_config.json", {
        "transformer_task": "feature-extraction", "module_output_name": "token_embeddings",
        "modality_config": {"text": {"method": "forward",
                                     "method_output_name": "last_hidden_state"}}})
    put(place, ST_FILE, {
        "__version__": {"pytorch": "2.15.0", "sentence_transformers": "6.2.0",
                        "transformers": "5.24.0"},
        "default_prompt_name": None, "model_type": "SentenceTransformer",
        "prompts": {"document": "", "query": TASK}, "similarity_fn_name": "cosine"})
    put(place, "tokenizer_config.json", {
        "add_prefix_space": False, "backend": "tokenizers", "bos_token": None,
        "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "errors": "replace",
        "extra_special_tokens": ["<|im_start|>", "<|im_end|>"], "is_local": True,
        "model_max_length": 8192, "pad_token": "<|endoftext|>", "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer", "unk_token": None})
    edit(place, "tokenizer.json", padding=PADDING, truncation={**TRUNCATION, "max_length": 8192})


def named(*names):
    return [{**PLAIN_ITEMS[0], "prompt_name": name} for name in names]


served(KIND, "Qwen3-Embedding", with_tokenizer_files, items=PLAIN_ITEMS + named(
    "query", "document"))
served(KIND, "like Octen-Embedding", like_octen, items=PLAIN_ITEMS + named("document"))
served(KIND, "like harrier-oss-v1", like_harrier, items=PLAIN_ITEMS[:1] + named(
    "web_search_query", "sts_query", "bitext_query"))
served(KIND, "like zembed-1 without its code", like_zembed,
       items=PLAIN_ITEMS + named("query", "document"))
refused(KIND, "zembed-1's suffix", lambda p: like_zembed(p, True), ST_FILE, "suffix")
served(KIND, "saved by today's libraries", like_a_new_save, items=PLAIN_ITEMS + named("query"))
refused(KIND, "like pplx-embed", lambda p: [edit(
    p, "config.json", architectures=["PPLXQwen3Model"], is_causal=False,
    auto_map={"AutoModel": "modeling.PPLXQwen3Model"}), put(
    p, POOLING_FILE, {**POOLING, "pooling_mode_lasttoken": False,
                      "pooling_mode_mean_tokens": True})], "config.json")
refused(KIND, "like Qwen3-VL-Embedding", lambda p: edit(
    p, "config.json", model_type="qwen3_vl", text_config={}), "config.json", "qwen3_vl")
refused(KIND, "like an AWQ folder", lambda p: edit(p, "config.json", quantization_config={
    "quant_method": "awq", "bits": 4}), "config.json", "quantization_config")
