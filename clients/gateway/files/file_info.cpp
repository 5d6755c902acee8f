#include "clients/gateway/files/file_info.hpp"

#include <algorithm>
#include <chrono>

#include "clients/gateway/api/json.hpp"
#include "clients/gateway/encoding/json_text.hpp"
#include "clients/gateway/http/request_id.hpp"

namespace tessera::gateway {
namespace {

constexpr std::string_view kIdTag = "file-";
constexpr std::size_t kIdDigits = 32;
constexpr std::size_t kTimeDigits = 12;
constexpr std::size_t kBatchIdMax = 128;

std::string time_digits() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  auto ms = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
  std::string digits(kTimeDigits, '0');
  for (auto digit = digits.rbegin(); digit != digits.rend(); ++digit, ms >>= 4U) {
    *digit = "0123456789abcdef"[ms & 15U];
  }
  return digits;
}

bool is_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }

Result<void> take_text(JsonValue& value, std::string& into) {
  auto text = value.text();
  if (!text) {
    return text.error();
  }
  into = *text;
  return {};
}

Result<void> take_number(JsonValue& value, std::int64_t& into) {
  auto number = value.integer();
  if (!number) {
    return number.error();
  }
  into = *number;
  return {};
}

Result<void> take_field(std::string_view name, JsonValue& value, FileInfo& info) {
  std::int64_t number = 0;
  Result<void> ok;
  if (name == "id") {
    return take_text(value, info.id);
  }
  if (name == "tenant") {
    return take_text(value, info.tenant);
  }
  if (name == "filename") {
    return take_text(value, info.filename);
  }
  if (name == "purpose") {
    return take_text(value, info.purpose);
  }
  if (name == "created_at") {
    return take_number(value, info.created_at);
  }
  if (name == "bytes") {
    ok = take_number(value, number);
    info.bytes = static_cast<std::uint64_t>(std::max<std::int64_t>(number, 0));
  } else if (name == "expires_at") {
    ok = take_number(value, number);
    info.expires_at = number;
  }
  return ok;  // What a later version wrote beside is left alone.
}

}  // namespace

std::string new_file_id() {
  return std::string(kIdTag) + time_digits() + http::random_hex((kIdDigits - kTimeDigits) / 2);
}

bool is_file_id(std::string_view text) {
  return text.size() == kIdTag.size() + kIdDigits && text.starts_with(kIdTag) &&
         std::ranges::all_of(text.substr(kIdTag.size()), is_hex);
}

bool is_batch_id(std::string_view text) {
  return !text.empty() && text.size() <= kBatchIdMax && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
  });
}

std::string file_json(const FileInfo& info) {
  std::string json = R"({"id":)" + json_string(info.id) + R"(,"object":"file","bytes":)" +
                     std::to_string(info.bytes) + R"(,"created_at":)" +
                     std::to_string(info.created_at);
  json += R"(,"expires_at":)" + (info.expires_at ? std::to_string(*info.expires_at) : "null");
  return json + R"(,"filename":)" + json_string(info.filename) + R"(,"purpose":)" +
         json_string(info.purpose) + R"(,"status":"processed","status_details":null})";
}

std::string record_of(const FileInfo& info) {
  std::string json = R"({"id":)" + json_string(info.id) + R"(,"tenant":)" +
                     json_string(info.tenant) + R"(,"filename":)" + json_string(info.filename) +
                     R"(,"purpose":)" + json_string(info.purpose) + R"(,"bytes":)" +
                     std::to_string(info.bytes) + R"(,"created_at":)" +
                     std::to_string(info.created_at);
  if (info.expires_at) {
    json += R"(,"expires_at":)" + std::to_string(*info.expires_at);
  }
  return json + "}\n";
}

Result<FileInfo> parse_record(std::string text) {
  FileInfo info;
  const auto ok = read_json_object(
      text, [&](std::string_view name, JsonValue& value) { return take_field(name, value, info); });
  if (!ok || !is_file_id(info.id)) {
    return Error{ErrorCode::kInternal, ok ? "it names no file" : ok.error().message};
  }
  return info;
}

}  // namespace tessera::gateway
