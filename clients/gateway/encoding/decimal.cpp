#include "clients/gateway/encoding/decimal.hpp"

#include <charconv>
#include <cmath>

#include "common/check.hpp"

namespace tessera::gateway {
namespace {

constexpr std::size_t kFloatCharsMax = 16;    // "-1.17549435e-38", and a comma.
constexpr std::size_t kIntegerCharsMax = 20;  // 2^64.

template <typename T>
void append_list(std::span<const T> values, std::size_t chars_max, std::string& out) {
  const std::size_t begin = out.size();
  out.resize(begin + values.size() * (chars_max + 1));
  char* to = out.data() + begin;
  char* const end = out.data() + out.size();
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i > 0) {
      *to++ = ',';
    }
    to = std::to_chars(to, end, values[i]).ptr;
  }
  out.resize(static_cast<std::size_t>(to - out.data()));
}

}  // namespace

void append_decimals(std::span<const float> values, std::string& out) {
  for (const float value : values) {
    CHECK(std::isfinite(value));
  }
  append_list(values, kFloatCharsMax, out);
}

void append_integers(std::span<const std::int8_t> values, std::string& out) {
  append_list(values, 4, out);
}

void append_integers(std::span<const std::uint8_t> values, std::string& out) {
  append_list(values, 3, out);
}

void append_integer(std::uint64_t value, std::string& out) {
  char text[kIntegerCharsMax];
  out.append(text, std::to_chars(text, text + sizeof(text), value).ptr);
}

}  // namespace tessera::gateway
