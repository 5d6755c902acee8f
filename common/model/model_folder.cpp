#include "common/model/model_folder.hpp"

#include <cstdio>
#include <span>

#include "common/model/folder_location.hpp"
#include "common/model/settings/settings.hpp"
#include "common/model/settings/small_file.hpp"
#include "common/model/weights/dense_weights.hpp"
#include "common/model/weights/graph_tensors.hpp"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using Kind = VectorModule::Kind;

constexpr std::size_t kTokenizerBytesMax = 256 << 20;

Error invalid(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

// Fills `to` with what `parse` makes of a file; where there is none it stays as it is.
template <typename T, typename Parse>
Result<void> read_optional(const fs::path& path, Parse parse, T& to) {
  if (!is_there(path)) {
    return {};
  }
  auto text = read_small_file(path, kSettingsBytesMax);
  if (!text) {
    return text.error();
  }
  auto parsed = parse(*text, path.string());
  if (!parsed) {
    return parsed.error();
  }
  to = std::move(*parsed);
  return {};
}

Result<void> read_config(ModelFolder& folder) {
  const fs::path path = folder.transformer_dir() / "config.json";
  auto text = read_small_file(path, kModelConfigBytesMax);
  if (!text) {
    return text.error();
  }
  auto config = parse_model_config(*text, path.string());
  if (!config) {
    return config.error();
  }
  folder.config = std::move(*config);
  return {};
}

Result<void> read_other_settings(ModelFolder& folder) {
  const fs::path& dir = folder.transformer_dir();
  const fs::path prompts = folder.dir / "config_sentence_transformers.json";
  folder.prompts_named = is_there(prompts);
  for (const auto& read :
       {read_optional(prompts, parse_prompts, folder.prompts),
        read_optional(dir / "tokenizer_config.json", parse_tokenizer_config,
                      folder.tokenizer_config),
        read_optional(dir / "special_tokens_map.json", parse_tokenizer_config,
                      folder.special_tokens_map),
        read_optional(dir / "added_tokens.json", parse_added_tokens, folder.added_tokens)}) {
    if (!read) {
      return read.error();
    }
  }
  return {};
}

// Without modules.json sentence-transformers takes the last token of a causal language model and
// the mean of all tokens of anything else, whatever a pooling file says that no list names.
Result<void> check_pooling_is_known(const ModelFolder& folder) {
  const SentenceModules& modules = folder.modules;
  if (modules.listed || folder.config.architecture == "Qwen3ForCausalLM") {
    return {};
  }
  return invalid((folder.transformer_dir() / "config.json").string() + ": architectures is " +
                 (folder.config.architecture.empty() ? "missing" : folder.config.architecture) +
                 " and the folder has no modules.json, so it does not say how tokens become one "
                 "vector; add modules.json and 1_Pooling/config.json of the model");
}

// Answers are unit vectors, of which only cosines are the same as those of other lengths.
Result<void> check_similarity(ModelFolder& folder) {
  Prompts& prompts = folder.prompts;
  if (prompts.truncate_dim >= folder.embedding_size()) {
    prompts.truncate_dim = 0;
  }
  if (prompts.similarity != "cosine" && (!folder.modules.normalized || prompts.truncate_dim != 0)) {
    return invalid((folder.dir / "config_sentence_transformers.json").string() +
                   ": similarity_fn_name is \"" + prompts.similarity +
                   "\" and the model's vectors are not of unit length, while Tessera's are: set it "
                   "to \"cosine\" if that will do, or serve the model with sentence-transformers");
  }
  return {};
}

SeqlenLimit find_seqlen(const ModelFolder& folder) {
  SeqlenLimit limit{folder.config.max_position_embeddings, "config.json: max_position_embeddings"};
  const auto lower = [&](const std::optional<std::int64_t>& tokens, const char* where) {
    if (tokens && *tokens < limit.tokens) {
      limit = {*tokens, where};
    }
  };
  if (folder.modules.max_seq_length) {  // It stands in for the tokenizer's.
    lower(folder.modules.max_seq_length, "sentence_bert_config.json: max_seq_length");
  } else {
    lower(folder.tokenizer_config.model_max_length, "tokenizer_config.json: model_max_length");
  }
  return limit;
}

std::string exact(double value) {
  char text[40];
  std::snprintf(text, sizeof(text), "%.17g", value);
  return text;
}

}  // namespace

std::int64_t ModelFolder::embedding_size() const {
  std::int64_t width = config.hidden_size;
  for (const VectorModule& module : modules.modules) {
    width = module.kind == Kind::kDense ? module.out_features : width;
  }
  return width;
}

// A product without bias gives the same direction for a vector of any length.
bool ModelFolder::needs_raw_pooling() const {
  for (const VectorModule& module : modules.modules) {
    if (module.kind == Kind::kNormalize) {
      return false;
    }
    if (module.bias || module.activation != Activation::kIdentity) {
      return true;
    }
  }
  return false;
}

Result<ModelFolder> read_model_folder(const fs::path& given) {
  auto dir = find_model_folder(given);
  if (!dir) {
    return dir.error();
  }
  ModelFolder folder{.dir = *dir, .name = model_name(given)};
  auto modules = read_sentence_modules(folder.dir);
  if (!modules) {
    return modules.error();
  }
  folder.modules = std::move(*modules);
  if (auto config = read_config(folder); !config) {
    return config.error();
  }
  if (auto others = read_other_settings(folder); !others) {
    return others.error();
  }
  for (const auto& checked : {check_module_widths(folder.modules, folder.config),
                              check_pooling_is_known(folder), check_similarity(folder)}) {
    if (!checked) {
      return checked.error();
    }
  }
  folder.seqlen = find_seqlen(folder);
  return folder;
}

Result<FolderTokenizer> load_tokenizer(const ModelFolder& folder) {
  const fs::path path = folder.tokenizer_path();
  const fs::path& beside = folder.transformer_dir();
  if (!is_there(path) && is_there(beside / "vocab.json")) {
    return Error{ErrorCode::kNotFound,
                 path.string() +
                     " is not there, only vocab.json; make it with transformers: "
                     "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"};
  }
  auto text = read_small_file(path, kTokenizerBytesMax);
  if (!text) {
    return text.error();
  }
  auto tokenizer = Tokenizer::parse(*text);
  if (!tokenizer) {  // The sentence begins with the file's name.
    return invalid((beside / "").string() + tokenizer.error().message);
  }
  if (auto tested = tokenizer->self_test(); !tested) {
    return invalid((beside / "").string() + tested.error().message);
  }
  if (tokenizer->vocab_size() > folder.config.vocab_size) {
    return invalid(path.string() + " has " + std::to_string(tokenizer->vocab_size()) +
                   " ids, config.json's vocab_size is " + std::to_string(folder.config.vocab_size) +
                   ": these files are not of one model");
  }
  for (const auto& [settings, name] :
       {std::pair(&folder.tokenizer_config, "tokenizer_config.json"),
        std::pair(&folder.special_tokens_map, "special_tokens_map.json"),
        std::pair(&folder.added_tokens, "added_tokens.json")}) {
    if (auto named = check_named_tokens(*settings, *tokenizer, (beside / name).string()); !named) {
      return named.error();
    }
  }
  SeqlenLimit seqlen = folder.seqlen;
  const auto own = static_cast<std::int64_t>(tokenizer->truncation_length());
  if (own != 0 && own < seqlen.tokens) {
    seqlen = {own, "tokenizer.json: truncation"};
  }
  return FolderTokenizer{.tokenizer = std::move(*tokenizer), .seqlen = std::move(seqlen)};
}

Result<SafetensorsFolder> open_weights(const ModelFolder& folder) {
  auto weights = SafetensorsFolder::open(folder.transformer_dir());
  if (!weights) {
    return weights;
  }
  if (auto found = find_graph_weights(folder.config, *weights); !found) {
    return Error{found.error().code,
                 folder.transformer_dir().string() + ": " + found.error().message};
  }
  for (const VectorModule& module : folder.modules.modules) {
    if (module.kind == Kind::kDense) {
      if (auto dense = read_dense_weights(module); !dense) {
        return dense.error();
      }
    }
  }
  return weights;
}

Result<void> check_model_folder(const fs::path& given) {
  const auto folder = read_model_folder(given);
  if (!folder) {
    return folder.error();
  }
  if (auto tokenizer = load_tokenizer(*folder); !tokenizer) {
    return tokenizer.error();
  }
  if (auto weights = open_weights(*folder); !weights) {
    return weights.error();
  }
  return {};
}

std::string canonical_settings(const ModelFolder& folder) {
  const ModelConfig& c = folder.config;
  std::string text = "qwen3 causal last-token\n";
  const auto line = [&](const char* name, const std::string& value) {
    text += std::string(name) + " " + value + "\n";
  };
  line("hidden_size", std::to_string(c.hidden_size));
  line("num_hidden_layers", std::to_string(c.num_hidden_layers));
  line("intermediate_size", std::to_string(c.intermediate_size));
  line("num_attention_heads", std::to_string(c.num_attention_heads));
  line("num_key_value_heads", std::to_string(c.num_key_value_heads));
  line("head_dim", std::to_string(c.head_dim));
  line("vocab_size", std::to_string(c.vocab_size));
  line("rms_norm_eps", exact(c.rms_norm_eps));
  line("rope_theta", exact(c.rope_theta));
  // Every answer ends in unit length, so a Normalize in the end says nothing new.
  std::span<const VectorModule> modules(folder.modules.modules);
  while (!modules.empty() && modules.back().kind == Kind::kNormalize) {
    modules = modules.first(modules.size() - 1);
  }
  for (const VectorModule& module : modules) {
    if (module.kind == Kind::kNormalize) {
      line("module", "normalize");
      continue;
    }
    line("module", "dense " + std::to_string(module.in_features) + " " +
                       std::to_string(module.out_features) + (module.bias ? " bias" : " no-bias") +
                       (module.activation == Activation::kTanh ? " tanh" : " identity"));
  }
  return text;
}

std::vector<fs::path> dense_weight_files(const ModelFolder& folder) {
  std::vector<fs::path> files;
  for (const VectorModule& module : folder.modules.modules) {
    if (module.kind == Kind::kDense) {
      files.push_back(module.dir / "model.safetensors");
    }
  }
  return files;
}

std::vector<std::string> notes_on(const ModelFolder& folder) {
  const SentenceModules& modules = folder.modules;
  std::vector<std::string> notes;
  if (!modules.listed && !modules.pooling_named) {
    notes.push_back(
        "no modules.json: the last token's vector is the text's, as for any causal language model; "
        "texts go in as they are, without a chat template");
  }
  if (!modules.normalized) {
    notes.push_back(
        "no Normalize module at the end: vectors get unit length all the same, which leaves cosine "
        "similarities as they are");
  }
  if (folder.prompts.query().empty()) {
    notes.push_back(
        "no prompt for queries: they are embedded as they are unless an instruction is given");
  }
  if (!folder.prompts.plain_refusal.empty()) {
    notes.push_back("plain texts are refused: " + folder.prompts.plain_refusal);
  }
  if (folder.prompts.truncate_dim != 0) {
    notes.push_back("answers are " + std::to_string(folder.prompts.truncate_dim) +
                    " wide unless another width is asked for (truncate_dim)");
  }
  return notes;
}

}  // namespace tessera
