#include "common/tokenizer/text/normalizer.hpp"

#include <algorithm>

#include "common/tokenizer/text/utf8.hpp"

namespace tessera::tokenizer {
namespace {

// What form C does with a code point. The other values are combining classes of marks that stay as
// they are when they are in order.
constexpr std::uint8_t kStable = 0;       // Combining class 0, and never part of a change.
constexpr std::uint8_t kUnsettled = 255;  // Replaced, or may join the code point before it.

// Hangul syllables are composed by arithmetic: Unicode standard, section 3.12.
constexpr char32_t kSyllableBase = 0xAC00;
constexpr char32_t kLeadBase = 0x1100;
constexpr char32_t kVowelBase = 0x1161;
constexpr char32_t kTailBase = 0x11A7;  // One before the first tail: "no tail".
constexpr char32_t kLeads = 19;
constexpr char32_t kVowels = 21;
constexpr char32_t kTails = 28;
constexpr char32_t kSyllables = kLeads * kVowels * kTails;

constexpr unsigned kFirstUnstableLead = 0xCC;  // The lead byte of U+0300.

bool is_continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80U; }

bool in_range(char32_t value, char32_t base, char32_t count) { return value - base < count; }

void append_utf8(char32_t code_point, std::string& out) {
  const auto put = [&out](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0U | code_point >> 6U);
    put(0x80U | (code_point & 0x3FU));
  } else if (code_point < 0x10000) {
    put(0xE0U | code_point >> 12U);
    put(0x80U | (code_point >> 6U & 0x3FU));
    put(0x80U | (code_point & 0x3FU));
  } else {
    put(0xF0U | code_point >> 18U);
    put(0x80U | (code_point >> 12U & 0x3FU));
    put(0x80U | (code_point >> 6U & 0x3FU));
    put(0x80U | (code_point & 0x3FU));
  }
}

}  // namespace

const Normalizer& Normalizer::instance() {
  static const Normalizer normalizer;
  return normalizer;
}

Normalizer::Normalizer() {
  std::vector<std::uint8_t> flat(TwoStageTable::kCodePoints, kStable);
  for (const CombiningRun& run : combining_runs()) {
    std::fill(flat.begin() + run.first, flat.begin() + run.last + 1, run.combining_class);
  }
  combining_ = TwoStageTable(flat);
  for (const Decomposition& entry : replacements()) {
    decompositions_[entry.code_point] = entry;
    flat[entry.code_point] = kUnsettled;
  }
  for (const Decomposition& entry : compositions()) {
    decompositions_[entry.code_point] = entry;
    compositions_[std::uint64_t{entry.first} << 32U | entry.second] = entry.code_point;
    flat[entry.second] = kUnsettled;
  }
  std::fill_n(flat.begin() + kVowelBase, kVowels, kUnsettled);
  std::fill_n(flat.begin() + kTailBase + 1, kTails - 1, kUnsettled);
  properties_ = TwoStageTable(flat);
  may_start_unstable_.fill(0);
  std::string encoded;
  for (char32_t code_point = 0; code_point < TwoStageTable::kCodePoints; ++code_point) {
    if (flat[code_point] != kStable) {
      encoded.clear();
      append_utf8(code_point, encoded);
      may_start_unstable_[static_cast<unsigned char>(encoded.front())] = 1;
    }
  }
}

std::string_view Normalizer::normalize(std::string_view text, std::string& storage) const {
  Stretch stretch = next_unstable(text, 0);
  if (stretch.begin == text.size()) {
    return text;
  }
  std::vector<Char> buffer;
  storage.clear();
  std::size_t copied = 0;
  while (stretch.begin < text.size()) {
    storage.append(text.substr(copied, stretch.begin - copied));
    append_composed(text.substr(stretch.begin, stretch.end - stretch.begin), buffer, storage);
    copied = stretch.end;
    stretch = next_unstable(text, stretch.end);
  }
  storage.append(text.substr(copied));
  return storage;
}

// Moves on over blocks in which no byte can start anything but stable code points.
std::size_t Normalizer::skip_stable_blocks(std::string_view text, std::size_t from) const {
  constexpr std::size_t kBlock = 32;
  while (from + kBlock <= text.size()) {
    // Loops without early exit: the first becomes vector instructions and settles Latin text.
    unsigned highest = 0;
    for (std::size_t i = 0; i < kBlock; ++i) {
      highest = std::max<unsigned>(highest, static_cast<unsigned char>(text[from + i]));
    }
    if (highest >= kFirstUnstableLead) {
      unsigned unstable = 0;
      for (std::size_t i = 0; i < kBlock; ++i) {
        unstable |= may_start_unstable_[static_cast<unsigned char>(text[from + i])];
      }
      if (unstable != 0) {
        break;
      }
    }
    from += kBlock;
  }
  return from;
}

// The quick check of Unicode's annex 15, which stops at what is not certainly in form C and widens
// that to the stable code points around it. `from` is the start of the text or of a stable one.
Normalizer::Stretch Normalizer::next_unstable(std::string_view text, std::size_t from) const {
  const std::size_t first = from;
  std::uint8_t last_class = 0;
  while (from < text.size()) {
    const std::size_t after_blocks = skip_stable_blocks(text, from);
    last_class = after_blocks > from ? kStable : last_class;
    from = after_blocks;
    // A block may start inside a code point; its other bytes settle nothing.
    const std::size_t walk_end = std::min(text.size(), from + 32);
    while (from < walk_end && is_continuation(text[from])) {
      ++from;
    }
    while (from < walk_end) {
      const Decoded decoded = decode_utf8(text.data() + from);
      const std::uint8_t property = properties_[decoded.code_point];
      if (property == kUnsettled || (property != kStable && property < last_class)) {
        return {stable_before(text, first, from), stable_after(text, from)};
      }
      last_class = property;
      from += decoded.length;
    }
  }
  return {text.size(), text.size()};
}

// The start of the last stable code point before `at`, or `first`.
std::size_t Normalizer::stable_before(std::string_view text, std::size_t first,
                                      std::size_t at) const {
  while (at > first) {
    do {
      --at;
    } while (at > first && is_continuation(text[at]));
    if (properties_[decode_utf8(text.data() + at).code_point] == kStable) {
      break;
    }
  }
  return at;
}

// The start of the first stable code point from `at` on.
std::size_t Normalizer::stable_after(std::string_view text, std::size_t at) const {
  while (at < text.size()) {
    const Decoded decoded = decode_utf8(text.data() + at);
    if (properties_[decoded.code_point] == kStable) {
      break;
    }
    at += decoded.length;
  }
  return at;
}

// Decompose, order marks by class, compose: annex 15's definition of form C.
void Normalizer::append_composed(std::string_view stretch, std::vector<Char>& buffer,
                                 std::string& out) const {
  buffer.clear();
  for (std::size_t at = 0; at < stretch.size();) {
    const Decoded decoded = decode_utf8(stretch.data() + at);
    decompose(decoded.code_point, buffer);
    at += decoded.length;
  }
  const auto is_starter = [](const Char& entry) { return entry.combining_class == 0; };
  for (auto run = buffer.begin(); run != buffer.end();) {
    run = std::find_if_not(run, buffer.end(), is_starter);
    const auto run_end = std::find_if(run, buffer.end(), is_starter);
    if (!std::ranges::is_sorted(run, run_end, {}, &Char::combining_class)) {
      std::ranges::stable_sort(run, run_end, {}, &Char::combining_class);
    }
    run = run_end;
  }
  std::size_t kept = 0;
  std::size_t starter = buffer.size();  // Of the kept ones, what the next may join.
  for (std::size_t i = 0; i < buffer.size(); ++i) {
    const Char next = buffer[i];
    // Blocked by what stands between, unless all of that has a lower class than this one.
    const bool adjacent = starter + 1 == kept;
    if (starter < kept && (adjacent || (buffer[kept - 1].combining_class < next.combining_class &&
                                        buffer[kept - 1].combining_class != 0))) {
      const char32_t composite = compose_pair(buffer[starter].code_point, next.code_point);
      if (composite != 0) {
        buffer[starter].code_point = composite;
        continue;
      }
    }
    if (next.combining_class == 0) {
      starter = kept;
    }
    buffer[kept++] = next;
  }
  for (std::size_t i = 0; i < kept; ++i) {
    append_utf8(buffer[i].code_point, out);
  }
}

void Normalizer::decompose(char32_t code_point, std::vector<Char>& out) const {
  if (in_range(code_point, kSyllableBase, kSyllables)) {
    const char32_t index = code_point - kSyllableBase;
    out.push_back({kLeadBase + index / (kVowels * kTails), 0});
    out.push_back({kVowelBase + index / kTails % kVowels, 0});
    if (index % kTails > 0) {
      out.push_back({kTailBase + index % kTails, 0});
    }
    return;
  }
  const auto entry = decompositions_.find(code_point);
  if (entry == decompositions_.end()) {
    out.push_back({code_point, combining_[code_point]});
    return;
  }
  decompose(entry->second.first, out);
  if (entry->second.second != 0) {
    decompose(entry->second.second, out);
  }
}

// The composite of two code points, or 0.
char32_t Normalizer::compose_pair(char32_t first, char32_t second) const {
  if (in_range(first, kLeadBase, kLeads) && in_range(second, kVowelBase, kVowels)) {
    return kSyllableBase + ((first - kLeadBase) * kVowels + (second - kVowelBase)) * kTails;
  }
  if (in_range(first, kSyllableBase, kSyllables) && (first - kSyllableBase) % kTails == 0 &&
      in_range(second, kTailBase + 1, kTails - 1)) {
    return first + (second - kTailBase);
  }
  const auto entry = compositions_.find(std::uint64_t{first} << 32U | second);
  return entry == compositions_.end() ? 0 : entry->second;
}

}  // namespace tessera::tokenizer
