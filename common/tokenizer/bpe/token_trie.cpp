#include "common/tokenizer/bpe/token_trie.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <vector>

#include "common/check.hpp"

namespace tessera::tokenizer {
namespace {

constexpr std::uint32_t kBlockSize = 256;  // A node's children lie in one block.

// A set of numbers below 256.
class ByteSet {
 public:
  bool has(std::uint32_t i) const { return (words_[i / 64] >> (i % 64) & 1U) != 0; }
  void add(std::uint32_t i) { words_[i / 64] |= std::uint64_t{1} << (i % 64); }
  // The least number from `i` up that is not in the set; 256 when there is none.
  std::uint32_t next_absent(std::uint32_t i) const {
    while (i < kBlockSize) {
      const std::uint64_t absent = ~words_[i / 64] >> (i % 64);
      if (absent != 0) {
        return i + static_cast<std::uint32_t>(std::countr_zero(absent));
      }
      i = (i / 64 + 1) * 64;
    }
    return kBlockSize;
  }

 private:
  std::array<std::uint64_t, 4> words_{};
};

struct Entry {
  std::uint64_t start;  // The first eight bytes, as a number that sorts as they do.
  std::string_view piece;
  std::int32_t id;
};

std::vector<Entry> sorted_entries(const Vocabulary& vocabulary, std::span<const std::int32_t> ids) {
  std::vector<Entry> entries;
  entries.reserve(ids.size());
  for (const std::int32_t id : ids) {
    const std::string_view piece = vocabulary.piece(id);
    std::uint64_t start = 0;
    for (std::size_t i = 0; i < sizeof start; ++i) {
      start = start << 8U | (i < piece.size() ? static_cast<unsigned char>(piece[i]) : 0U);
    }
    entries.push_back({start, piece, id});
  }
  std::ranges::sort(entries, [](const Entry& a, const Entry& b) {
    return a.start != b.start ? a.start < b.start : a.piece < b.piece;
  });
  return entries;
}

// Finds places for nodes' children, so that the array has few gaps.
class Places {
 public:
  // A base that no node has, at which all of `children` fall on free cells, which are then taken.
  // `children` are different bytes, at least one.
  std::uint32_t take(std::span<const std::uint8_t> children) {
    constexpr std::size_t kTries =
        8;  // Of the newest blocks; older ones are left to lone children.
    while (first_with_room_ < blocks_.size() && blocks_[first_with_room_].free == 0) {
      ++first_with_room_;
    }
    const std::size_t newest = blocks_.size() - std::min(blocks_.size(), kTries);
    std::size_t index =
        children.size() == 1 ? first_with_room_ : std::max(first_with_room_, newest);
    for (; index < blocks_.size(); ++index) {
      const std::uint32_t base = blocks_[index].free < children.size() ? 0 : fit(index, children);
      if (base != 0) {
        return base;
      }
    }
    blocks_.emplace_back();
    return fit(blocks_.size() - 1, children);
  }

  std::size_t cells() const { return blocks_.size() * kBlockSize; }

 private:
  struct Block {
    ByteSet cells;
    ByteSet bases;
    std::uint32_t free = kBlockSize;
  };

  // 0 when they do not fit into this block.
  std::uint32_t fit(std::size_t index, std::span<const std::uint8_t> children) {
    Block& block = blocks_[index];
    for (std::uint32_t cell = block.cells.next_absent(0); cell < kBlockSize;
         cell = block.cells.next_absent(cell + 1)) {
      const std::uint32_t base = cell ^ children.front();
      const auto is_free = [&](std::uint8_t child) { return !block.cells.has(base ^ child); };
      if (block.bases.has(base) || !std::ranges::all_of(children, is_free)) {
        continue;
      }
      block.bases.add(base);
      for (const std::uint8_t child : children) {
        block.cells.add(base ^ child);
      }
      block.free -= static_cast<std::uint32_t>(children.size());
      return static_cast<std::uint32_t>(index) * kBlockSize + base;
    }
    return 0;
  }

  // The first block stays empty, since base 0 says that there is no child.
  std::vector<Block> blocks_{{{}, {}, 0}};
  std::size_t first_with_room_ = 0;
};

}  // namespace

// Level by level, so that the nodes of short prefixes, which every search passes, lie together.
class TokenTrie::Builder {
  struct Node {
    std::uint32_t begin;
    std::uint32_t end;
    std::int32_t longest;  // Token that these bytes start with, or are.
    std::uint32_t cell;    // Of the node itself; 0 for the root, which has none.
  };

 public:
  Builder(std::vector<Entry> entries, std::span<std::int32_t> shorter)
      : entries_(std::move(entries)), shorter_(shorter) {
    std::vector<Node> level{{0, static_cast<std::uint32_t>(entries_.size()), kNone, 0}};
    for (std::size_t depth = 0; depth < 3; ++depth) {
      std::vector<Node> next_level;
      for (const Node& node : level) {
        add_children(node, depth, next_level);
      }
      level = std::move(next_level);
    }
    for (const Node& node : level) {
      add_below(node, 3);
    }
  }

  void add_below(const Node& node, std::size_t depth) {
    std::vector<Node> children;
    add_children(node, depth, children);
    for (const Node& child : children) {
      add_below(child, depth + 1);
    }
  }

  const std::vector<Cell>& cells() const { return cells_; }
  std::uint32_t root_base() const { return root_base_; }

 private:
  std::uint8_t byte_at(std::uint32_t entry, std::size_t depth) const {
    return static_cast<std::uint8_t>(entries_[entry].piece[depth]);
  }

  void add_children(const Node& node, std::size_t depth, std::vector<Node>& next_level) {
    children_.clear();
    for (std::uint32_t i = node.begin; i < node.end; ++i) {
      if (children_.empty() || children_.back() != byte_at(i, depth)) {
        children_.push_back(byte_at(i, depth));
      }
    }
    const std::uint32_t base = places_.take(children_);
    cells_.resize(places_.cells(), Cell{kNoNode});
    if (node.cell == 0) {
      root_base_ = base;
    } else {
      cells_[node.cell].bits |= std::uint64_t{base} << 32U;
    }
    for (std::uint32_t i = node.begin; i < node.end;) {
      const std::uint8_t byte = byte_at(i, depth);
      std::uint32_t end = i;
      while (end < node.end && byte_at(end, depth) == byte) {
        ++end;
      }
      add_node({i, end, node.longest, base ^ byte}, byte, depth + 1, next_level);
      i = end;
    }
  }

  // The shortest entry comes first and may be the node itself.
  void add_node(Node node, std::uint8_t byte, std::size_t depth, std::vector<Node>& next_level) {
    std::uint64_t token = 0;
    const Entry& first = entries_[node.begin];
    if (first.piece.size() == depth) {
      shorter_[static_cast<std::size_t>(first.id)] = node.longest;
      node.longest = first.id;
      token = static_cast<std::uint64_t>(first.id) + 1;
      ++node.begin;
    }
    cells_[node.cell].bits = token << 9U | byte;
    if (node.begin < node.end) {
      next_level.push_back(node);
    }
  }

  std::vector<Entry> entries_;
  std::span<std::int32_t> shorter_;
  Places places_;
  std::vector<Cell> cells_;
  std::vector<std::uint8_t> children_;
  std::uint32_t root_base_ = 0;
};

TokenTrie::TokenTrie(const Vocabulary& vocabulary, std::span<const std::int32_t> ids,
                     std::span<std::int32_t> shorter)
    : cells_(0), root_base_(0), starts_(std::size_t{1} << 16U) {
  CHECK(!ids.empty());
  const Builder builder(sorted_entries(vocabulary, ids), shorter);
  cells_ = PageArray<Cell>(builder.cells().size());
  std::ranges::copy(builder.cells(), cells_.begin());
  root_base_ = builder.root_base();
  for (std::uint32_t pair = 0; pair < starts_.size(); ++pair) {
    starts_[pair] = start_of(pair >> 8U, pair & 0xFFU);
  }
}

TokenTrie::Start TokenTrie::start_of(std::uint32_t first_byte, std::uint32_t second_byte) const {
  const Cell first = cells_[root_base_ ^ first_byte];
  if (first.label() != first_byte) {
    return {kNone, 0, 0};
  }
  const Cell second = cells_[first.base() ^ second_byte];  // The first block has no node.
  if (second.label() != second_byte) {
    return {first.token() - 1, 0, 1};
  }
  return {(second.token() != 0 ? second : first).token() - 1, second.base(),
          second.token() != 0 ? 2U : 1U};
}

}  // namespace tessera::tokenizer
