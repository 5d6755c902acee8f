#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/result.hpp"
#include "common/wire/protocol.hpp"
#include "coordinator/core/items/served_model.hpp"

namespace tessera::coordinator {

// Token ids that a client sent: checked against the vocabulary, closed by the final token where
// that is missing, cut to `max_tokens` by the rule. Errors: kEmptyText, kInvalidTokenId, kTooLong.
struct PreparedIds {
  std::vector<std::int32_t> ids;
  std::uint32_t tokens_cut = 0;
};
Result<PreparedIds> prepare_ids(std::span<const std::byte> bytes, const ServedModel& model,
                                protocol::Truncate truncate, std::uint32_t max_tokens);

}  // namespace tessera::coordinator
