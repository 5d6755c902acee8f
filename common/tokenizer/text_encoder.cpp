#include "common/tokenizer/text_encoder.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>

#include "common/tokenizer/text/ascii_scan.hpp"
#include "common/tokenizer/text/utf8.hpp"

namespace tessera::tokenizer {
namespace {

constexpr std::size_t kChunk = ByteChunk::kSize;

// What the first byte of a piece says about it.
enum class First : std::uint8_t {
  kLetter = 0,   // A word.
  kJoins = 1,    // Joins a word that follows; otherwise a symbol, or white space.
  kDigit = 2,    // A piece of its own.
  kSpecial = 3,  // Apostrophe or line break.
  kBeyondAscii = 4,
};

constexpr std::array<First, 256> kFirsts = [] {
  std::array<First, 256> firsts{};
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool letter = (byte | 0x20U) >= 'a' && (byte | 0x20U) <= 'z';
    const bool special = byte == '\r' || byte == '\n' || byte == '\'';
    firsts[byte] = byte >= 0x80                 ? First::kBeyondAscii
                   : letter                     ? First::kLetter
                   : byte >= '0' && byte <= '9' ? First::kDigit
                   : special                    ? First::kSpecial
                                                : First::kJoins;
  }
  return firsts;
}();

// The length of a word at the start of the chunk; `joined` is 1 when its first byte is no letter.
// 0 when there is none, or when its end cannot be seen: a byte beyond ASCII may be a letter.
inline unsigned word_length(const ByteChunk& chunk, unsigned joined) {
  const unsigned run = run_length(chunk.letters(), joined);
  const unsigned end = joined + run;
  return run == 0 || end >= kChunk || (chunk.beyond_ascii() >> end & 1U) != 0 ? 0 : end;
}

// The length of the piece at the start of the chunk, which starts with an ASCII symbol or white
// space; 0 when its end cannot be seen. The rules are Pretokenizer's.
unsigned symbol_or_space_length(const ByteChunk& chunk, char first) {
  const std::uint32_t letters = chunk.letters();
  const std::uint32_t breaks = chunk.line_breaks();
  if ((letters >> 1U & 1U) != 0 && (breaks & 1U) == 0) {
    return 0;  // A word after all, whose end could not be seen.
  }
  const std::uint32_t white = chunk.spaces() | chunk.controls();
  const std::uint32_t known = white | letters | chunk.digits() | chunk.beyond_ascii();
  const std::uint32_t symbols = ~known & 0xFFFFU;
  const unsigned blank = first == ' ' ? 1 : 0;
  const unsigned symbols_end = blank + run_length(symbols, blank);
  unsigned end = 0;
  if (symbols_end > blank) {
    end = symbols_end + run_length(breaks, symbols_end);
    if (end < kChunk && (chunk.beyond_ascii() >> symbols_end & 1U) == 0) {
      return end;
    }
    return 0;
  }
  end = run_length(white, 0);
  if (end == 0 || end >= kChunk || (chunk.beyond_ascii() >> end & 1U) != 0) {
    return 0;
  }
  const std::uint32_t breaks_inside = breaks & ((1U << end) - 1U);
  if (breaks_inside != 0) {
    return static_cast<unsigned>(std::bit_width(breaks_inside));
  }
  return end == 1 ? 1 : end - 1;
}

// The length of the piece that starts at `at`, where sixteen bytes are readable; 0 when it is not
// all ASCII or its end cannot be seen there.
inline std::size_t ascii_piece_length(const char* at) {
  const First first = kFirsts[static_cast<unsigned char>(*at)];
  const ByteChunk chunk(at);
  if (first <= First::kJoins) [[likely]] {
    const unsigned length = word_length(chunk, static_cast<unsigned>(first));
    if (length > 0) [[likely]] {
      return length;
    }
  }
  if (first == First::kDigit) {
    return 1;
  }
  const bool is_break = first == First::kSpecial && *at != '\'';
  return first == First::kJoins || is_break ? symbol_or_space_length(chunk, *at) : 0;
}

// The low `length` bytes of a key, for lengths up to 15.
constexpr std::array<PieceKey<2>, kChunk> kKeepBytes = [] {
  std::array<PieceKey<2>, kChunk> masks{};
  for (unsigned length = 0; length < kChunk; ++length) {
    masks[length][0] = length >= 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << 8 * length) - 1;
    masks[length][1] = length <= 8 ? 0 : (std::uint64_t{1} << 8 * (length - 8)) - 1;
  }
  return masks;
}();

// The key of the `length` bytes at `at`, where sixteen are readable.
inline PieceKey<2> short_key(const char* at, std::size_t length) {
  const PieceKey<2>& keep = kKeepBytes[length];
  return {load_u64(at) & keep[0], (load_u64(at + 8) & keep[1]) | static_cast<std::uint64_t>(length)
                                                                     << 56U};
}

// The key of a piece of which only its own bytes are readable.
template <unsigned kWords>
PieceKey<kWords> copied_key(std::string_view piece) {
  PieceKey<kWords> key{};
  std::memcpy(key.data(), piece.data(), piece.size());
  key[kWords - 1] |= static_cast<std::uint64_t>(piece.size()) << 56U;
  return key;
}

// The key of the sixteen to 31 bytes at `at`, where 32 are readable.
inline PieceKey<4> long_key(const char* at, std::size_t length) {
  const PieceKey<2> high = short_key(at + 16, length - 16);
  return {load_u64(at), load_u64(at + 8), high[0], high[1] + (std::uint64_t{16} << 56U)};
}

}  // namespace

TextEncoder::TextEncoder(const TokenizerSpec& spec, Bpe bpe) : bpe_(std::move(bpe)), cuts_(spec) {}

Result<TextEncoder> TextEncoder::make(const TokenizerSpec& spec) {
  Result<Bpe> bpe = Bpe::make(spec);
  if (!bpe) {
    return bpe.error();
  }
  return TextEncoder(spec, std::move(*bpe));
}

// Pieces wait here between the two steps of the encoder.
class TextEncoder::Batch {
 public:
  Batch(const TextEncoder& encoder, std::string_view text, Scratch& scratch, std::int32_t* out)
      : encoder_(encoder), text_end_(text.data() + text.size()), scratch_(scratch), out_(out) {}

  // A piece of at most ShortWordCache::kMostBytes, with sixteen readable bytes.
  void add_short(const char* at, std::size_t length) { add({at, length}, short_key(at, length)); }

  // A piece, or a part of one at whose ends it may be cut, of any length.
  void add_any(std::string_view part) {
    if (part.size() > ShortWordCache::kMostBytes) {
      add_long(part);
    } else if (readable(part) >= kChunk) {
      add_short(part.data(), part.size());
    } else {
      add(part, copied_key<2>(part));
    }
  }

  // Encodes all that waits, in order.
  void flush() {
    for (const Item& item : std::span(items_).first(count_)) {
      if (item.part.size() <= ShortWordCache::kMostBytes) [[likely]] {
        write(item.part, item.key, item.place, scratch_.short_words);
      } else if (item.part.size() <= LongWordCache::kMostBytes) {
        write(item.part, key_of_long(item.part), item.place, scratch_.long_words);
      } else {
        out_ = encoder_.bpe_.encode(item.part, scratch_.bpe, out_);
      }
    }
    count_ = 0;
  }

  std::int32_t* out() const { return out_; }

 private:
  struct Item {
    PieceKey<2> key;  // Of a short part.
    std::size_t place;
    std::string_view part;
  };

  std::size_t readable(std::string_view part) const {
    return static_cast<std::size_t>(text_end_ - part.data());
  }
  PieceKey<4> key_of_long(std::string_view part) const {
    return readable(part) >= 32 ? long_key(part.data(), part.size()) : copied_key<4>(part);
  }

  void add(std::string_view part, const PieceKey<2>& key) {
    items_[count_] = {key, scratch_.short_words.prefetch(key), part};
    next();
  }
  void add_long(std::string_view part) {
    const bool cached = part.size() <= LongWordCache::kMostBytes;
    items_[count_] = {{}, cached ? scratch_.long_words.prefetch(key_of_long(part)) : 0, part};
    next();
  }
  void next() {
    if (++count_ == items_.size()) [[unlikely]] {
      flush();
    }
  }

  template <typename Key, typename Cache>
  void write(std::string_view part, const Key& key, std::size_t place, Cache& cache) {
    std::int32_t* const after = cache.write(key, place, out_);
    out_ = after != nullptr ? after : encoder_.encode_new(part, key, cache, scratch_, out_);
  }

  const TextEncoder& encoder_;
  const char* text_end_;
  Scratch& scratch_;
  std::int32_t* out_;
  std::size_t count_ = 0;
  std::array<Item, 32> items_;
};

// In two steps, a few dozen pieces at a time: find the pieces and start to fetch their places in
// the word cache, which is too large for the nearer caches; then look them up.
void TextEncoder::encode(std::string_view text, Scratch& scratch, IdBuffer& out) const {
  // A piece gives at most one id a byte, and a cache hit writes a few more than it counts.
  out.reserve_more(text.size() + LongWordCache::kRoom);
  Batch batch(*this, text, scratch, out.end());
  std::size_t begin = 0;
  while (begin + kChunk <= text.size()) {
    const char* const at = text.data() + begin;
    std::size_t length = ascii_piece_length(at);
    if (length > 0) [[likely]] {
      batch.add_short(at, length);
    } else {
      length = pretokenizer_.piece_end(text, begin) - begin;
      add_piece({at, length}, batch);
    }
    begin += length;
  }
  while (begin < text.size()) {
    const std::size_t end = pretokenizer_.piece_end(text, begin);
    add_piece(text.substr(begin, end - begin), batch);
    begin = end;
  }
  batch.flush();
  out.advance(static_cast<std::size_t>(batch.out() - out.end()));
}

void TextEncoder::add_piece(std::string_view piece, Batch& batch) const {
  if (piece.size() > ShortWordCache::kMostBytes) {
    Decoded previous = decode_utf8(piece.data());
    for (std::size_t at = previous.length; at < piece.size();) {
      if (previous.code_point < 0x80 && at + kChunk <= piece.size() &&
          ByteChunk(piece.data() + at).beyond_ascii() == 0) {
        at += kChunk;  // Nothing is cut between ASCII.
        previous.code_point = static_cast<unsigned char>(piece[at - 1]);
        continue;
      }
      const Decoded next = decode_utf8(piece.data() + at);
      if (cuts_.safe(previous.code_point, next.code_point)) {
        batch.add_any(piece.substr(0, at));
        piece.remove_prefix(at);
        at = 0;
      }
      previous = next;
      at += next.length;
    }
  }
  batch.add_any(piece);
}

template <typename Cache, typename Key>
[[gnu::noinline]] std::int32_t* TextEncoder::encode_new(std::string_view piece, const Key& key,
                                                        Cache& cache, Scratch& scratch,
                                                        std::int32_t* out) const {
  std::int32_t* const after = bpe_.encode(piece, scratch.bpe, out);
  cache.insert(key, {out, after});
  return after;
}

}  // namespace tessera::tokenizer
