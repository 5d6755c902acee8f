#include "common/tokenizer/bpe.hpp"

#include <algorithm>
#include <functional>

namespace tessera::tokenizer {
namespace {

constexpr std::size_t kShortest = 32;  // Up to here a scan for the minimum beats a heap.
constexpr std::uint32_t kNobody = UINT32_MAX;

}  // namespace

Bpe::Bpe(const TokenizerSpec& spec) : table_(spec.merges.size()) {
  std::copy_n(spec.byte_ids.begin(), byte_ids_.size(), byte_ids_.begin());
  products_.reserve(spec.merges.size());
  for (const Merge& merge : spec.merges) {
    products_.push_back(merge.product);
  }
}

Result<Bpe> Bpe::make(const TokenizerSpec& spec) {
  Bpe bpe(spec);
  for (std::size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const Merge& merge = spec.merges[rank];
    if (!bpe.table_.add(merge.left, merge.right, static_cast<std::uint32_t>(rank))) {
      return Error{ErrorCode::kInvalidArgument, "tokenizer.json: model.merges[" +
                                                    std::to_string(rank) +
                                                    "] joins a pair that an earlier one joins"};
    }
  }
  return bpe;
}

void Bpe::encode(std::string_view piece, BpeScratch& scratch, IdBuffer& out) const {
  out.reserve_more(piece.size());
  if (piece.size() <= kShortest) {
    encode_short(piece, out);
  } else {
    encode_long(piece, scratch, out);
  }
}

void Bpe::encode_short(std::string_view piece, IdBuffer& out) const {
  std::array<std::int32_t, kShortest> ids;
  std::array<std::uint32_t, kShortest> ranks;  // ranks[i] joins ids[i] and ids[i + 1].
  std::size_t count = piece.size();
  for (std::size_t i = 0; i < count; ++i) {
    ids[i] = byte_ids_[static_cast<unsigned char>(piece[i])];
  }
  for (std::size_t i = 0; i + 1 < count; ++i) {
    ranks[i] = table_.rank(ids[i], ids[i + 1]);
  }
  while (count > 1) {
    const auto last = ranks.begin() + static_cast<std::ptrdiff_t>(count - 1);
    const auto lowest = std::min_element(ranks.begin(), last);
    if (*lowest == MergeTable::kNoMerge) {
      break;
    }
    const auto at = static_cast<std::size_t>(lowest - ranks.begin());
    ids[at] = products_[*lowest];
    --count;
    for (std::size_t i = at + 1; i < count; ++i) {
      ids[i] = ids[i + 1];
      ranks[i - 1] = ranks[i];
    }
    if (at + 1 < count) {
      ranks[at] = table_.rank(ids[at], ids[at + 1]);
    }
    if (at > 0) {
      ranks[at - 1] = table_.rank(ids[at - 1], ids[at]);
    }
  }
  std::copy_n(ids.begin(), count, out.end());
  out.advance(count);
}

// A linked list of symbols and a heap of candidate merges, ordered by rank and then position. A
// candidate is stale when its pair is no longer what it was pushed for.
void Bpe::encode_long(std::string_view piece, BpeScratch& scratch, IdBuffer& out) const {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  const auto count = static_cast<std::uint32_t>(piece.size());
  symbols.resize(count);
  heap.clear();
  const auto candidate = [&](std::uint32_t left) {
    const std::uint32_t right = symbols[left].next;
    const std::uint32_t rank =
        right == kNobody ? MergeTable::kNoMerge : table_.rank(symbols[left].id, symbols[right].id);
    return std::uint64_t{rank} << 32U | left;
  };
  const auto push = [&](std::uint32_t left) {
    const std::uint64_t entry = candidate(left);
    if (entry >> 32U != MergeTable::kNoMerge) {
      heap.push_back(entry);
      std::ranges::push_heap(heap, std::greater{});
    }
  };
  for (std::uint32_t i = 0; i < count; ++i) {
    symbols[i] = {byte_ids_[static_cast<unsigned char>(piece[i])], i == 0 ? kNobody : i - 1,
                  i + 1 == count ? kNobody : i + 1};
  }
  for (std::uint32_t i = 0; i + 1 < count; ++i) {
    const std::uint64_t entry = candidate(i);
    if (entry >> 32U != MergeTable::kNoMerge) {
      heap.push_back(entry);
    }
  }
  std::ranges::make_heap(heap, std::greater{});
  while (!heap.empty()) {
    std::ranges::pop_heap(heap, std::greater{});
    const std::uint64_t entry = heap.back();
    heap.pop_back();
    const auto left = static_cast<std::uint32_t>(entry);
    if (symbols[left].id < 0 || candidate(left) != entry) {
      continue;
    }
    const std::uint32_t right = symbols[left].next;
    symbols[left].id = products_[entry >> 32U];
    symbols[left].next = symbols[right].next;
    symbols[right].id = -1;
    if (symbols[left].next != kNobody) {
      symbols[symbols[left].next].previous = left;
      push(left);
    }
    if (symbols[left].previous != kNobody) {
      push(symbols[left].previous);
    }
  }
  for (std::uint32_t i = 0; i != kNobody; i = symbols[i].next) {
    out.push(symbols[i].id);
  }
}

}  // namespace tessera::tokenizer
