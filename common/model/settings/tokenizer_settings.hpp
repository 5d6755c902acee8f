#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.hpp"
#include "common/tokenizer/tokenizer.hpp"

namespace tessera {

class Settings;

// What the files beside tokenizer.json say. They add to it in transformers, so here they may only
// repeat what it has.
struct TokenizerSettings {
  struct NamedToken {
    std::string key;  // "pad_token"
    std::string content;
    std::optional<std::int32_t> id;
  };
  std::vector<NamedToken> tokens;
  std::size_t decoder_tokens = 0;                // of them those in added_tokens_decoder
  std::optional<std::int64_t> model_max_length;  // tokens of a text, where it is a real limit
};

// tokenizer_config.json, special_tokens_map.json (a part of the same keys) and added_tokens.json
// (token to id) by an allow-list; `file` is how complaints name them.
Result<TokenizerSettings> parse_tokenizer_config(std::string_view text, const std::string& file);
Result<TokenizerSettings> parse_added_tokens(std::string_view text, const std::string& file);

// Refuses a tokenizer_class other than those that read tokenizer.json as this project does. The key
// is in tokenizer_config.json and, where that one lacks it, counts in config.json.
void allow_tokenizer_class(Settings& settings);

// Every token that the settings name is one that tokenizer.json looks for in texts, under the same
// id. transformers would add others, and texts that contain them would get other ids. An
// added_tokens_decoder names all or none: transformers 5 numbers the tokens of a part anew.
Result<void> check_named_tokens(const TokenizerSettings& settings, const Tokenizer& tokenizer,
                                const std::string& file);

}  // namespace tessera
