#include "clients/gateway/files/file_info.hpp"

#include <algorithm>
#include <chrono>

#include "clients/gateway/api/json.hpp"
#include "clients/gateway/encoding/json_object.hpp"
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

Result<void> take_field(std::string_view name, JsonValue& value, FileInfo& info) {
  std::int64_t number = 0;
  Result<void> ok;
  if (name == "id") {
    return take(value, info.id);
  }
  if (name == "tenant") {
    return take(value, info.tenant);
  }
  if (name == "filename") {
    return take(value, info.filename);
  }
  if (name == "purpose") {
    return take(value, info.purpose);
  }
  if (name == "created_at") {
    return take(value, info.created_at);
  }
  if (name == "bytes") {
    ok = take(value, number);
    info.bytes = static_cast<std::uint64_t>(std::max<std::int64_t>(number, 0));
  } else if (name == "expires_at") {
    ok = take(value, number);
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
  JsonObject json;
  json.text("id", info.id);
  json.text("object", "file");
  json.number("bytes", info.bytes);
  json.time_or_null("created_at", info.created_at);
  json.time_or_null("expires_at", info.expires_at);
  json.text("filename", info.filename);
  json.text("purpose", info.purpose);
  json.text("status", "processed");
  json.raw("status_details", "null");
  return json.take();
}

std::string record_of(const FileInfo& info) {
  JsonObject json;
  json.text("id", info.id);
  json.text("tenant", info.tenant);
  json.text("filename", info.filename);
  json.text("purpose", info.purpose);
  json.number("bytes", info.bytes);
  json.time_or_null("created_at", info.created_at);
  if (info.expires_at) {
    json.time_or_null("expires_at", info.expires_at);
  }
  return json.take() + "\n";
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
