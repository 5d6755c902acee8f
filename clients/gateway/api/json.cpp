#include "clients/gateway/api/json.hpp"

#include <simdjson.h>

#include <algorithm>
#include <array>
#include <vector>

namespace tessera::gateway {

namespace dom = simdjson::dom;

namespace {

constexpr std::size_t kFieldsMax = 256;
// A parser keeps the memory of the largest document that it has read.
constexpr std::size_t kKeptParserBytes = 512U << 10;

const dom::element& element_of(const void* value) {
  return *static_cast<const dom::element*>(value);
}

Error wrong(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

Error broken(simdjson::error_code code) {
  if (code == simdjson::UTF8_ERROR || code == simdjson::STRING_ERROR) {
    return wrong("the body holds a string that is not valid UTF-8 or has a broken escape");
  }
  if (code == simdjson::EMPTY) {
    return wrong("the body is empty");
  }
  return wrong(std::string("the body is not valid JSON: ") + simdjson::error_message(code));
}

template <typename T>
Result<T> taken(const void* value, const char* wanted) {
  T out{};
  if (element_of(value).get(out) != simdjson::SUCCESS) {
    return wrong(std::string("must be ") + wanted);
  }
  return out;
}

Result<void> fields_of(dom::object object, const JsonValue::EachField& field) {
  std::vector<std::string_view> names;
  for (const dom::key_value_pair entry : object) {
    if (std::ranges::find(names, entry.key) != names.end()) {
      return wrong("the field " + std::string(entry.key.substr(0, 64)) + " is there twice");
    }
    if (names.size() == kFieldsMax) {
      return wrong("an object has more than 256 fields");
    }
    names.push_back(entry.key);
    JsonValue wrapped(&entry.value);
    if (auto ok = field(entry.key, wrapped); !ok) {
      return ok;
    }
  }
  return {};
}

}  // namespace

std::string_view to_string(JsonValue::Kind kind) {
  static constexpr std::array<std::string_view, 6> kNames{"null",     "a boolean", "a number",
                                                          "a string", "an array",  "an object"};
  return kNames.at(static_cast<std::size_t>(kind));
}

Result<JsonValue::Kind> JsonValue::kind() {
  switch (element_of(value_).type()) {
    case dom::element_type::ARRAY:
      return Kind::kArray;
    case dom::element_type::OBJECT:
      return Kind::kObject;
    case dom::element_type::STRING:
      return Kind::kString;
    case dom::element_type::BOOL:
      return Kind::kBool;
    case dom::element_type::NULL_VALUE:
      return Kind::kNull;
    default:
      return Kind::kNumber;
  }
}

Result<std::string_view> JsonValue::text() { return taken<std::string_view>(value_, "a string"); }
Result<bool> JsonValue::boolean() { return taken<bool>(value_, "true or false"); }
Result<std::int64_t> JsonValue::integer() { return taken<std::int64_t>(value_, "a whole number"); }
Result<double> JsonValue::number() { return taken<double>(value_, "a number"); }

Result<void> JsonValue::each(const Each& element) {
  dom::array array;
  if (element_of(value_).get(array) != simdjson::SUCCESS) {
    return wrong("must be an array");
  }
  for (const dom::element entry : array) {
    JsonValue wrapped(&entry);
    if (auto ok = element(wrapped); !ok) {
      return ok;
    }
  }
  return {};
}

Result<void> JsonValue::each_field(const EachField& field) {
  dom::object object;
  if (element_of(value_).get(object) != simdjson::SUCCESS) {
    return wrong("must be an object");
  }
  return fields_of(object, field);
}

Result<std::string> JsonValue::raw() { return simdjson::minify(element_of(value_)); }

Result<void> take(JsonValue& value, std::string& into) {
  const auto text = value.text();
  if (!text) {
    return text.error();
  }
  into = *text;
  return {};
}

Result<void> take(JsonValue& value, bool& into) {
  const auto flag = value.boolean();
  if (!flag) {
    return flag.error();
  }
  into = *flag;
  return {};
}

Result<void> read_json_object(std::string& body, const JsonValue::EachField& field) {
  thread_local dom::parser kept;
  dom::parser own;
  dom::parser& parser = body.size() > kKeptParserBytes ? own : kept;
  body.reserve(body.size() + simdjson::SIMDJSON_PADDING);
  dom::element root;
  if (const auto code = parser.parse(body.data(), body.size(), false).get(root);
      code != simdjson::SUCCESS) {
    return broken(code);
  }
  dom::object object;
  if (root.get(object) != simdjson::SUCCESS) {
    return wrong("the body is not a JSON object");
  }
  return fields_of(object, field);
}

}  // namespace tessera::gateway
