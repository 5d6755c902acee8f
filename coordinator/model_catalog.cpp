#include "coordinator/model_catalog.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "common/check.hpp"
#include "common/log.hpp"
#include "common/model/fingerprint.hpp"
#include "common/model/model_config.hpp"

namespace tessera::coordinator {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kPromptsFileBytesMax = 1 << 20;
constexpr std::string_view kDefaultTask =
    "Given a web search query, retrieve relevant passages that answer the query";

template <typename T>
T value_or_fatal(Result<T> result, const fs::path& dir) {
  if (!result) {
    throw FatalError("model folder " + dir.string() + ": " + result.error().message);
  }
  return std::move(result).value();
}

// The folder's prompts; a folder that names none for queries gets the models' usual task.
void read_prompts(const fs::path& dir, ServedModel& model) {
  model.query_prefix = query_prefix(kDefaultTask);
  const fs::path path = dir / "config_sentence_transformers.json";
  if (!fs::exists(path)) {
    return;
  }
  const std::string text = value_or_fatal(read_small_file(path, kPromptsFileBytesMax), dir);
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (json.is_object() && json.contains("prompts") && json["prompts"].is_object()) {
    for (const auto& [name, prompt] : json["prompts"].items()) {
      if (prompt.is_string() && name.size() <= protocol::kNameBytesMax) {
        model.prompts.emplace(name, prompt.get<std::string>());
      }
    }
  }
  const auto query = model.prompts.find("query");
  if (query == model.prompts.end()) {
    log::warn("{} names no query prompt", path.string());
  } else {
    model.query_prefix = query->second;
  }
}

CatalogEntry load_model(const std::string& argument) {
  const auto equals = argument.find('=');
  const fs::path dir = equals == std::string::npos ? argument : argument.substr(equals + 1);
  fs::path named = fs::weakly_canonical(dir);
  std::string name =
      equals == std::string::npos ? named.filename().string() : argument.substr(0, equals);
  if (name.empty() || name.size() > protocol::kNameBytesMax) {
    throw FatalError("--model " + argument + ": the name has 1 to 256 bytes");
  }
  const ModelConfig config = value_or_fatal(read_model_config(dir), dir);
  Tokenizer tokenizer = value_or_fatal(Tokenizer::load(dir / "tokenizer.json"), dir);
  if (auto tested = tokenizer.self_test(); !tested) {
    throw FatalError("model folder " + dir.string() + ": " + tested.error().message);
  }
  if (tokenizer.vocab_size() > config.vocab_size) {
    throw FatalError("model folder " + dir.string() + ": the tokenizer has " +
                     std::to_string(tokenizer.vocab_size()) + " ids, the model " +
                     std::to_string(config.vocab_size));
  }
  ServedModel model{.name = std::move(name),
                    .tokenizer_hash = value_or_fatal(tokenizer_hash(dir), dir),
                    .hidden_size = static_cast<std::uint32_t>(config.hidden_size),
                    .max_seqlen = static_cast<std::uint32_t>(config.max_position_embeddings),
                    .vocab_size = static_cast<std::uint32_t>(config.vocab_size),
                    .final_token = tokenizer.suffix_ids().back(),
                    .query_prefix = {}};
  read_prompts(dir, model);
  return {.model = std::move(model), .tokenizer = std::move(tokenizer)};
}

}  // namespace

std::vector<CatalogEntry> load_models(const std::vector<std::string>& arguments) {
  std::vector<CatalogEntry> entries;
  for (const std::string& argument : arguments) {
    entries.push_back(load_model(argument));
    const std::string& name = entries.back().model.name;
    if (std::ranges::count(entries, name, [](const auto& e) { return e.model.name; }) > 1) {
      throw FatalError("two models have the name " + name + ": use --model NAME=DIR");
    }
    log::info("model {}: hidden_size {}, max_seqlen {}, vocab_size {}", name,
              entries.back().model.hidden_size, entries.back().model.max_seqlen,
              entries.back().model.vocab_size);
  }
  if (entries.empty()) {
    throw FatalError("no model is given: --model DIR");
  }
  return entries;
}

}  // namespace tessera::coordinator
