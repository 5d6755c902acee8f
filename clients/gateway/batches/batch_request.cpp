#include "clients/gateway/batches/batch_request.hpp"

#include <algorithm>
#include <charconv>

#include "clients/gateway/encoding/json_object.hpp"

namespace tessera::gateway {

using http::Problem;

namespace {

constexpr std::int64_t kWindowMaxS = 30LL * 86'400;
constexpr std::size_t kMetadataMax = 16;
constexpr std::size_t kMetadataKeyMax = 64;  // Characters,
constexpr std::size_t kMetadataValueMax = 512;
constexpr std::int64_t kOutputExpiresMinS = 3600;
constexpr std::int64_t kOutputExpiresMaxS = 30LL * 86'400;

Error wrong(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

std::size_t characters(std::string_view utf8) {
  return static_cast<std::size_t>(std::ranges::count_if(
      utf8, [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
}

Result<void> take_window(JsonValue& value, BatchRecord& record) {
  auto ok = take(value, record.completion_window);
  if (ok && !window_seconds(record.completion_window)) {
    return wrong("must be \"24h\", or a whole number with s, m, h or d, up to 30d");
  }
  return ok;
}

Result<void> take_metadata(JsonValue& value, BatchRecord& record) {
  auto& metadata = record.metadata.emplace();
  return value.each_field([&](std::string_view name, JsonValue& field) -> Result<void> {
    auto text = field.text();
    if (!text) {
      return wrong("must have strings as values");
    }
    if (characters(name) > kMetadataKeyMax || characters(*text) > kMetadataValueMax) {
      return wrong("has keys of at most 64 and values of at most 512 characters");
    }
    if (metadata.size() == kMetadataMax) {
      return wrong("has at most 16 keys");
    }
    metadata.emplace_back(name, *text);
    return {};
  });
}

Result<void> take_output_expiry(JsonValue& value, BatchRecord& record) {
  std::string anchor;
  auto ok = value.each_field([&](std::string_view name, JsonValue& field) -> Result<void> {
    if (name == "anchor") {
      return take(field, anchor);
    }
    auto seconds = field.integer();
    if (name != "seconds" || !seconds) {
      return wrong("has \"anchor\": \"created_at\" and \"seconds\"");
    }
    record.output_expires_s = *seconds;
    return {};
  });
  if (!ok) {
    return ok;
  }
  const std::int64_t seconds = record.output_expires_s.value_or(0);
  if (anchor != "created_at" || seconds < kOutputExpiresMinS || seconds > kOutputExpiresMaxS) {
    return wrong("has \"anchor\": \"created_at\" and \"seconds\" of 3600 to 2592000");
  }
  return {};
}

Result<void> take_field(std::string_view name, JsonValue& value, BatchRecord& record) {
  auto null = is_null(value);
  if (!null || *null) {
    return null ? Result<void>() : Result<void>(null.error());
  }
  if (name == "input_file_id") return take(value, record.input_file_id);
  if (name == "endpoint") return take(value, record.endpoint);
  if (name == "completion_window") return take_window(value, record);
  if (name == "metadata") return take_metadata(value, record);
  if (name == "output_expires_after") return take_output_expiry(value, record);
  return wrong("is not a field of this route");
}

}  // namespace

std::optional<std::int64_t> window_seconds(std::string_view window) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(window.data(), window.data() + window.size(), number);
  if (error != std::errc() || end + 1 != window.data() + window.size() || number < 1 ||
      number > kWindowMaxS) {
    return std::nullopt;
  }
  const std::int64_t unit = *end == 's'   ? 1
                            : *end == 'm' ? 60
                            : *end == 'h' ? 3600
                            : *end == 'd' ? 86'400
                                          : 0;
  const std::int64_t seconds = number * unit;
  return seconds < 1 || seconds > kWindowMaxS ? std::nullopt : std::optional(seconds);
}

std::variant<BatchRecord, Problem> read_batch_request(std::string& body) {
  BatchRecord record;
  auto problem = read_fields(body, [&](std::string_view name, JsonValue& value) {
    return take_field(name, value, record);
  });
  if (problem) {
    return *problem;
  }
  if (record.input_file_id.empty()) {
    return field_problem("input_file_id", wrong("is missing"));
  }
  if (record.endpoint != kBatchEndpoint) {
    return field_problem("endpoint", wrong("must be \"" + std::string(kBatchEndpoint) + "\""));
  }
  if (record.completion_window.empty()) {
    return field_problem("completion_window", wrong("is missing: say \"24h\""));
  }
  return record;
}

std::string batch_list_json(const std::vector<BatchRecord>& batches, bool more) {
  return json_page(json_array(batches, public_json), batches.empty() ? "" : batches.front().id,
                   batches.empty() ? "" : batches.back().id, more);
}

}  // namespace tessera::gateway
