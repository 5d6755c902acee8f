#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "common/result.hpp"
#include "common/wire/protocol.hpp"

namespace tessera::coordinator {

// The answer for one text at full width, as cached and as every narrower answer is cut from.
struct Embedding {
  std::uint32_t tokens = 0;           // Embedded, the final token included.
  std::uint32_t tokens_cut = 0;       // Removed by truncation.
  std::vector<std::uint16_t> values;  // [hidden_size] float16, unit length
};
using EmbeddingPtr = std::shared_ptr<const Embedding>;

// How one item ended. Exactly one of the two is set once it has.
struct Outcome {
  EmbeddingPtr embedding;
  std::unique_ptr<Error> error;
  protocol::ItemSource source = protocol::ItemSource::kUnsaid;
  bool ended() const { return embedding != nullptr || error != nullptr; }
};

}  // namespace tessera::coordinator
