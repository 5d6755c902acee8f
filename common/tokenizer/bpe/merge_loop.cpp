#include "common/tokenizer/bpe/merge_loop.hpp"

#include <algorithm>
#include <functional>

namespace tessera::tokenizer {
namespace {

constexpr std::uint32_t kNobody = UINT32_MAX;

}  // namespace

MergeLoop::MergeLoop(const TokenizerSpec& spec) : table_(spec.merges.size()) {
  std::ranges::copy(spec.byte_ids, byte_ids_.begin());
  for (const Merge& merge : spec.merges) {
    table_.add(merge.left, merge.right, static_cast<std::uint32_t>(products_.size()));
    products_.push_back(merge.product);
  }
}

// A linked list of symbols and a heap of candidate merges, ordered by rank and then position. A
// candidate is stale when its pair is no longer what it was pushed for.
std::int32_t* MergeLoop::encode(std::string_view piece, Scratch& scratch, std::int32_t* out) const {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  const auto count = static_cast<std::uint32_t>(piece.size());
  symbols.resize(count);
  heap.clear();
  const auto entry_of = [&](std::uint32_t left) {
    const std::uint32_t right = symbols[left].next;
    const std::uint32_t rank =
        right == kNobody ? MergeTable::kNoMerge : table_.rank(symbols[left].id, symbols[right].id);
    return std::uint64_t{rank} << 32U | left;
  };
  const auto push = [&](std::uint32_t left) {
    const std::uint64_t entry = entry_of(left);
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
    push(i);
  }
  while (!heap.empty()) {
    std::ranges::pop_heap(heap, std::greater{});
    const std::uint64_t entry = heap.back();
    heap.pop_back();
    const auto left = static_cast<std::uint32_t>(entry);
    if (symbols[left].id < 0 || entry_of(left) != entry) {
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
    *out++ = symbols[i].id;
  }
  return out;
}

}  // namespace tessera::tokenizer
