#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "common/tokenizer/tokenizer_json.hpp"

namespace tessera::tokenizer {

// Finds added tokens in raw text: the leftmost first, the longest of those that start at one place,
// case-sensitive, also inside words. Const after construction; any thread.
class AddedTokenFinder {
 public:
  struct Match {
    std::size_t begin;
    std::size_t end;
    std::int32_t id;
    bool special;
  };

  explicit AddedTokenFinder(std::span<const AddedToken> tokens);

  // The first match at or after `from`.
  std::optional<Match> find(std::string_view text, std::size_t from) const;

 private:
  std::optional<Match> match_at(std::string_view text, std::size_t begin) const;

  std::vector<AddedToken> tokens_;                // By first byte, then the longest first.
  std::array<std::uint32_t, 257> first_of_byte_;  // Tokens that start with byte b: [b] to [b + 1].
  std::vector<char> first_bytes_;                 // The distinct first bytes.
};

}  // namespace tessera::tokenizer
