#include "coordinator/core/items/prepared_ids.hpp"

#include <cstring>
#include <string>

namespace tessera::coordinator {

Result<PreparedIds> prepare_ids(std::span<const std::byte> bytes, const ServedModel& model,
                                protocol::Truncate truncate, std::uint32_t max_tokens) {
  PreparedIds prepared;
  prepared.ids.resize(bytes.size() / sizeof(std::int32_t));
  if (prepared.ids.empty()) {
    return Error{ErrorCode::kEmptyText, "the item has no token ids"};
  }
  std::memcpy(prepared.ids.data(), bytes.data(), prepared.ids.size() * sizeof(std::int32_t));
  for (const std::int32_t id : prepared.ids) {
    if (id < 0 || static_cast<std::uint32_t>(id) >= model.vocab_size) {
      return Error{ErrorCode::kInvalidTokenId, "token id " + std::to_string(id) +
                                                   " is outside the vocabulary of " +
                                                   std::to_string(model.vocab_size)};
    }
  }
  if (prepared.ids.back() != model.final_token) {
    prepared.ids.push_back(model.final_token);
  }
  if (prepared.ids.size() <= max_tokens) {
    return prepared;
  }
  if (truncate == protocol::Truncate::kNone) {
    return Error{ErrorCode::kTooLong, "the item has " + std::to_string(prepared.ids.size()) +
                                          " tokens with the final one; at most " +
                                          std::to_string(max_tokens) + " are allowed"};
  }
  const std::size_t cut = prepared.ids.size() - max_tokens;
  prepared.tokens_cut = static_cast<std::uint32_t>(cut);
  const auto first = truncate == protocol::Truncate::kLeft
                         ? prepared.ids.begin()
                         : prepared.ids.end() - static_cast<std::ptrdiff_t>(cut) - 1;
  prepared.ids.erase(first, first + static_cast<std::ptrdiff_t>(cut));
  return prepared;
}

}  // namespace tessera::coordinator
