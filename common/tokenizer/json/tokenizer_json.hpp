#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.hpp"
#include "common/tokenizer/base/vocabulary.hpp"

namespace tessera::tokenizer {

// Two neighbours that become one token. A merge's rank is its index: lower ranks go first.
struct Merge {
  std::int32_t left = 0;
  std::int32_t right = 0;
  std::int32_t product = 0;
};

// A string that is looked for in the raw text before anything else and becomes one id.
struct AddedToken {
  std::string content;
  std::int32_t id = 0;
  bool special = false;
};

// What a tokenizer.json says, checked and in our terms.
struct TokenizerSpec {
  Vocabulary vocabulary;                 // Pieces as bytes, without the added tokens.
  std::vector<std::int32_t> byte_ids;    // 256: the id of each byte.
  std::vector<Merge> merges;             // By rank; no pair occurs twice.
  std::vector<AddedToken> added_tokens;  // In the file's order; no content occurs twice.
  bool normalize_nfc = false;
  std::vector<std::int32_t> prefix_ids;  // What the template puts before the text's ids,
  std::vector<std::int32_t> suffix_ids;  // and after them.
  std::size_t truncation_length = 0;     // Of whole texts, template included; 0: none.
};

// Reads the text of a tokenizer.json (Hugging Face tokenizers, version 1.0) of the Qwen2/Qwen3
// kind. The file is not trusted. Padding and the other settings of truncation change no ids of a
// text that is short enough, and are not read. Whatever in it would change ids and is not supported
// is refused with kInvalidArgument and a sentence that names it; so is any key that is not known.
Result<TokenizerSpec> parse_tokenizer_json(std::string_view json);

}  // namespace tessera::tokenizer
