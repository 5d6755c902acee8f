#include "common/tokenizer/base/vocabulary.hpp"

#include <algorithm>
#include <bit>

#include "common/tokenizer/base/hash.hpp"

namespace tessera::tokenizer {
namespace {

std::uint32_t tag_of(std::uint64_t hash) { return static_cast<std::uint32_t>(hash >> 32U); }

}  // namespace

void Vocabulary::reserve(std::size_t pieces, std::size_t bytes) {
  bytes_.reserve(bytes);
  spans_.reserve(pieces);
  rehash(std::bit_ceil(std::max<std::size_t>(16, 2 * pieces)));
}

bool Vocabulary::add(std::string_view piece, std::int32_t id) {
  const auto index = static_cast<std::size_t>(id);
  if (piece.empty() || id < 0 || index >= kMaxIds || bytes_.size() + piece.size() > UINT32_MAX) {
    return false;
  }
  if (2 * (count_ + 1) > slots_.size()) {
    rehash(2 * slots_.size());
  }
  const std::uint64_t hash = hash_bytes(piece);
  Slot& slot = slots_[slot_of(piece, hash)];
  if (slot.id_plus_1 != 0 || !this->piece(id).empty()) {
    return false;
  }
  slot = {tag_of(hash), id + 1};
  const std::size_t bit = static_cast<std::size_t>(hash >> (64U - kFilterBits));
  filter_[bit / 64] |= std::uint64_t{1} << (bit % 64);
  spans_.resize(std::max(spans_.size(), index + 1));
  spans_[index] = {static_cast<std::uint32_t>(bytes_.size()),
                   static_cast<std::uint32_t>(piece.size())};
  bytes_.append(piece);
  ++count_;
  return true;
}

std::int32_t Vocabulary::find(std::string_view piece) const {
  const std::uint64_t hash = hash_bytes(piece);
  const std::size_t bit = static_cast<std::size_t>(hash >> (64U - kFilterBits));
  if ((filter_[bit / 64] >> (bit % 64) & 1U) == 0) {
    return kNone;
  }
  return slots_[slot_of(piece, hash)].id_plus_1 - 1;
}

std::string_view Vocabulary::piece(std::int32_t id) const {
  if (id < 0 || static_cast<std::size_t>(id) >= spans_.size()) {
    return {};
  }
  const Span span = spans_[static_cast<std::size_t>(id)];
  return std::string_view(bytes_).substr(span.begin, span.size);
}

std::size_t Vocabulary::slot_of(std::string_view piece, std::uint64_t hash) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = static_cast<std::size_t>(hash) & mask;
  while (slots_[at].id_plus_1 != 0 &&
         (slots_[at].tag != tag_of(hash) || this->piece(slots_[at].id_plus_1 - 1) != piece)) {
    at = (at + 1) & mask;
  }
  return at;
}

void Vocabulary::rehash(std::size_t slots) {
  slots_ = PageArray<Slot>(slots);
  for (std::size_t id = 0; id < spans_.size(); ++id) {
    const std::string_view content = piece(static_cast<std::int32_t>(id));
    if (!content.empty()) {
      const std::uint64_t hash = hash_bytes(content);
      slots_[slot_of(content, hash)] = {tag_of(hash), static_cast<std::int32_t>(id) + 1};
    }
  }
}

}  // namespace tessera::tokenizer
