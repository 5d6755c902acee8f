#include "clients/gateway/api/vectors_body.hpp"

#include <algorithm>
#include <cstring>

#include "clients/gateway/encoding/base64.hpp"
#include "clients/gateway/encoding/decimal.hpp"
#include "common/check.hpp"
#include "common/float16.hpp"

namespace tessera::gateway {
namespace {

using Form = VectorSection::Form;

// At 50 ns a value written as a decimal a slice takes well under half of a millisecond. As base64
// it is some 60 KiB, which go out in one write while the processor's cache still has them.
constexpr std::size_t kDecimalsPerSlice = 6'000;
constexpr std::size_t kBytesPerSlice = 44U << 10;
constexpr std::size_t kWholeBytesMax = 64U << 10;

std::size_t values_per_row(Dtype dtype, std::size_t dimensions) {
  return dtype == Dtype::kBinary || dtype == Dtype::kUbinary ? dimensions / 8 : dimensions;
}

std::size_t rows_per_slice(const std::vector<VectorSection>& sections, std::size_t dimensions) {
  std::size_t rows = 4096;
  for (const VectorSection& section : sections) {
    const std::size_t by_bytes =
        kBytesPerSlice / std::max<std::size_t>(1, bytes_per_vector(section.dtype, dimensions));
    const std::size_t by_values =
        kDecimalsPerSlice / std::max<std::size_t>(1, values_per_row(section.dtype, dimensions));
    rows = std::min(rows, section.form == Form::kList ? by_values : by_bytes);
  }
  return std::max<std::size_t>(1, rows);
}

std::size_t digits_of_all_below(std::size_t count) {
  std::size_t digits = 0;
  for (std::size_t width = 1, from = 0; from < count; ++width) {
    const std::size_t to = std::min(count, from == 0 ? 10 : from * 10);
    digits += (to - from) * width;
    from = to;
  }
  return digits;
}

constexpr std::string_view kRowBefore = R"({"object":"embedding","index":)";
constexpr std::string_view kRowBetween = R"(,"embedding":)";

// Bytes of `rows` rows at the most; of decimals, about so many.
std::size_t room_for(const VectorSection& section, std::size_t rows, std::size_t dimensions) {
  const std::size_t bytes = bytes_per_vector(section.dtype, dimensions);
  const std::size_t row = section.form == Form::kRaw      ? bytes
                          : section.form == Form::kBase64 ? base64_length(bytes)
                                                          : 12 * dimensions;
  constexpr std::size_t kDigitsAndMarks = 16;
  return rows * (row + kRowBefore.size() + kRowBetween.size() + kDigitsAndMarks);
}

}  // namespace

VectorsBody::VectorsBody(EmbedAnswer answer, std::vector<VectorSection> sections)
    : answer_(std::move(answer)),
      sections_(std::move(sections)),
      rows_a_slice_(rows_per_slice(sections_, answer_.dimensions)) {
  floats_.resize(answer_.dimensions);
}

std::optional<std::uint64_t> VectorsBody::size() const {
  std::uint64_t total = 0;
  for (const VectorSection& section : sections_) {
    if (section.form == Form::kList) {
      return std::nullopt;
    }
    const std::size_t bytes = bytes_per_vector(section.dtype, answer_.dimensions);
    const bool raw = section.form == Form::kRaw;
    total += section.before.size() + section.after.size() +
             answer_.items * (raw ? bytes : base64_length(bytes) + 2);
    total += raw || answer_.items == 0 ? 0 : answer_.items - 1;  // Commas.
    if (section.openai_rows) {
      total += answer_.items * (kRowBefore.size() + kRowBetween.size() + 1) +
               digits_of_all_below(answer_.items);
    }
  }
  return total;
}

std::size_t VectorsBody::held() const {
  std::size_t bytes = 0;
  for (const protocol::ResultBlock& block : answer_.blocks) {
    bytes += block.payload.size();
  }
  return bytes;
}

http::BodySource::State VectorsBody::next(std::string& slice) {
  const VectorSection& section = sections_.at(section_);
  if (item_ == 0) {
    slice += section.before;
  }
  const std::size_t end = std::min(answer_.items, item_ + rows_a_slice_);
  slice.reserve(slice.size() + room_for(section, end - item_, answer_.dimensions) +
                section.after.size());
  for (; item_ < end; ++item_) {
    if (item_ > 0 && section.form != Form::kRaw) {
      slice += ',';
    }
    append_row(section, item_, slice);
  }
  if (item_ < answer_.items) {
    return State::kMore;
  }
  slice += section.after;
  item_ = 0;
  return ++section_ == sections_.size() ? State::kEnd : State::kMore;
}

void VectorsBody::append_row(const VectorSection& section, std::size_t item, std::string& out) {
  if (!section.openai_rows) {
    return append_value(section, item, out);
  }
  out += kRowBefore;
  append_integer(item, out);
  out += kRowBetween;
  append_value(section, item, out);
  out += '}';
}

void VectorsBody::append_value(const VectorSection& section, std::size_t item, std::string& out) {
  const std::span<const std::byte> bytes = converted(section, item);
  if (section.form == Form::kRaw) {
    out.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return;
  }
  if (section.form == Form::kBase64) {
    out += '"';
    append_base64(bytes, out);
    out += '"';
    return;
  }
  out += '[';
  switch (section.dtype) {
    case Dtype::kInt8:
    case Dtype::kBinary:
      append_integers(std::span<const std::int8_t>(signed_), out);
      break;
    case Dtype::kUint8:
    case Dtype::kUbinary:
      append_integers(std::span<const std::uint8_t>(unsigned_), out);
      break;
    default:
      append_decimals(floats_, out);
      break;
  }
  out += ']';
}

std::span<const std::byte> VectorsBody::converted(const VectorSection& section, std::size_t item) {
  const std::span<const std::byte> row = answer_.row(item);
  const bool halves_came = answer_.vector_type == protocol::VectorType::kFloat16;
  CHECK(halves_came == (section.dtype == Dtype::kFloat16));
  const bool as_it_came = halves_came || section.dtype == Dtype::kFloat;
  if (as_it_came && section.form != Form::kList) {
    return row;
  }
  if (halves_came) {
    std::vector<std::uint16_t> halves(answer_.dimensions);
    std::memcpy(halves.data(), row.data(), row.size());
    from_float16(halves, floats_);
    return row;
  }
  std::memcpy(floats_.data(), row.data(), row.size());
  signed_.clear();
  unsigned_.clear();
  switch (section.dtype) {
    case Dtype::kInt8:
      append_int8(floats_, signed_);
      break;
    case Dtype::kBinary:
      append_binary(floats_, signed_);
      break;
    case Dtype::kUint8:
      append_uint8(floats_, unsigned_);
      break;
    case Dtype::kUbinary:
      append_ubinary(floats_, unsigned_);
      break;
    default:
      return row;
  }
  return signed_.empty() ? std::as_bytes(std::span(unsigned_)) : std::as_bytes(std::span(signed_));
}

void set_vectors(http::Response& response, EmbedAnswer answer,
                 std::vector<VectorSection> sections) {
  const std::size_t values = answer.items * answer.dimensions * sections.size();
  auto body = std::make_unique<VectorsBody>(std::move(answer), std::move(sections));
  const auto size = body->size();
  if (size.value_or(values * 12) > kWholeBytesMax) {
    response.source = std::move(body);
    return;
  }
  response.body.reserve(size.value_or(0));
  while (body->next(response.body) == http::BodySource::State::kMore) {
  }
}

}  // namespace tessera::gateway
