#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/tokenizer/base/page_memory.hpp"

namespace tessera::tokenizer {

// The bytes of every token, by id and by content. Ids may have gaps; a piece is never empty.
// Filled by the loader, const afterwards.
class Vocabulary {
 public:
  static constexpr std::int32_t kNone = -1;
  // Ids are packed into 21 bits elsewhere, and the highest of those stands for an empty slot.
  static constexpr std::size_t kMaxIds = (std::size_t{1} << 21U) - 1;

  // Makes room, so that `add` does not grow the index.
  void reserve(std::size_t pieces, std::size_t bytes);
  // False, and nothing is added, when the id or the content is there already, when the piece is
  // empty, or when the id is negative or not below kMaxIds.
  bool add(std::string_view piece, std::int32_t id);

  // The id of exactly these bytes, or kNone.
  std::int32_t find(std::string_view piece) const;
  // Empty for an id that has no piece.
  std::string_view piece(std::int32_t id) const;
  std::size_t size() const { return count_; }
  // One more than the highest id.
  std::size_t id_end() const { return spans_.size(); }

 private:
  struct Span {
    std::uint32_t begin = 0;
    std::uint32_t size = 0;
  };
  struct Slot {
    std::uint32_t tag;       // High half of the hash.
    std::int32_t id_plus_1;  // 0 in an empty slot.
  };

  // The slot of these bytes, or the empty slot where they would go.
  std::size_t slot_of(std::string_view piece, std::uint64_t hash) const;
  void rehash(std::size_t slots);

  std::string bytes_;
  std::vector<Span> spans_;
  PageArray<Slot> slots_{16};  // Open addressing, linear probing, at most half full.
  std::size_t count_ = 0;
  // One bit for some of each piece's hash: most strings that are no piece end here, in a nearer
  // cache than the slots.
  static constexpr unsigned kFilterBits = 20;
  std::vector<std::uint64_t> filter_ = std::vector<std::uint64_t>((1U << kFilterBits) / 64);
};

}  // namespace tessera::tokenizer
