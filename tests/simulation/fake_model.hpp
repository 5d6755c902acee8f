#pragma once

#include <cmath>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/float16.hpp"
#include "common/wire/protocol.hpp"
#include "coordinator/core/items/ids.hpp"

// A tokenizer and a model for tests: unlike texts get unlike ids, unlike ids unlike vectors.
namespace tessera::coordinator::simulation {

inline constexpr std::uint32_t kHiddenSize = 32;
inline constexpr std::uint64_t kRowBytes = 4 * kHiddenSize;  // Of a vector in an answer.
inline constexpr std::int32_t kVocabSize = 5000;
inline constexpr std::int32_t kFinalToken = 4999;
inline constexpr Micros kMs = 1000;
inline constexpr std::string_view kBadText = "bad";  // Texts that begin so do not tokenise.

// A text's ids: unlike for unlike texts, 2 to about 40 of them.
inline std::vector<std::int32_t> ids_of(const std::string& text) {
  const std::size_t hash = std::hash<std::string>{}(text);
  std::vector<std::int32_t> ids;
  for (std::size_t i = 0; i < 1 + hash % 40; ++i) {
    ids.push_back(static_cast<std::int32_t>((hash >> (i % 32)) % (kVocabSize - 1)));
  }
  ids.push_back(kFinalToken);
  return ids;
}

inline std::vector<std::uint16_t> vector_of(std::span<const std::int32_t> ids) {
  std::uint64_t hash = 1469598103934665603ULL;
  for (const std::int32_t id : ids) {
    hash = (hash ^ static_cast<std::uint64_t>(id)) * 1099511628211ULL;
  }
  std::mt19937_64 random(hash);
  std::vector<float> row(kHiddenSize);
  double sum = 0;
  for (float& value : row) {
    value = static_cast<float>(random() % 2001) - 1000.0F;
    sum += static_cast<double>(value) * value;
  }
  for (float& value : row) {
    value = static_cast<float>(value / std::sqrt(sum));
  }
  std::vector<std::uint16_t> halves(kHiddenSize);
  to_float16(row, halves);
  return halves;
}

inline protocol::ItemBlock block_of(const std::vector<std::string>& texts) {
  protocol::ItemBlock block;
  for (const std::string& text : texts) {
    block.sizes.push_back(static_cast<std::uint32_t>(text.size()));
    const auto* data = reinterpret_cast<const std::byte*>(text.data());
    block.payload.insert(block.payload.end(), data, data + text.size());
  }
  return block;
}

}  // namespace tessera::coordinator::simulation
