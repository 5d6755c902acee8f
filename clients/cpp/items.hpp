#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.hpp"
#include "common/wire/protocol.hpp"

namespace tessera::client {

// Adds one item behind the others. Texts are taken as bytes: whether they are UTF-8 is judged, and
// answered per item, by the coordinator. CHECKs that the block holds fewer than 4096 items and that
// the item keeps kTextBytesMax.
void append_text(protocol::ItemBlock& block, std::string_view text);
void append_token_ids(protocol::ItemBlock& block, std::span<const std::int32_t> ids);

// True when another item of `bytes` still fits the limits of one message.
bool has_room(const protocol::ItemBlock& block, std::size_t bytes);

// Whether an answer fits to the question: one code per item, counts and payload that agree. A
// coordinator's answer is input from outside, so everything below relies on this having been asked.
Result<void> check_results(const protocol::ResultBlock& results, std::size_t items);

// Row `row` of the payload, widened to fp32 where it travelled as fp16. Rows are the items with
// code kOk, in item order.
std::vector<float> row_as_floats(const protocol::ResultBlock& results, std::size_t row);

}  // namespace tessera::client
