#include "bench/tokenizer/adversarial.hpp"

#include <algorithm>
#include <functional>
#include <random>
#include <string_view>

namespace tessera {
namespace {

constexpr std::size_t kBytes = 1'000'000;

std::string repeated(std::string_view unit, std::string_view start = {}) {
  std::string text(start);
  while (text.size() < kBytes) {
    text.append(unit);
  }
  return text;
}

// Units drawn until there are enough bytes.
std::string drawn(const std::function<std::string()>& draw) {
  std::string text;
  while (text.size() < kBytes) {
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

std::vector<std::pair<std::string, std::string>> adversarial_texts(const Tokenizer& tokenizer) {
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
      {"one letter", repeated("a")},
      {"alternating pair", repeated("ab")},
      {"alternating three", repeated("aab")},
      {"English without spaces", repeated("thequickbrownfoxjumpsoverthelazydogwhile")},
      {"random letters", drawn([&] { return letter(26); })},
      {"random of two letters", drawn([&] { return letter(2); })},
      {"random words, no spaces",
       drawn([&] { return words[below(static_cast<unsigned>(words.size()))]; })},
      {"random Han", drawn([&] { return utf8(0x4E00 + below(0x5000)); })},
      {"random Hangul", drawn([&] { return utf8(0xAC00 + below(11172)); })},
      {"letter and marks", repeated("\xCC\x81", "e")},
      {"spaces", repeated(" ")},
      {"line breaks", repeated("\r\n")},
      {"equals signs", repeated("=")},
      {"random symbols",
       drawn([&] { return std::string(1, "!#$%&()*+,-./:;=?@[]^_{|}~"[below(26)]); })},
      {"digits", repeated("7")},
      {"base64", drawn([&] {
         constexpr std::string_view kAlphabet =
             "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
         return std::string(1, kAlphabet[below(64)]);
       })},
      {"emoji", repeated("\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7")},
      {"special-token openings", repeated("<|")},
  };
}

}  // namespace tessera
