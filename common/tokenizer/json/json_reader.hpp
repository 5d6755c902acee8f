#pragma once

#include <simdjson.h>

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "common/result.hpp"

namespace tessera::tokenizer {

using JsonElement = simdjson::dom::element;
using JsonObject = simdjson::dom::object;
using JsonArray = simdjson::dom::array;

// Reads fields of a parsed JSON document strictly and keeps the first refusal. Every function
// returns whether it succeeded; after a false the caller only unwinds. `where` is the path that the
// refusal names, for example "model".
class JsonReader {
 public:
  bool refuse(std::string sentence) {
    if (!error_) {
      error_ = Error{ErrorCode::kInvalidArgument, "tokenizer.json: " + std::move(sentence)};
    }
    return false;
  }
  const Error& error() const { return *error_; }

  bool object(JsonElement element, const std::string& where, JsonObject& out) {
    return element.get(out) == simdjson::SUCCESS || refuse(where + " is not an object");
  }
  bool array(JsonElement element, const std::string& where, JsonArray& out) {
    return element.get(out) == simdjson::SUCCESS || refuse(where + " is not a list");
  }
  // No key outside `known`, none twice.
  bool only_keys(const JsonObject& object, const std::string& where,
                 std::initializer_list<std::string_view> known);
  bool field(const JsonObject& object, const std::string& where, std::string_view key,
             JsonElement& out);
  bool string_field(const JsonObject& object, const std::string& where, std::string_view key,
                    std::string_view& out);
  bool bool_field(const JsonObject& object, const std::string& where, std::string_view key,
                  bool& out);
  // The field must be there and be `wanted`; another value is named as not supported.
  bool require_bool(const JsonObject& object, const std::string& where, std::string_view key,
                    bool wanted);
  bool require_string(const JsonObject& object, const std::string& where, std::string_view key,
                      std::string_view wanted);
  // The field is absent or null.
  bool require_null(const JsonObject& object, const std::string& where, std::string_view key);

 private:
  std::optional<Error> error_;
};

}  // namespace tessera::tokenizer
