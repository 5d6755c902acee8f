#include "common/model/settings/model_config.hpp"

#include "common/model/settings/rope_settings.hpp"
#include "common/model/settings/settings.hpp"
#include "common/model/settings/tokenizer_settings.hpp"

namespace tessera {
namespace {

using Json = Settings::Json;

constexpr std::string_view kElsewhere =
    "Tessera does not compute this; serve such a model with sentence-transformers";

void read_architecture(Settings& config, ModelConfig& read) {
  config.allow("model_type", {"qwen3"}, "only \"qwen3\" is supported; choose a Qwen3 embedder");
  if (config.value("model_type") == nullptr) {
    config.refuse("model_type", "only \"qwen3\" is supported");
  }
  const Json* architectures = config.value("architectures");
  if (architectures == nullptr || architectures->is_null() || *architectures == Json::array()) {
    return;
  }
  if (*architectures != Json::array({"Qwen3ForCausalLM"}) &&
      *architectures != Json::array({"Qwen3Model"})) {
    return config.refuse("architectures", "only Qwen3ForCausalLM and Qwen3Model are supported");
  }
  read.architecture = (*architectures)[0].get<std::string>();
}

void check_attention(Settings& config) {
  config.allow("hidden_act", {"silu", "swish"}, "only \"silu\" is supported");
  config.allow("attention_bias", {false, nullptr}, kElsewhere);
  config.allow("mlp_bias", {false, nullptr}, kElsewhere);
  // transformers 5 asks for the truth of whatever stands there, so null is bidirectional, too.
  config.allow("is_causal", {true}, "Tessera computes causal attention only");
  config.allow("use_bidirectional_attention", {false, nullptr},
               "Tessera computes causal attention only");
  config.allow("is_encoder_decoder", {false, nullptr}, kElsewhere);
  config.allow("add_cross_attention", {false, nullptr}, kElsewhere);
  config.allow("cross_attention_hidden_size", {nullptr}, kElsewhere);
  config.allow("pruned_heads", {nullptr, Json::object()}, kElsewhere);
  config.allow("per_layer_config", {nullptr, Json::object()}, kElsewhere);
  config.allow("auto_map", {nullptr, Json::object()},
               "the folder brings code of its own, which Tessera does not run");
}

// A window that hides nothing is no window: turned off, behind the last layer, or as long as the
// longest text. Asked for after the sizes are known.
void check_windows(Settings& config, const ModelConfig& read) {
  const Json* window = config.value("sliding_window");
  const Json* first_layer = config.value("max_window_layers");
  bool hides = config.boolean("use_sliding_window", false);
  for (const auto& [sized, enough] : {std::pair(window, read.max_position_embeddings),
                                      std::pair(first_layer, read.num_hidden_layers)}) {
    if (sized != nullptr && sized->is_number_integer() && sized->get<std::int64_t>() >= enough) {
      hides = false;
    }
  }
  hides = hides && !(window != nullptr && window->is_null());
  const Json* types = config.value("layer_types");
  if (types == nullptr || types->is_null()) {
    if (hides) {
      config.refuse("use_sliding_window", kElsewhere);
    }
    return;
  }
  Json full = Json::array();
  for (std::int64_t i = 0; i < read.num_hidden_layers; ++i) {
    full.push_back("full_attention");
  }
  if (*types != full) {
    config.refuse("layer_types", "only \"full_attention\" in each of the " +
                                     std::to_string(read.num_hidden_layers) +
                                     " layers is supported");
  }
}

void check_quantisation(Settings& config) {
  constexpr std::string_view kWhy =
      "quantised weights are not supported; use the model's unquantised folder";
  config.allow("quantization_config", {nullptr}, kWhy);
  config.allow("compression_config", {nullptr}, kWhy);
}

// Training, generation, bookkeeping: none of it reaches the last hidden state of a batch of texts.
void take_harmless(Settings& config) {
  config.harmless({"_name_or_path",
                   "name_or_path",
                   "_commit_hash",
                   "transformers_version",
                   "unsloth_fixed",
                   "unsloth_version",
                   "model_name",
                   "attn_implementation",
                   "_attn_implementation",
                   "_attn_implementation_autoset",
                   "attention_dropout",
                   "initializer_range",
                   "use_cache",
                   "keys_to_ignore_at_inference",
                   "output_attentions",
                   "output_hidden_states",
                   "return_dict",
                   "use_return_dict",
                   "torchscript",
                   "chunk_size_feed_forward",
                   "tf_legacy_loss",
                   "use_bfloat16",
                   "pretraining_tp",
                   "is_decoder",
                   "tie_encoder_decoder",
                   "tie_last_hidden_states"});
  config.harmless({"pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id",
                   "mask_token_id", "unk_token_id", "decoder_start_token_id"});
  config.harmless({"finetuning_task", "id2label", "label2id", "num_labels", "problem_type",
                   "task_specific_params", "prefix", "is_matryoshka", "matryoshka_dimensions"});
  config.harmless({"max_length",
                   "min_length",
                   "do_sample",
                   "early_stopping",
                   "num_beams",
                   "num_beam_groups",
                   "diversity_penalty",
                   "temperature",
                   "top_k",
                   "top_p",
                   "typical_p",
                   "repetition_penalty",
                   "length_penalty",
                   "no_repeat_ngram_size",
                   "encoder_no_repeat_ngram_size",
                   "bad_words_ids",
                   "num_return_sequences",
                   "output_scores",
                   "return_dict_in_generate",
                   "forced_bos_token_id",
                   "forced_eos_token_id",
                   "remove_invalid_values",
                   "exponential_decay_length_penalty",
                   "suppress_tokens",
                   "begin_suppress_tokens"});
}

void read_sizes(Settings& config, ModelConfig& read) {
  read.hidden_size = config.integer("hidden_size", 32, 1 << 16);
  read.num_hidden_layers = config.integer("num_hidden_layers", 1, 1024);
  read.intermediate_size = config.integer("intermediate_size", 32, 1 << 20);
  read.num_attention_heads = config.integer("num_attention_heads", 1, 1024);
  const Json* kv_heads = config.value("num_key_value_heads");
  read.num_key_value_heads = kv_heads != nullptr && kv_heads->is_null()
                                 ? read.num_attention_heads
                                 : config.integer("num_key_value_heads", 1, 1024);
  read.head_dim = config.integer("head_dim", 16, 512, 128);
  read.vocab_size = config.integer("vocab_size", 1, 1 << 24);
  read.max_position_embeddings = config.integer("max_position_embeddings", 2, 1 << 24);
  read.rms_norm_eps = config.number("rms_norm_eps", 1e-6, 0.0, 1.0);
  read.tie_word_embeddings = config.boolean("tie_word_embeddings", false);
}

void check_sizes(Settings& config, const ModelConfig& read) {
  const auto require = [&](bool holds, const char* complaint) {
    if (!holds) {
      config.complain(complaint);
    }
  };
  require(read.num_attention_heads % read.num_key_value_heads == 0,
          "num_attention_heads is not a multiple of num_key_value_heads");
  require(read.head_dim % 16 == 0, "head_dim is not a multiple of 16");
  require(read.hidden_size % 32 == 0, "hidden_size is not a multiple of 32");
  require(read.intermediate_size % 32 == 0, "intermediate_size is not a multiple of 32");
}

}  // namespace

std::int64_t ModelConfig::linear_parameters_per_layer() const {
  return hidden_size * (q_width() + 2 * kv_width()) + q_width() * hidden_size +
         3 * hidden_size * intermediate_size;
}

std::int64_t ModelConfig::parameters() const {
  const std::int64_t norms_per_layer = 2 * hidden_size + 2 * head_dim;
  return vocab_size * hidden_size +
         num_hidden_layers * (linear_parameters_per_layer() + norms_per_layer) + hidden_size;
}

Result<ModelConfig> parse_model_config(std::string_view text, const std::string& file) {
  auto parsed = parse_settings(text, file);
  if (!parsed) {
    return parsed.error();
  }
  Settings config(file, *parsed);
  ModelConfig read;
  read_architecture(config, read);
  check_quantisation(config);
  check_attention(config);
  allow_tokenizer_class(config);  // It counts where tokenizer_config.json names none.
  read_sizes(config, read);
  read.rope_theta = read_rope_theta(config);
  for (const char* name : {"torch_dtype", "dtype"}) {  // The newer name wins.
    if (const Json* dtype = config.value(name); dtype != nullptr && dtype->is_string()) {
      read.torch_dtype = dtype->get<std::string>();
    }
  }
  take_harmless(config);
  if (config.ok()) {
    check_sizes(config, read);
    check_windows(config, read);
  } else {
    config.harmless({"use_sliding_window", "sliding_window", "max_window_layers", "layer_types"});
  }
  if (auto all = config.end(); !all) {
    return all.error();
  }
  return read;
}

}  // namespace tessera
