#include "coordinator/core/flow/results.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/check.hpp"
#include "common/float16.hpp"

namespace tessera::coordinator {
namespace {

constexpr std::size_t kMessageBytesMax = 200;  // All errors of a chunk must fit a header.

void renormalise(std::span<float> row) {
  double sum = 0;
  for (const float value : row) {
    sum += static_cast<double>(value) * value;
  }
  if (sum > 0) {
    const auto scale = static_cast<float>(1.0 / std::sqrt(sum));
    for (float& value : row) {
      value *= scale;
    }
  }
}

// A full-width float16 answer is the stored vector itself, bit for bit.
void append_row(const Embedding& embedding, const ResolvedSpec& spec, std::vector<float>& row,
                std::byte* out) {
  CHECK(spec.dimensions <= embedding.values.size());
  const std::span<const std::uint16_t> stored = std::span(embedding.values).first(spec.dimensions);
  const bool cut = spec.dimensions < embedding.values.size();
  if (spec.vector_type == protocol::VectorType::kFloat16 && !cut) {
    std::memcpy(out, stored.data(), stored.size_bytes());
    return;
  }
  from_float16(stored, row);
  renormalise(row);  // Rounding to float16 alone moves the length by up to 1e-4.
  if (spec.vector_type == protocol::VectorType::kFloat32) {
    std::memcpy(out, row.data(), row.size() * sizeof(float));
    return;
  }
  std::vector<std::uint16_t> halves(row.size());
  to_float16(row, halves);
  std::memcpy(out, halves.data(), halves.size() * sizeof(std::uint16_t));
}

}  // namespace

protocol::ResultBlock assemble(std::span<const Outcome> outcomes, const ResolvedSpec& spec,
                               const CacheCounts& counts) {
  protocol::ResultBlock block{.codes = {},
                              .token_counts = {},
                              .tokens_cut = {},
                              .errors = {},
                              .dimensions = spec.dimensions,
                              .vector_type = spec.vector_type,
                              .cache_hits = static_cast<std::uint32_t>(counts.hits),
                              .cache_joins = static_cast<std::uint32_t>(counts.joins),
                              .cache_misses = static_cast<std::uint32_t>(counts.misses),
                              .payload = {}};
  block.codes.resize(outcomes.size());
  block.token_counts.resize(outcomes.size());
  block.sources.resize(outcomes.size());
  const auto has_vector = [](const Outcome& outcome) { return outcome.embedding != nullptr; };
  const auto vectors = static_cast<std::size_t>(std::ranges::count_if(outcomes, has_vector));
  const bool any_cut = std::ranges::any_of(
      outcomes, [&](const Outcome& o) { return has_vector(o) && o.embedding->tokens_cut > 0; });
  if (any_cut) {
    block.tokens_cut.resize(outcomes.size());
  }
  const std::size_t row_bytes = spec.row_bytes();
  block.payload.resize(vectors * row_bytes);
  std::vector<float> row(spec.dimensions);
  std::byte* out = block.payload.data();
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    const Outcome& outcome = outcomes[i];
    CHECK(outcome.ended());
    if (outcome.error != nullptr) {
      block.codes[i] = static_cast<std::uint8_t>(outcome.error->code);
      block.errors.push_back({.index = static_cast<std::uint32_t>(i),
                              .message = outcome.error->message.substr(0, kMessageBytesMax)});
      continue;
    }
    block.token_counts[i] = outcome.embedding->tokens;
    block.sources[i] = static_cast<std::uint8_t>(outcome.source);
    if (any_cut) {
      block.tokens_cut[i] = outcome.embedding->tokens_cut;
    }
    append_row(*outcome.embedding, spec, row, out);
    out += row_bytes;
  }
  return block;
}

}  // namespace tessera::coordinator
