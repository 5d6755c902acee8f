#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "common/result.hpp"

namespace tessera {

// What config_sentence_transformers.json says about texts and answers.
struct Prompts {
  // By name. "query" and "document" are always there, empty where the file has none, as in
  // sentence-transformers 5 and later.
  std::map<std::string, std::string, std::less<>> by_name = {{"query", ""}, {"document", ""}};
  // Why texts that are neither queries nor have a prompt's name cannot be served: the file leaves
  // open which prompt they get. Empty: they get "document", as encode_document gives it.
  std::string plain_refusal;
  std::optional<std::string> default_name;  // what sentence-transformers' plain encode would take
  std::string similarity = "cosine";        // "cosine", "dot", "euclidean", "manhattan"
  std::int64_t truncate_dim = 0;            // width of answers unless another is asked for; 0: full

  const std::string& query() const { return by_name.find("query")->second; }
  const std::string& document() const { return by_name.find("document")->second; }
};

inline constexpr std::size_t kPromptNameBytesMax = 256;
inline constexpr std::size_t kPromptBytesMax = 64 << 10;
inline constexpr std::size_t kPromptsMax = 4096;

// Reads the file's text by an allow-list; `file` is how complaints name it.
Result<Prompts> parse_prompts(std::string_view text, const std::string& file);

}  // namespace tessera
