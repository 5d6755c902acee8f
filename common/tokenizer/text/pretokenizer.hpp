#pragma once

#include <cstddef>
#include <string_view>

#include "common/tokenizer/text/char_classes.hpp"
#include "common/tokenizer/text/utf8.hpp"

namespace tessera::tokenizer {

// The one split pattern that is supported, as the file writes it. Every piece is one match of the
// leftmost alternative that matches; the pattern matches at every position, so the pieces cover the
// text without gaps.
inline constexpr std::string_view kSplitPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

// Finds the pieces of kSplitPattern without a regular expression engine, in time linear in the
// text. Stateless; any thread.
class Pretokenizer {
 public:
  // The end of the piece that starts at `begin`; `text` is valid UTF-8 and begin < text.size().
  std::size_t piece_end(std::string_view text, std::size_t begin) const;

 private:
  struct Char {
    CharClass char_class;
    unsigned length;
  };

  Char at(std::string_view text, std::size_t offset) const {
    const Decoded decoded = decode_utf8(text.data() + offset);
    return {classes_.of(decoded.code_point), decoded.length};
  }
  bool is(std::string_view text, std::size_t offset, CharClass wanted) const {
    return offset < text.size() && at(text, offset).char_class == wanted;
  }
  std::size_t skip(std::string_view text, std::size_t from, CharClass wanted) const;
  std::size_t symbols_end(std::string_view text, std::size_t from) const;
  std::size_t white_space_end(std::string_view text, std::size_t begin) const;

  const CharClasses& classes_ = CharClasses::instance();
};

}  // namespace tessera::tokenizer
