#include "coordinator/model_catalog.hpp"

#include <algorithm>

#include "common/check.hpp"
#include "common/log.hpp"
#include "common/model/fingerprint.hpp"
#include "common/model/model_folder.hpp"
#include "common/wire/protocol.hpp"

namespace tessera::coordinator {
namespace {

namespace fs = std::filesystem;

// What a person should know before the first vector is made.
void log_notes(const std::string& name, const ModelFolder& folder, const SeqlenLimit& seqlen) {
  log::info("model {}: texts of up to {} tokens ({})", name, seqlen.tokens, seqlen.where);
  for (const std::string& note : notes_on(folder)) {
    log::info("model {}: {}", name, note);
  }
}

CatalogEntry load_model(const std::string& argument) {
  const auto equals = argument.find('=');
  const fs::path given = equals == std::string::npos ? argument : argument.substr(equals + 1);
  const std::string where = "--model " + argument + ": ";
  const ModelFolder folder = value_or_fatal(read_model_folder(given), where);
  std::string name = equals == std::string::npos ? folder.name : argument.substr(0, equals);
  if (name.empty() || name.size() > protocol::kNameBytesMax) {
    throw FatalError(where + "the name has 1 to 256 bytes");
  }
  // The workers load the weights; where this copy has them, too, it must be of the same model.
  if (const auto weights = open_weights(folder);
      !weights && weights.error().code != ErrorCode::kNotFound) {
    throw FatalError(where + weights.error().message);
  }
  FolderTokenizer loaded = value_or_fatal(load_tokenizer(folder), where);
  log_notes(name, folder, loaded.seqlen);
  ServedModel model{
      .name = std::move(name),
      .tokenizer_hash = value_or_fatal(tokenizer_hash(folder.transformer_dir()), where),
      .hidden_size = static_cast<std::uint32_t>(folder.embedding_size()),
      .max_seqlen = static_cast<std::uint32_t>(loaded.seqlen.tokens),
      .vocab_size = static_cast<std::uint32_t>(folder.config.vocab_size),
      .final_token = loaded.tokenizer.suffix_ids().back(),
      .query_prefix = folder.prompts.query(),
      .document_prefix = folder.prompts.document(),
      .prompts = folder.prompts.by_name,
      .plain_refusal = folder.prompts.plain_refusal,
      .default_dimensions = static_cast<std::uint32_t>(folder.prompts.truncate_dim)};
  return {.model = std::move(model), .tokenizer = std::move(loaded.tokenizer)};
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
