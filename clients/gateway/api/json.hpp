#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "common/result.hpp"

namespace tessera::gateway {

// A value of a JSON document that was read once, whole, by simdjson (which takes the widest
// instructions that the machine has). Valid inside the call that gave it. Errors are
// kInvalidArgument with one sentence.
class JsonValue {
 public:
  enum class Kind : std::uint8_t { kNull, kBool, kNumber, kString, kArray, kObject };
  using EachField = std::function<Result<void>(std::string_view name, JsonValue& value)>;
  using Each = std::function<Result<void>(JsonValue& value)>;

  explicit JsonValue(const void* value) : value_(value) {}
  Result<Kind> kind();
  // Unescaped UTF-8.
  Result<std::string_view> text();
  Result<bool> boolean();
  Result<std::int64_t> integer();  // Without fraction and exponent.
  Result<double> number();
  Result<void> each(const Each& element);
  // A name that comes twice is an error: which one counts would be a guess.
  Result<void> each_field(const EachField& field);
  // The value as JSON again, without white space.
  Result<std::string> raw();

 private:
  const void* value_;  // simdjson::dom::element
};

// Reads one document that is an object, with nothing but white space behind it, and calls `field`
// for each of its fields in order. `body` keeps its contents; its capacity may grow, since simdjson
// reads some bytes beyond the end. Any thread.
Result<void> read_json_object(std::string& body, const JsonValue::EachField& field);

// Put a value into a variable of its kind; a number that does not fit is "out of range". Whatever
// is wrong leaves the variable as it was.
Result<void> take(JsonValue& value, std::string& into);
Result<void> take(JsonValue& value, bool& into);
template <std::integral T>
Result<void> take(JsonValue& value, T& into) {
  const auto number = value.integer();
  if (!number) {
    return number.error();
  }
  if (!std::in_range<T>(*number)) {
    return Error{ErrorCode::kInvalidArgument, "is out of range"};
  }
  into = static_cast<T>(*number);
  return {};
}

// "a string", for messages.
std::string_view to_string(JsonValue::Kind kind);

}  // namespace tessera::gateway
