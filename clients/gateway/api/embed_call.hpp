#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "clients/gateway/encoding/quantise.hpp"
#include "clients/gateway/http/message.hpp"
#include "clients/gateway/link/link.hpp"
#include "common/result.hpp"
#include "common/wire/protocol.hpp"

namespace tessera::gateway {

// The items of one HTTP request, cut into messages of at most 256 items or 1 MiB.
class ItemList {
 public:
  // kInvalidArgument beyond `items_max`, or for an item of more than 4 MiB.
  Result<void> add_text(std::string_view text, std::size_t items_max);
  Result<void> add_ids(std::span<const std::int32_t> ids, std::size_t items_max);
  std::size_t size() const { return size_; }
  bool has_ids() const { return has_ids_; }
  std::vector<protocol::ItemBlock>& blocks() { return blocks_; }

 private:
  Result<void> make_room(std::size_t bytes, std::size_t items_max);
  std::vector<protocol::ItemBlock> blocks_;
  std::size_t size_ = 0;
  bool has_ids_ = false;
};

// What any family of routes asks of the coordinator.
struct EmbedCall {
  protocol::EmbedSpec spec;
  protocol::Lane lane = protocol::Lane::kInteractive;
  std::uint32_t weight = 1;
  bool no_cache = false;
  bool no_store = false;
  ItemList items;
  std::string items_field = "input";  // What the family calls them, for errors.
};

struct EmbedAnswer {
  std::vector<protocol::ResultBlock> blocks;  // Checked; every item has its vector.
  std::size_t items = 0;
  std::uint32_t dimensions = 0;
  protocol::VectorType vector_type = protocol::VectorType::kFloat32;
  std::uint64_t tokens = 0;
  std::uint64_t cached_tokens = 0;  // Of items whose vectors were cached.
  std::size_t cached_items = 0;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> cut;  // Item, tokens that it lost.
  protocol::Quota quota;

  // Row `item` as it came, [dimensions] of vector_type.
  std::span<const std::byte> row(std::size_t item) const;

  std::vector<std::size_t> first_items;  // Of each block, from 0.
};

// Adds the counts of a checked block whose first item is number `first` of the answer. Any item's
// error is the whole answer's, since none of the HTTP forms has a place for it.
std::optional<http::Problem> count_results(const protocol::ResultBlock& results, std::size_t first,
                                           const std::string& items_field, EmbedAnswer& answer);

using EmbedDone = std::function<void(std::variant<EmbedAnswer, http::Problem>)>;

// Asks the coordinator and gathers the answers. Calls `done` once, from a turn of its own.
void embed(Link& link, const http::Request& request, EmbedCall call, std::chrono::milliseconds wait,
           EmbedDone done);

// How an error of the coordinator is told over HTTP.
http::Problem problem_of(ErrorCode code, std::string message,
                         std::chrono::milliseconds retry_after = {});

}  // namespace tessera::gateway
