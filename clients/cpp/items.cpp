#include "clients/cpp/items.hpp"

#include <algorithm>
#include <cstring>

#include "common/float16.hpp"

namespace tessera::client {
namespace {

using protocol::ItemBlock;
using protocol::ItemKind;
using protocol::ResultBlock;
using protocol::VectorType;

void append(ItemBlock& block, std::span<const std::byte> bytes, ItemKind kind) {
  CHECK(bytes.size() <= protocol::kTextBytesMax);
  CHECK(has_room(block, bytes.size()));
  const auto number = static_cast<std::uint8_t>(kind);
  if (kind != ItemKind::kText || !block.kinds.empty()) {
    block.kinds.resize(block.sizes.size(), static_cast<std::uint8_t>(ItemKind::kText));
    block.kinds.push_back(number);
  }
  block.sizes.push_back(static_cast<std::uint32_t>(bytes.size()));
  block.payload.insert(block.payload.end(), bytes.begin(), bytes.end());
}

std::size_t value_bytes(VectorType type) { return type == VectorType::kFloat16 ? 2 : 4; }

}  // namespace

void append_text(ItemBlock& block, std::string_view text) {
  append(block, std::as_bytes(std::span(text)), ItemKind::kText);
}

void append_token_ids(ItemBlock& block, std::span<const std::int32_t> ids) {
  append(block, std::as_bytes(ids), ItemKind::kTokenIds);
}

bool has_room(const ItemBlock& block, std::size_t bytes) {
  return block.sizes.size() < protocol::kChunkItemsMax &&
         block.payload.size() + bytes <= protocol::kPayloadBytesMax;
}

Result<void> check_results(const ResultBlock& results, std::size_t items) {
  const auto broken = [](const char* what) {
    return Error{ErrorCode::kInternal, std::string("the coordinator's answer is broken: ") + what};
  };
  if (results.codes.size() != items) {
    return broken("it holds another number of items than were sent");
  }
  if (!results.token_counts.empty() && results.token_counts.size() != items) {
    return broken("its token counts do not match its items");
  }
  if (!results.tokens_cut.empty() && results.tokens_cut.size() != items) {
    return broken("its truncation counts do not match its items");
  }
  const auto rows = static_cast<std::size_t>(std::ranges::count(results.codes, 0));
  if (results.payload.size() != rows * results.dimensions * value_bytes(results.vector_type)) {
    return broken("its vectors do not match its items");
  }
  for (const protocol::ItemError& error : results.errors) {
    if (error.index >= items) {
      return broken("an error names an item that was not sent");
    }
  }
  return {};
}

std::vector<float> row_as_floats(const ResultBlock& results, std::size_t row) {
  const std::size_t width = results.dimensions;
  const std::size_t row_bytes = width * value_bytes(results.vector_type);
  CHECK((row + 1) * row_bytes <= results.payload.size());
  const std::byte* source = results.payload.data() + row * row_bytes;
  std::vector<float> values(width);
  if (results.vector_type == VectorType::kFloat32) {
    std::memcpy(values.data(), source, row_bytes);
    return values;
  }
  std::vector<std::uint16_t> halves(width);
  std::memcpy(halves.data(), source, row_bytes);
  from_float16(halves, values);
  return values;
}

}  // namespace tessera::client
