#include "common/tokenizer/json/json_reader.hpp"

#include <algorithm>
#include <vector>

namespace tessera::tokenizer {
namespace {

std::string quoted(std::string_view text) {
  constexpr std::size_t kLongest = 200;
  return '"' + std::string(text.substr(0, kLongest)) + (text.size() > kLongest ? "...\"" : "\"");
}

}  // namespace

bool JsonReader::only_keys(const JsonObject& object, const std::string& where,
                           std::initializer_list<std::string_view> known) {
  std::vector<std::string_view> seen;
  for (const auto field : object) {
    if (std::ranges::find(known, field.key) == known.end()) {
      return refuse(where + " has the key " + quoted(field.key) + ", which is not supported");
    }
    if (std::ranges::find(seen, field.key) != seen.end()) {
      return refuse(where + " has the key " + quoted(field.key) + " twice");
    }
    seen.push_back(field.key);
  }
  return true;
}

bool JsonReader::field(const JsonObject& object, const std::string& where, std::string_view key,
                       JsonElement& out) {
  return object.at_key(key).get(out) == simdjson::SUCCESS ||
         refuse(where + " has no " + quoted(key));
}

bool JsonReader::string_field(const JsonObject& object, const std::string& where,
                              std::string_view key, std::string_view& out) {
  JsonElement element;
  return field(object, where, key, element) &&
         (element.get(out) == simdjson::SUCCESS ||
          refuse(where + "." + std::string(key) + " is not a string"));
}

bool JsonReader::bool_field(const JsonObject& object, const std::string& where,
                            std::string_view key, bool& out) {
  JsonElement element;
  return field(object, where, key, element) &&
         (element.get(out) == simdjson::SUCCESS ||
          refuse(where + "." + std::string(key) + " is not true or false"));
}

bool JsonReader::require_bool(const JsonObject& object, const std::string& where,
                              std::string_view key, bool wanted) {
  bool value = false;
  return bool_field(object, where, key, value) &&
         (value == wanted || refuse(where + "." + std::string(key) + " = " +
                                    (value ? "true" : "false") + " is not supported"));
}

bool JsonReader::require_string(const JsonObject& object, const std::string& where,
                                std::string_view key, std::string_view wanted) {
  std::string_view value;
  return string_field(object, where, key, value) &&
         (value == wanted || refuse(where + "." + std::string(key) + " = " + quoted(value) +
                                    " is not supported, only " + quoted(wanted)));
}

bool JsonReader::require_null(const JsonObject& object, const std::string& where,
                              std::string_view key) {
  JsonElement element;
  return object.at_key(key).get(element) != simdjson::SUCCESS || element.is_null() ||
         refuse(where + "." + std::string(key) + " is not supported, only null");
}

}  // namespace tessera::tokenizer
