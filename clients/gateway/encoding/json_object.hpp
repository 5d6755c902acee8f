#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "clients/gateway/encoding/json_text.hpp"

namespace tessera::gateway {

// Writes one JSON object, field by field.
class JsonObject {
 public:
  void raw(std::string_view name, std::string_view json) {
    text_ += text_.size() > 1 ? "," : "";
    append_json_string(name, text_);
    text_ += ':';
    text_ += json;
  }
  void text(std::string_view name, std::string_view value) { raw(name, json_string(value)); }
  // Null where there is none.
  void text_or_null(std::string_view name, std::string_view value) {
    raw(name, value.empty() ? "null" : json_string(value));
  }
  void number(std::string_view name, std::uint64_t value) { raw(name, std::to_string(value)); }
  void time_or_null(std::string_view name, const std::optional<std::int64_t>& value) {
    raw(name, value ? std::to_string(*value) : "null");
  }
  void boolean(std::string_view name, bool value) { raw(name, value ? "true" : "false"); }
  std::string take() {
    text_ += '}';
    return std::move(text_);
  }

 private:
  std::string text_ = "{";
};

// A JSON array of what `each` makes of the values.
template <typename Values, typename Each>
std::string json_array(const Values& values, Each&& each) {
  std::string text = "[";
  for (const auto& value : values) {
    text += text.size() > 1 ? "," : "";
    text += each(value);
  }
  return text + "]";
}

// OpenAI's form of a page: `data` is an array as JSON, and the ids are those of its first and last
// element, or empty.
inline std::string json_page(std::string_view data, std::string_view first_id,
                             std::string_view last_id, bool more) {
  JsonObject json;
  json.text("object", "list");
  json.raw("data", data);
  json.text_or_null("first_id", first_id);
  json.text_or_null("last_id", last_id);
  json.boolean("has_more", more);
  return json.take();
}

}  // namespace tessera::gateway
