#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace tessera::coordinator {

// What a model folder says, and what the tokenizer adds behind a text.
struct ServedModel {
  std::string name;
  std::string tokenizer_hash;  // 64 hex digits
  std::uint32_t hidden_size = 0;
  std::uint32_t max_seqlen = 0;
  std::uint32_t vocab_size = 0;
  std::int32_t final_token = 0;
  std::string query_prefix;       // The folder's own prompt for queries without an instruction.
  std::string document_prefix{};  // Before texts that are no queries.
  // The folder's prompts by name.
  std::map<std::string, std::string, std::less<>> prompts{};
  // Why texts that are no queries must name a prompt; empty: they need not.
  std::string plain_refusal{};
  std::uint32_t default_dimensions = 0;  // Of answers, unless a width is asked for; 0: all.
};

}  // namespace tessera::coordinator
