#include "common/tokenizer/bpe/longest_match.hpp"

#include <algorithm>
#include <array>

namespace tessera::tokenizer {
namespace {

constexpr std::size_t kWindow = 1024;
constexpr std::size_t kLongestToken = 1000;  // Fits a token's 20 bits; real ones have up to 128.

bool ids_follow_merges(const TokenizerSpec& spec) {
  if (spec.merges.empty()) {
    return false;
  }
  std::int32_t next = spec.merges.front().product;
  if (std::ranges::max(spec.byte_ids) >= next) {
    return false;
  }
  for (const Merge& merge : spec.merges) {
    if (merge.product != next || merge.left >= next || merge.right >= next ||
        spec.vocabulary.piece(merge.product).size() > kLongestToken) {
      return false;
    }
    ++next;
  }
  return true;
}

}  // namespace

std::optional<LongestMatch> LongestMatch::make(const TokenizerSpec& spec) {
  if (!ids_follow_merges(spec)) {
    return std::nullopt;
  }
  return LongestMatch(spec);
}

LongestMatch::LongestMatch(const TokenizerSpec& spec)
    : merges_(spec.merges.size()),
      first_product_(spec.merges.front().product),
      tokens_(spec.vocabulary.id_end()),
      byte_pairs_(std::size_t{1} << 16U) {
  for (const Merge& merge : spec.merges) {
    merges_.add(merge.left, merge.right, rank_of(merge.product));
  }
  read_byte_pairs(spec);
  const std::vector<std::int32_t> whole = find_whole(spec);
  std::vector<std::int32_t> shorter(tokens_.size());
  trie_.emplace(spec.vocabulary, whole, shorter);
  for (const std::int32_t id : whole) {
    const std::int32_t other = shorter[static_cast<std::size_t>(id)];
    tokens_[static_cast<std::size_t>(id)].set_shorter(other == TokenTrie::kNone ? Token::kNoId
                                                                                : other);
  }
}

void LongestMatch::read_byte_pairs(const TokenizerSpec& spec) {
  for (const Merge& merge : spec.merges) {
    const std::string_view left = spec.vocabulary.piece(merge.left);
    const std::string_view right = spec.vocabulary.piece(merge.right);
    if (left.size() == 1) {
      BytePair& pair = byte_pairs_[place_of(left.front(), right.front())];
      pair.left_taken = std::min(pair.left_taken, rank_of(merge.product));
      if (right.size() == 1) {
        pair.rank = rank_of(merge.product);
      }
    }
  }
}

// Merging gives a token where it gives both parts and nothing crosses between them before they are
// there; then they have nothing to merge with but each other.
std::vector<std::int32_t> LongestMatch::find_whole(const TokenizerSpec& spec) {
  std::vector<std::int32_t> whole = spec.byte_ids;
  for (const std::int32_t id : whole) {
    tokens_[static_cast<std::size_t>(id)] = Token(id, id, 1, kNever, kNever);
  }
  for (const Merge& merge : spec.merges) {
    const Token left = token(merge.left);
    const Token right = token(merge.right);
    const std::uint32_t rank = rank_of(merge.product);
    if (left.length() == 0 || right.length() == 0) {
      continue;
    }
    const char* const boundary = spec.vocabulary.piece(merge.product).data() + left.length();
    const std::uint32_t limit = std::min(rank, limit_after(left, boundary));
    const bool bytes_fit = limit == rank || right.first_taken() < limit;
    if (bytes_fit && parts_fit(merge.left, merge.right, rank)) {
      tokens_[static_cast<std::size_t>(merge.product)] =
          Token(merge.left, merge.right, left.length() + right.length(),
                left.length() == 1 ? rank : left.first_taken(),
                right.length() == 1 ? rank : right.last_taken());
      whole.push_back(merge.product);
    }
  }
  return whole;
}

// Goes back in the order of merging, and at each time looks at the two symbols at the boundary: the
// last of `left` and the first of `right`. Had they a merge that comes before the one that takes
// either of them away, it would have crossed the boundary; of equal merges the leftmost goes first.
// A merge of the two tokens themselves counts when it is below `limit`. The last two symbols,
// single bytes, are not looked at: see limit_after.
bool LongestMatch::parts_fit(std::int32_t left, std::int32_t right, std::uint32_t limit) const {
  while (true) {
    const bool left_is_later = left > right;
    const std::int32_t later = left_is_later ? left : right;
    if (later < first_product_) {
      return true;
    }
    if (merges_.rank(left, right) < limit) {
      return false;
    }
    limit = rank_of(later);
    if (left_is_later) {
      left = token(left).right();
    } else {
      ++limit;
      right = token(right).left();
    }
  }
}

std::int32_t* LongestMatch::encode_window(std::string_view text, Scratch& scratch,
                                          std::int32_t* const out) const {
  const char* const begin = text.data();
  const char* const end = begin + text.size();
  // One bit a place: known to be no boundary. Words, which are most texts, do with two words.
  std::array<std::uint64_t, 2> dead_of_word{};
  std::uint64_t* dead = dead_of_word.data();
  if (text.size() >= 64 * dead_of_word.size()) {
    scratch.dead.assign(text.size() / 64 + 1, 0);
    dead = scratch.dead.data();
  }
  const auto is_dead = [&](const char* place) {
    const auto i = static_cast<std::size_t>(place - begin);
    return (dead[i / 64] >> (i % 64) & 1U) != 0;
  };
  // The earliest rank at which a token that starts at `place` can merge its first byte.
  const auto taken_from = [&](const char* place) {
    return place == end ? 0 : place + 1 == end ? kNever : byte_pair(place).left_taken;
  };
  std::int32_t* after = out;
  const char* at = begin;
  std::uint32_t limit = kNoLimit;  // For the token at `at`.
  TokenTrie::Match match = trie_->longest(at, end);
  std::int32_t id = match.token;
  const char* next = at + match.length;
  std::uint64_t tried = 0;
  while (true) {
    ++tried;
    const Token& candidate = token(id);
    const std::uint32_t next_limit = next == end ? kNoLimit : limit_after(candidate, next);
    // Two conditions on bytes alone, which rule out nearly all that does not fit.
    const bool may_fit = static_cast<unsigned>(candidate.first_taken() < limit) &
                         static_cast<unsigned>(taken_from(next) < next_limit);
    if (may_fit && !is_dead(next) && (after == out || parts_fit(after[-1], id, kNoLimit))) {
      *after++ = id;
      if (next == end) {
        break;
      }
      at = next;
      limit = next_limit;
      match = trie_->longest(at, end);
      id = match.token;
      next = at + match.length;
      continue;
    }
    id = candidate.shorter();
    while (id == Token::kNoId) {
      const auto place = static_cast<std::size_t>(at - begin);
      dead[place / 64] |= std::uint64_t{1} << (place % 64);
      --after;
      at -= token(*after).length();
      id = token(*after).shorter();
      limit = after == out ? kNoLimit : limit_after(token(after[-1]), at);
    }
    next = at + token(id).length();
  }
  scratch.tried += tried;
  return after;
}

// A long piece goes window by window, so that what is remembered of places stays small and a text
// that repeats is not searched again. Exact by the same fact: a window's neighbours fit, so where
// the next one, started at one of its tokens, begins with that same token, the chain goes on.
// Otherwise the next starts earlier, or the window grows, at last to the whole piece.
std::int32_t* LongestMatch::encode(std::string_view piece, Scratch& scratch,
                                   std::int32_t* out) const {
  Window window{0, kWindow, out, encode_window(piece.substr(0, kWindow), scratch, out)};
  while (window.begin + window.size < piece.size()) {
    if (!chain(piece, window, scratch)) {
      window.size *= 4;
      window.ids_end = encode_window(piece.substr(window.begin, window.size), scratch, window.ids);
    }
  }
  return window.ids_end;
}

bool LongestMatch::chain(std::string_view piece, Window& window, Scratch& scratch) const {
  constexpr std::size_t kSpare = 4;  // Tokens at a window's end that its cut may have changed.
  constexpr std::size_t kTries = 4;
  const std::string_view bytes = piece.substr(window.begin, window.size);
  std::size_t begin = window.begin + window.size;
  std::int32_t* ids = window.ids_end;
  for (std::size_t dropped = 1; dropped < kSpare + kTries && ids - window.ids > 1; ++dropped) {
    const std::int32_t shared = *--ids;
    begin -= token(shared).length();
    if (dropped < kSpare) {
      continue;
    }
    // The same bytes again, as in a run of one character, have the same tokens.
    if (*window.ids == shared && piece.substr(begin, window.size) == bytes) {
      std::int32_t* const ids_end = ids + (window.ids_end - window.ids);
      std::copy_backward(window.ids, window.ids_end, ids_end);
      window = {begin, window.size, ids, ids_end};
      return true;
    }
    std::int32_t* const ids_end = encode_window(piece.substr(begin, kWindow), scratch, ids);
    if (*ids == shared) {
      window = {begin, kWindow, ids, ids_end};
      return true;
    }
  }
  return false;
}

}  // namespace tessera::tokenizer
