#include "common/tokenizer/added_tokens.hpp"

#include <algorithm>
#include <cstring>

namespace tessera::tokenizer {
namespace {

unsigned first_byte(const AddedToken& token) {
  return static_cast<unsigned char>(token.content.front());
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(std::span<const AddedToken> tokens)
    : tokens_(tokens.begin(), tokens.end()) {
  std::ranges::sort(tokens_, [](const AddedToken& a, const AddedToken& b) {
    return first_byte(a) != first_byte(b) ? first_byte(a) < first_byte(b)
                                          : a.content.size() > b.content.size();
  });
  first_of_byte_.fill(0);
  for (const AddedToken& token : tokens_) {
    ++first_of_byte_[first_byte(token) + 1];
  }
  for (unsigned byte = 0; byte < 256; ++byte) {
    if (first_of_byte_[byte + 1] > 0) {
      first_bytes_.push_back(static_cast<char>(byte));
    }
    first_of_byte_[byte + 1] += first_of_byte_[byte];
  }
}

std::optional<AddedTokenFinder::Match> AddedTokenFinder::match_at(std::string_view text,
                                                                  std::size_t begin) const {
  const unsigned byte = static_cast<unsigned char>(text[begin]);
  for (std::uint32_t i = first_of_byte_[byte]; i < first_of_byte_[byte + 1]; ++i) {
    const AddedToken& token = tokens_[i];
    if (text.substr(begin).starts_with(token.content)) {
      return Match{begin, begin + token.content.size(), token.id, token.special};
    }
  }
  return std::nullopt;
}

std::optional<AddedTokenFinder::Match> AddedTokenFinder::find(std::string_view text,
                                                              std::size_t from) const {
  if (first_bytes_.empty()) {
    return std::nullopt;
  }
  for (std::size_t at = from; at < text.size(); ++at) {
    if (first_bytes_.size() == 1) {  // In all files so far each starts with '<'.
      const void* next = std::memchr(text.data() + at, first_bytes_[0], text.size() - at);
      if (next == nullptr) {
        break;
      }
      at = static_cast<std::size_t>(static_cast<const char*>(next) - text.data());
    }
    if (std::optional<Match> match = match_at(text, at)) {
      return match;
    }
  }
  return std::nullopt;
}

}  // namespace tessera::tokenizer
