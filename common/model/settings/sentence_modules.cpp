#include "common/model/settings/sentence_modules.hpp"

#include <algorithm>
#include <array>
#include <set>

#include "common/model/settings/settings.hpp"
#include "common/model/settings/small_file.hpp"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using Json = Settings::Json;

constexpr std::string_view kElsewhere =
    "Tessera does not implement this; serve such a model with sentence-transformers";
constexpr std::size_t kModulesMax = 32;
constexpr std::int64_t kWidthMax = 1 << 16;

Error invalid(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

// The names under which sentence-transformers 2 to 6 have saved the four kinds.
std::string kind_of(const std::string& type) {
  for (const std::string kind : {"Transformer", "Pooling", "Normalize", "Dense"}) {
    std::string lower = kind;
    lower[0] = static_cast<char>(lower[0] - 'A' + 'a');
    const std::string base = kind == "Pooling"
                                 ? "sentence_transformers.sentence_transformer.modules"
                                 : "sentence_transformers.base.modules";
    const std::string names[] = {
        "sentence_transformers.models." + kind,
        "sentence_transformers.models." + kind + "." + kind,
        base + "." + kind,
        base + "." + lower + "." + kind,
        "sentence_transformers.sentence_transformer.modules." + kind,
    };
    if (std::ranges::find(names, type) != std::end(names)) {
      return kind;
    }
  }
  return "";
}

bool is_inside(const std::string& path) {
  const fs::path relative(path);
  return relative.is_relative() && path.find('\0') == std::string::npos &&
         std::ranges::none_of(relative, [](const fs::path& part) { return part == ".."; });
}

Result<ModuleEntry> parse_entry(const Json& value, const std::string& file) {
  if (!value.is_object()) {
    return invalid(file + ": an entry is not an object");
  }
  Settings entry(file, value);
  entry.harmless({"idx", "name"});
  entry.allow("kwargs", {nullptr, Json::array()}, kElsewhere);
  ModuleEntry read{.path = entry.text("path"), .kind = kind_of(entry.text("type"))};
  if (read.kind.empty()) {
    entry.refuse("type",
                 "only Transformer, Pooling, Normalize and Dense of sentence-transformers are "
                 "supported; serve such a model with sentence-transformers");
  }
  if (const Json* path = entry.value("path"); path == nullptr || !path->is_string()) {
    entry.refuse("path", "not a path inside the folder");
  } else if (!is_inside(read.path)) {
    entry.refuse("path", "not a path inside the folder");
  }
  if (auto all = entry.end(); !all) {
    return all.error();
  }
  return read;
}

Result<std::string> read_setting_file(const fs::path& path) {
  return read_small_file(path, kSettingsBytesMax);
}

// Any of the names that older classes gave the same file; the first that says something counts.
Result<std::optional<std::int64_t>> read_sentence_bert(const fs::path& dir) {
  for (const char* name : {"sentence_bert_config.json", "sentence_roberta_config.json",
                           "sentence_distilbert_config.json", "sentence_camembert_config.json",
                           "sentence_albert_config.json", "sentence_xlm-roberta_config.json",
                           "sentence_xlnet_config.json"}) {
    if (is_there(dir / name)) {
      auto text = read_setting_file(dir / name);
      if (!text) {
        return text.error();
      }
      auto limit = parse_sentence_bert(*text, (dir / name).string());
      if (!limit || Json::parse(*text, nullptr, false) != Json::object()) {
        return limit;
      }
    }
  }
  return std::optional<std::int64_t>();
}

// The module's keys in the batch: every step reads and writes the one vector.
void check_names(Settings& module) {
  module.allow("module_input_name", {"sentence_embedding"}, kElsewhere);
  module.allow("module_output_name", {"sentence_embedding", nullptr}, kElsewhere);
}

Result<VectorModule> read_normalize(const fs::path& dir) {
  const fs::path path = dir / "config.json";
  if (!is_there(path)) {
    return VectorModule{};
  }
  auto text = read_setting_file(path);
  if (!text) {
    return text.error();
  }
  auto object = parse_settings(*text, path.string());
  if (!object) {
    return object.error();
  }
  Settings module(path.string(), *object);
  check_names(module);
  // Of a class that is no more; some published folders have it, and what it says is done anyway.
  module.allow("normalize_embeddings", {true}, kElsewhere);
  if (auto all = module.end(); !all) {
    return all.error();
  }
  return VectorModule{};
}

Result<VectorModule> read_dense(const fs::path& dir) {
  const fs::path path = dir / "config.json";
  auto text = read_setting_file(path);
  if (!text) {
    return text.error();
  }
  auto dense = parse_dense(*text, path.string());
  if (dense) {
    dense->dir = dir;
  }
  return dense;
}

Result<void> read_pooling(const fs::path& path, SentenceModules& read) {
  auto text = read_setting_file(path);
  if (!text) {
    return text.error();
  }
  auto named = parse_pooling(*text, path.string());
  if (!named) {
    return named.error();
  }
  read.pooling_named = true;
  read.pooling_file = path;
  read.pooling_width = *named;
  return {};
}

Result<void> read_listed(const fs::path& model_dir, const std::vector<ModuleEntry>& entries,
                         SentenceModules& read) {
  read.listed = true;
  for (const ModuleEntry& entry : entries) {
    const fs::path dir = entry.path.empty() ? model_dir : model_dir / entry.path;
    if (entry.kind == "Transformer") {
      read.transformer_dir = dir;
    } else if (entry.kind == "Pooling") {
      if (auto pooling = read_pooling(dir / "config.json", read); !pooling) {
        return pooling.error();
      }
    } else {
      auto module = entry.kind == "Dense" ? read_dense(dir) : read_normalize(dir);
      if (!module) {
        return module.error();
      }
      read.modules.push_back(std::move(*module));
    }
  }
  read.normalized =
      !read.modules.empty() && read.modules.back().kind == VectorModule::Kind::kNormalize;
  return {};
}

}  // namespace

Result<std::vector<ModuleEntry>> parse_modules(std::string_view text, const std::string& file) {
  if (text.size() > kSettingsBytesMax) {
    return invalid(file + ": larger than " + std::to_string(kSettingsBytesMax) + " bytes");
  }
  const Json list = Json::parse(text, nullptr, false);
  if (!list.is_array() || list.empty() || list.size() > kModulesMax) {
    return invalid(file + ": not a JSON list of 1 to 32 modules");
  }
  std::vector<ModuleEntry> entries;
  std::set<std::string> names;
  for (const Json& value : list) {
    auto entry = parse_entry(value, file);
    if (!entry) {
      return entry.error();
    }
    if (!names.insert(shown(value.value("name", Json()))).second) {
      return invalid(file + ": two modules have the name " + shown(value.value("name", Json())));
    }
    entries.push_back(std::move(*entry));
  }
  const auto is_front = [](const ModuleEntry& e) {
    return e.kind == "Transformer" || e.kind == "Pooling";
  };
  if (entries.size() < 2 || entries[0].kind != "Transformer" || entries[1].kind != "Pooling" ||
      std::any_of(entries.begin() + 2, entries.end(), is_front)) {
    return invalid(file +
                   ": only a Transformer, a Pooling, and behind them Normalize and Dense are "
                   "supported, in this order");
  }
  return entries;
}

Result<std::int64_t> parse_pooling(std::string_view text, const std::string& file) {
  constexpr std::string_view kWhy =
      "only the last token's vector (pooling_mode_lasttoken) is supported; serve such a model with "
      "sentence-transformers";
  auto object = parse_settings(text, file);
  if (!object) {
    return object.error();
  }
  Settings pooling(file, *object);
  const bool named = pooling.value("pooling_mode") != nullptr;
  pooling.allow("pooling_mode", {"lasttoken", Json::array({"lasttoken"})}, kWhy);
  for (const char* other :
       {"pooling_mode_cls_token", "pooling_mode_mean_tokens", "pooling_mode_max_tokens",
        "pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens"}) {
    if (pooling.boolean(other, false) && !named) {  // The newer key makes the older ones void.
      pooling.refuse(other, kWhy);
    }
  }
  if (!pooling.boolean("pooling_mode_lasttoken", false) && !named) {
    pooling.refuse("pooling_mode_lasttoken", kWhy);
  }
  pooling.allow("include_prompt", {true, false}, kElsewhere);  // The last token is never in it.
  const std::int64_t old_width = pooling.integer("word_embedding_dimension", 1, kWidthMax, 0);
  const std::int64_t width = pooling.integer("embedding_dimension", 1, kWidthMax, old_width);
  if (auto all = pooling.end(); !all) {
    return all.error();
  }
  return width;
}

Result<VectorModule> parse_dense(std::string_view text, const std::string& file) {
  auto object = parse_settings(text, file);
  if (!object) {
    return object.error();
  }
  Settings dense(file, *object);
  VectorModule read{.kind = VectorModule::Kind::kDense, .dir = {}};
  read.in_features = dense.integer("in_features", 1, kWidthMax);
  read.out_features = dense.integer("out_features", 1, kWidthMax);
  read.bias = dense.boolean("bias", true);
  dense.allow("use_residual", {false}, kElsewhere);
  check_names(dense);
  // Without the key it is Tanh.
  const std::string activation =
      dense.text("activation_function", "torch.nn.modules.activation.Tanh");
  if (activation == "torch.nn.modules.linear.Identity" || activation == "torch.nn.Identity") {
    read.activation = Activation::kIdentity;
  } else if (activation == "torch.nn.modules.activation.Tanh" || activation == "torch.nn.Tanh") {
    read.activation = Activation::kTanh;
  } else {
    dense.refuse("activation_function",
                 "only torch's Identity and Tanh are supported; serve such a model with "
                 "sentence-transformers");
  }
  if (auto all = dense.end(); !all) {
    return all.error();
  }
  return read;
}

Result<std::optional<std::int64_t>> parse_sentence_bert(std::string_view text,
                                                        const std::string& file) {
  auto object = parse_settings(text, file);
  if (!object) {
    return object.error();
  }
  Settings settings(file, *object);
  settings.allow("do_lower_case", {false, nullptr}, kElsewhere);
  settings.allow("transformer_task", {"feature-extraction"}, kElsewhere);
  settings.allow(
      "modality_config",
      {Json{{"text", {{"method", "forward"}, {"method_output_name", "last_hidden_state"}}}}},
      kElsewhere);
  settings.allow("module_output_name", {"token_embeddings"}, kElsewhere);
  settings.allow("tokenizer_name_or_path", {nullptr}, kElsewhere);
  settings.harmless({"unpad_inputs", "backend"});
  for (const char* none :
       {"processing_kwargs", "query_length", "document_length", "query_expansion", "config_args",
        "config_kwargs", "tokenizer_args", "processor_kwargs"}) {
    settings.allow(none, {nullptr, Json::object()}, kElsewhere);
  }
  for (const char* name : {"model_args", "model_kwargs"}) {
    const Json* arguments = settings.value(name);
    if (arguments == nullptr || arguments->is_null()) {
      continue;
    }
    for (const auto& [key, value] : arguments->items()) {
      const std::array<std::string_view, 5> known = {"attn_implementation", "torch_dtype", "dtype",
                                                     "device_map", "low_cpu_mem_usage"};
      if (!arguments->is_object() || std::ranges::find(known, key) == known.end()) {
        settings.refuse(name, kElsewhere);
      }
    }
  }
  std::optional<std::int64_t> limit;
  if (const Json* given = settings.value("max_seq_length"); given != nullptr && !given->is_null()) {
    limit = settings.integer("max_seq_length", 2, std::int64_t{1} << 40);
  }
  if (auto all = settings.end(); !all) {
    return all.error();
  }
  return limit;
}

Result<SentenceModules> read_sentence_modules(const fs::path& model_dir) {
  SentenceModules read{.transformer_dir = model_dir};
  const fs::path list = model_dir / "modules.json";
  if (is_there(list)) {
    auto text = read_setting_file(list);
    if (!text) {
      return text.error();
    }
    auto entries = parse_modules(*text, list.string());
    if (!entries) {
      return entries.error();
    }
    if (auto done = read_listed(model_dir, *entries, read); !done) {
      return done.error();
    }
  } else if (const fs::path alone = model_dir / "1_Pooling" / "config.json"; is_there(alone)) {
    if (auto pooling = read_pooling(alone, read); !pooling) {
      return pooling.error();
    }
  }
  auto limit = read_sentence_bert(read.transformer_dir);
  if (!limit) {
    return limit.error();
  }
  read.max_seq_length = *limit;
  return read;
}

Result<void> check_module_widths(const SentenceModules& modules, const ModelConfig& config) {
  std::int64_t width = config.hidden_size;
  if (modules.pooling_width != 0 && modules.pooling_width != width) {
    return invalid(modules.pooling_file.string() +
                   ": its width (embedding_dimension, word_embedding_dimension) is " +
                   std::to_string(modules.pooling_width) + ", config.json's hidden_size " +
                   std::to_string(width) + ": these files are not of one model");
  }
  for (const VectorModule& module : modules.modules) {
    if (module.kind != VectorModule::Kind::kDense) {
      continue;
    }
    if (module.in_features != width) {
      return invalid((module.dir / "config.json").string() + ": in_features is " +
                     std::to_string(module.in_features) + ", but the vectors that come in are " +
                     std::to_string(width) + " wide: these files are not of one model");
    }
    width = module.out_features;
  }
  return {};
}

}  // namespace tessera
