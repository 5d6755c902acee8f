#include "common/tokenizer/bpe.hpp"

#include <algorithm>
#include <functional>

namespace tessera::tokenizer {
namespace {

constexpr std::size_t kShortest = 64;  // Up to here a scan for the minimum beats a heap.
constexpr std::uint32_t kNobody = UINT32_MAX;

// A candidate merge of encode_short: its rank, then its position, in one comparable number. 64 bits
// keep the compiler from vector loads, which would wait for the narrower stores before them.
using Candidate = std::uint64_t;
constexpr unsigned kPositionBits = 6;
constexpr Candidate kNoCandidate = UINT64_MAX;
constexpr std::size_t kLanes = 4;
static_assert(std::size_t{1} << kPositionBits == kShortest && kShortest % kLanes == 0);

// A rank of kNoMerge stays above every real one.
Candidate candidate(std::uint32_t rank, std::size_t position) {
  return Candidate{rank} << kPositionBits | position;
}
bool is_merge(Candidate lowest) { return lowest >> kPositionBits < MergeTable::kNoMerge; }

// The minimum of `count` numbers, a positive multiple of kLanes, in independent chains.
inline Candidate lowest_of(const Candidate* numbers, std::size_t count) {
  Candidate a = numbers[0];
  Candidate b = numbers[1];
  Candidate c = numbers[2];
  Candidate d = numbers[3];
  for (std::size_t i = kLanes; i < count; i += kLanes) {
    a = std::min(a, numbers[i]);
    b = std::min(b, numbers[i + 1]);
    c = std::min(c, numbers[i + 2]);
    d = std::min(d, numbers[i + 3]);
  }
  return std::min(std::min(a, b), std::min(c, d));
}

}  // namespace

Bpe::Bpe(const TokenizerSpec& spec) : table_(spec.merges.size()) {
  std::copy_n(spec.byte_ids.begin(), byte_ids_.size(), byte_ids_.begin());
  first_product_ = spec.merges.empty() ? 0 : spec.merges.front().product;
  bool consecutive = true;
  for (const Merge& merge : spec.merges) {
    consecutive = consecutive &&
                  merge.product == product(static_cast<std::uint32_t>(&merge - spec.merges.data()));
  }
  if (!consecutive) {
    for (const Merge& merge : spec.merges) {
      products_.push_back(merge.product);
    }
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
  bpe.read_byte_pairs(spec);
  return bpe;
}

void Bpe::read_byte_pairs(const TokenizerSpec& spec) {
  byte_pairs_.resize(std::size_t{1} << 16U);
  for (std::size_t index = 0; index < spec.merges.size(); ++index) {
    const Merge& merge = spec.merges[index];
    const auto rank = static_cast<std::uint32_t>(index);
    const std::string_view left = spec.vocabulary.piece(merge.left);
    const std::string_view right = spec.vocabulary.piece(merge.right);
    const std::size_t left_byte = static_cast<unsigned char>(left.back());
    BytePair& pair = byte_pairs_[left_byte << 8U | static_cast<unsigned char>(right.front())];
    if (left.size() == 1 && right.size() == 1) {
      pair.rank = rank;
    }
    if (right.size() == 1) {
      pair.right_taken = std::min(pair.right_taken, rank);
    }
    if (left.size() == 1) {
      pair.left_taken = std::min(pair.left_taken, rank);
    }
  }
}

std::int32_t* Bpe::encode(std::string_view piece, Scratch& scratch, std::int32_t* out) const {
  if (piece.size() > kShortest) {
    return encode_long(piece, scratch, out);
  }
  encode_short(piece, [&out](const Token& token) { *out++ = token.id; });
  return out;
}

// Symbols stay at the position of their first byte; a symbol that was joined to the one before it
// leaves its place empty. The lowest candidate is found by looking at all of them, which for so few
// costs less than keeping them in order.
template <typename Emit>
void Bpe::encode_short(std::string_view piece, Emit emit) const {
  std::array<std::int32_t, kShortest + 1> ids;
  std::array<std::uint8_t, kShortest + 1> next;
  std::array<std::uint8_t, kShortest + 1> previous;
  // candidates[i] joins the symbol at i to its next.
  std::array<Candidate, kShortest> candidates;
  const std::size_t count = piece.size();
  const std::size_t scanned = (count + kLanes - 1) / kLanes * kLanes;
  const auto pair_at = [&](std::size_t i) -> const BytePair& {
    return byte_pairs_[static_cast<std::size_t>(static_cast<unsigned char>(piece[i])) << 8U |
                       static_cast<unsigned char>(piece[i + 1])];
  };
  // Two bytes whose merge comes before any by which their neighbours could take one of them are
  // joined at once: about half of all merges, without the search.
  std::size_t symbol = 0;
  for (std::size_t i = 0; i < count;) {
    const std::uint32_t rank = i + 1 < count ? pair_at(i).rank : MergeTable::kNoMerge;
    const bool joins = rank != MergeTable::kNoMerge &&
                       (i == 0 || rank < pair_at(i - 1).right_taken) &&
                       (i + 2 >= count || rank < pair_at(i + 1).left_taken);
    ids[i] = joins ? product(rank) : byte_ids_[static_cast<unsigned char>(piece[i])];
    candidates[i] = kNoCandidate;
    previous[i] = static_cast<std::uint8_t>(symbol);
    if (i > 0) {
      candidates[symbol] = candidate(table_.rank(ids[symbol], ids[i]), symbol);
    }
    symbol = i;
    if (joins) {
      candidates[i + 1] = kNoCandidate;
    }
    i += joins ? 2 : 1;
    next[symbol] = static_cast<std::uint8_t>(i);
  }
  std::fill(candidates.begin() + static_cast<std::ptrdiff_t>(count),
            candidates.begin() + static_cast<std::ptrdiff_t>(scanned), kNoCandidate);
  while (true) {
    const Candidate lowest = lowest_of(candidates.data(), scanned);
    if (!is_merge(lowest)) {
      break;
    }
    const std::size_t at = static_cast<std::size_t>(lowest) % kShortest;
    const std::size_t joined = next[at];
    const std::size_t after = next[joined];
    ids[at] = product(static_cast<std::uint32_t>(lowest) >> kPositionBits);
    next[at] = static_cast<std::uint8_t>(after);
    candidates[joined] = kNoCandidate;
    candidates[at] = kNoCandidate;
    if (after < count) {
      previous[after] = static_cast<std::uint8_t>(at);
      candidates[at] = candidate(table_.rank(ids[at], ids[after]), at);
    }
    if (at > 0) {
      const std::size_t before = previous[at];
      candidates[before] = candidate(table_.rank(ids[before], ids[at]), before);
    }
  }
  for (std::size_t i = 0; i < count; i = next[i]) {
    emit(Token{ids[i], static_cast<std::uint32_t>(i)});
  }
}

// A linked list of symbols and a heap of candidate merges, ordered by rank and then position. A
// candidate is stale when its pair is no longer what it was pushed for.
void Bpe::encode_heap(std::string_view piece, Scratch& scratch, std::vector<Token>& tokens) const {
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
    symbols[left].id = product(static_cast<std::uint32_t>(entry >> 32U));
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
    tokens.push_back({symbols[i].id, i});
  }
}

void Bpe::encode_window(std::string_view piece, Scratch& scratch,
                        std::vector<Token>& tokens) const {
  tokens.clear();
  if (piece.size() <= kShortest) {
    encode_short(piece, [&tokens](const Token& token) { tokens.push_back(token); });
  } else {
    encode_heap(piece, scratch, tokens);
  }
}

// Exact in pieces, by this fact: a sequence of tokens is the encoding of its bytes if and only if
// each two neighbours are the encoding of theirs, because the first merge to cross a boundary would
// cross it in the two alone as well. So an encoded window gives neighbours that are right, and
// where the next window, started at one of its tokens, begins with that same token, the chain goes
// on. Otherwise the next window starts earlier, or the window grows, at last to the whole piece.
std::int32_t* Bpe::encode_long(std::string_view piece, Scratch& scratch, std::int32_t* out) const {
  constexpr std::size_t kTries = 4;
  constexpr std::size_t kSpare = 4;  // Tokens at a window's end that its cut may have changed.
  std::size_t begin = 0;
  std::size_t size = kShortest;
  auto& tokens = scratch.window;
  auto& following = scratch.next_window;
  encode_window(piece.substr(begin, size), scratch, tokens);
  while (begin + size < piece.size()) {
    bool chained = false;
    for (std::size_t tried = 0; tried < kTries && tokens.size() > kSpare + tried; ++tried) {
      const std::size_t keep = tokens.size() - kSpare - tried;
      const std::size_t next_begin = begin + tokens[keep].start;
      // The same bytes again, as in a run of one character, have the same tokens.
      const bool repeats = piece.substr(next_begin, size) == piece.substr(begin, size);
      if (!repeats) {
        encode_window(piece.substr(next_begin, kShortest), scratch, following);
      }
      if ((repeats ? tokens : following).front().id == tokens[keep].id) {
        for (std::size_t i = 0; i < keep; ++i) {
          *out++ = tokens[i].id;
        }
        begin = next_begin;
        if (!repeats) {
          size = kShortest;
          std::swap(tokens, following);
        }
        chained = true;
        break;
      }
    }
    if (!chained) {
      size *= 4;
      encode_window(piece.substr(begin, size), scratch, tokens);
    }
  }
  for (const Token& token : tokens) {
    *out++ = token.id;
  }
  return out;
}

}  // namespace tessera::tokenizer
