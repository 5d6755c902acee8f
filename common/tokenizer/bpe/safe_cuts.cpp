#include "common/tokenizer/bpe/safe_cuts.hpp"

#include <algorithm>
#include <optional>
#include <string_view>

#include "common/tokenizer/text/utf8.hpp"

namespace tessera::tokenizer {
namespace {

bool is_continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80U; }

// How many bytes the sequence of this lead byte has.
std::size_t sequence_length(char lead) {
  const unsigned byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// The code point that ends right before `at`, unless the piece starts inside it.
std::optional<char32_t> code_point_before(std::string_view piece, std::size_t at) {
  std::size_t begin = at;
  do {
    if (begin == 0) {
      return std::nullopt;
    }
    --begin;
  } while (is_continuation(piece[begin]));
  if (begin + sequence_length(piece[begin]) != at) {
    return std::nullopt;
  }
  return decode_utf8(piece.data() + begin).code_point;
}

// The first and last code points whose encoding starts with `prefix`, a part of one sequence.
struct Range {
  char32_t first;
  char32_t last;
};
Range code_points_of(std::string_view prefix) {
  char lowest[4] = {'\x80', '\x80', '\x80', '\x80'};
  char highest[4] = {'\xBF', '\xBF', '\xBF', '\xBF'};
  const std::size_t length = std::min<std::size_t>(prefix.size(), 4);
  std::copy_n(prefix.begin(), length, lowest);
  std::copy_n(prefix.begin(), length, highest);
  return {decode_utf8(lowest).code_point, decode_utf8(highest).code_point};
}

}  // namespace

SafeCuts::SafeCuts(const TokenizerSpec& spec) : words_((std::size_t{1} << kBits) / 64) {
  for (const Merge& merge : spec.merges) {
    add_token(spec.vocabulary.piece(merge.product));
  }
}

void SafeCuts::add(char32_t left, char32_t right) {
  const std::size_t at = place(left, right);
  words_[at / 64] |= std::uint64_t{1} << (at % 64);
}

// Every place inside the token where a code point could start. A neighbour that the token holds
// only in part could be any of those that continue it: then the other one is never cut at.
void SafeCuts::add_token(std::string_view piece) {
  for (std::size_t at = 1; at < piece.size(); ++at) {
    if (is_continuation(piece[at])) {
      continue;
    }
    const std::optional<char32_t> left = code_point_before(piece, at);
    const std::size_t end = at + sequence_length(piece[at]);
    const bool right_is_whole = end <= piece.size();
    if (left && right_is_whole) {
      add(*left, decode_utf8(piece.data() + at).code_point);
    } else if (left) {
      add(*left, kAny);
    } else {
      add_any_before(piece.substr(at, end - at));
    }
  }
}

void SafeCuts::add_any_before(std::string_view start_of_right) {
  if (!expanded_.emplace(start_of_right).second) {
    return;
  }
  const Range right = code_points_of(start_of_right);
  for (char32_t code_point = right.first; code_point <= right.last; ++code_point) {
    add(kAny, code_point);
  }
}

}  // namespace tessera::tokenizer
