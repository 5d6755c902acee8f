#include "bench/tokenizer/adversarial.hpp"

#include <algorithm>
#include <functional>
#include <random>
#include <string_view>

namespace tessera {
namespace {

std::string repeated(std::size_t bytes, std::string_view unit, std::string_view start = {}) {
  std::string text(start);
  while (text.size() < bytes) {
    text.append(unit);
  }
  return text;
}

// Units drawn until there are enough bytes.
std::string drawn(std::size_t bytes, const std::function<std::string()>& draw) {
  std::string text;
  while (text.size() < bytes) {
    text.append(draw());
  }
  return text;
}

std::string utf8(unsigned code_point) {  // Of three bytes.
  return {static_cast<char>(0xE0U | code_point >> 12U),
          static_cast<char>(0x80U | (code_point >> 6U & 0x3FU)),
          static_cast<char>(0x80U | (code_point & 0x3FU))};
}

bool all_letters(std::string_view piece) {
  return std::ranges::all_of(piece, [](char c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; });
}

}  // namespace

std::vector<std::pair<std::string, std::string>> adversarial_texts(const Tokenizer& tokenizer,
                                                                   std::size_t bytes) {
  std::mt19937 random(7);
  const auto below = [&random](unsigned count) { return static_cast<unsigned>(random() % count); };
  std::vector<std::string>
      words;  // Vocabulary entries of letters only, so that nothing splits them.
  for (std::int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string_view piece = tokenizer.piece(id);
    if (piece.size() > 1 && all_letters(piece)) {
      words.emplace_back(piece);
    }
  }
  const auto letter = [&](unsigned letters) {
    return std::string(1, static_cast<char>('a' + below(letters)));
  };
  return {
      {"one letter", repeated(bytes, "a")},
      {"alternating pair", repeated(bytes, "ab")},
      {"alternating three", repeated(bytes, "aab")},
      {"English without spaces", repeated(bytes, "thequickbrownfoxjumpsoverthelazydogwhile")},
      {"random letters", drawn(bytes, [&] { return letter(26); })},
      {"random of two letters", drawn(bytes, [&] { return letter(2); })},
      {"random words, no spaces",
       drawn(bytes, [&] { return words[below(static_cast<unsigned>(words.size()))]; })},
      {"random Han", drawn(bytes, [&] { return utf8(0x4E00 + below(0x5000)); })},
      {"random Hangul", drawn(bytes, [&] { return utf8(0xAC00 + below(11172)); })},
      {"letter and marks", repeated(bytes, "\xCC\x81", "e")},
      {"spaces", repeated(bytes, " ")},
      {"line breaks", repeated(bytes, "\r\n")},
      {"equals signs", repeated(bytes, "=")},
      {"random symbols",
       drawn(bytes, [&] { return std::string(1, "!#$%&()*+,-./:;=?@[]^_{|}~"[below(26)]); })},
      {"runs of equals signs",
       drawn(bytes, [&] { return std::string(1 + below(200), '=') + "-"; })},
      {"digits", repeated(bytes, "7")},
      {"base64", drawn(bytes,
                       [&] {
                         constexpr std::string_view kAlphabet =
                             "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
                         return std::string(1, kAlphabet[below(64)]);
                       })},
      {"emoji", repeated(bytes, "\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7")},
      {"special-token openings", repeated(bytes, "<|")},
  };
}

}  // namespace tessera
