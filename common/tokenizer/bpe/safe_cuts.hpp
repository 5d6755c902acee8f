#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "common/tokenizer/base/hash.hpp"
#include "common/tokenizer/json/tokenizer_json.hpp"

namespace tessera::tokenizer {

// Between which neighbouring code points no token can ever reach: where no token of the vocabulary
// has these two next to each other, not even in part, no merge crosses, and a piece may be cut
// there and its parts encoded alone. In Chinese text that leaves parts of two or three characters,
// short enough for the word cache, where whole clauses would never repeat. A hashed set of the
// pairs that occur, so a few safe places are missed and none is wrong. Const after construction.
class SafeCuts {
 public:
  explicit SafeCuts(const TokenizerSpec& spec);

  // Whether a piece may be cut between `left` and `right`. Pairs of ASCII are not looked up: nearly
  // all of them occur.
  bool safe(char32_t left, char32_t right) const {
    return (left | right) >= 0x80 && !has(left, right) && !has(left, kAny) && !has(kAny, right);
  }

 private:
  static constexpr char32_t kAny = 0x110000;
  static constexpr unsigned kBits = 20;  // 128 KB; one in forty other pairs is held back too.

  static std::size_t place(char32_t left, char32_t right) {
    return static_cast<std::size_t>(((std::uint64_t{left} << 21U | right) * kMix1) >>
                                    (64U - kBits));
  }
  bool has(char32_t left, char32_t right) const {
    const std::size_t at = place(left, right);
    return (words_[at / 64] >> (at % 64) & 1U) != 0;
  }
  void add(char32_t left, char32_t right);
  void add_token(std::string_view piece);
  void add_any_before(std::string_view start_of_right);

  std::vector<std::uint64_t> words_;
  std::unordered_set<std::string> expanded_;  // What add_any_before has done.
};

}  // namespace tessera::tokenizer
