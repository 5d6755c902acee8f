#include "common/tokenizer/text/pretokenizer.hpp"

#include "common/tokenizer/text/ascii_scan.hpp"

namespace tessera::tokenizer {
namespace {

// The length of a contraction such as 's or 'LL at the start of `text`, which starts with an
// apostrophe; 0 for none. Case is folded as Unicode does: the only letter outside ASCII that folds
// into one of these is U+017F, the long s.
std::size_t contraction_length(std::string_view text) {
  const auto lower = [text](std::size_t i) {
    return i < text.size() ? static_cast<char>(text[i] | 0x20) : '\0';
  };
  const char first = lower(1);
  const char second = lower(2);
  switch (first) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 2;
    case 'r':
    case 'v':
      return second == 'e' ? 3 : 0;
    case 'l':
      return second == 'l' ? 3 : 0;
    default:
      return text.substr(1, 2) == "\xC5\xBF" ? 3 : 0;
  }
}

}  // namespace

std::size_t Pretokenizer::skip(std::string_view text, std::size_t from, CharClass wanted) const {
  while (from < text.size()) {
    const bool is_ascii = static_cast<unsigned char>(text[from]) < 0x80;
    if (is_ascii && wanted == CharClass::kLetter && from + ByteChunk::kSize <= text.size()) {
      const unsigned letters = run_length(ByteChunk(text.data() + from).letters(), 0);
      from += letters;
      if (letters == ByteChunk::kSize) {
        continue;
      }
    }
    const Char next = at(text, from);
    if (next.char_class != wanted) {
      break;
    }
    from += next.length;
  }
  return from;
}

std::size_t Pretokenizer::symbols_end(std::string_view text, std::size_t from) const {
  return skip(text, skip(text, from, CharClass::kOther), CharClass::kLineBreak);
}

// A run of white space at `begin` whose first character joins nothing after it. With a line break
// inside, the piece ends after the last one. Otherwise it is the whole run at the end of the text,
// and all but the last character before something else, which may join it.
std::size_t Pretokenizer::white_space_end(std::string_view text, std::size_t begin) const {
  std::size_t end = begin;
  std::size_t last_char = begin;
  std::size_t break_end = begin;
  while (end < text.size()) {
    const Char next = at(text, end);
    if (next.char_class != CharClass::kSpace && next.char_class != CharClass::kLineBreak) {
      break;
    }
    last_char = end;
    end += next.length;
    if (next.char_class == CharClass::kLineBreak) {
      break_end = end;
    }
  }
  if (break_end > begin) {
    return break_end;
  }
  return end == text.size() || last_char == begin ? end : last_char;
}

std::size_t Pretokenizer::piece_end(std::string_view text, std::size_t begin) const {
  if (text[begin] == '\'') {
    const std::size_t length = contraction_length(text.substr(begin, 3));
    if (length > 0) {
      return begin + length;
    }
  }
  const Char first = at(text, begin);
  const std::size_t next = begin + first.length;
  switch (first.char_class) {
    case CharClass::kLetter:
      return skip(text, next, CharClass::kLetter);
    case CharClass::kNumber:
      return next;
    case CharClass::kOther:
      return is(text, next, CharClass::kLetter) ? skip(text, next, CharClass::kLetter)
                                                : symbols_end(text, next);
    case CharClass::kSpace:
      if (is(text, next, CharClass::kLetter)) {
        return skip(text, next, CharClass::kLetter);
      }
      if (text[begin] == ' ' && is(text, next, CharClass::kOther)) {
        return symbols_end(text, next);
      }
      break;
    case CharClass::kLineBreak:
      break;
  }
  return white_space_end(text, begin);
}

}  // namespace tessera::tokenizer
