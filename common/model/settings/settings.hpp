#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "common/result.hpp"

namespace tessera {

// One JSON object of a model folder, read by an allow-list: every key is taken by one of the
// functions below, or is refused at the end. Keeps the first complaint, so that callers list their
// keys one a line. A complaint names file, key and value.
class Settings {
 public:
  using Json = nlohmann::json;

  // `file` as complaints name it; `object` outlives this.
  Settings(std::string file, const Json& object) : file_(std::move(file)), object_(object) {}

  // values that decide; an absent key gives the fallback
  std::int64_t integer(const std::string& name, std::int64_t min, std::int64_t max,
                       std::optional<std::int64_t> fallback = std::nullopt);
  double number(const char* name, double fallback, double min, double max);
  // Absent and null are both `fallback`.
  bool boolean(const char* name, bool fallback);
  std::string text(const char* name, std::string_view fallback = "");
  // The value itself, for the caller to judge; nullptr when absent.
  const Json* value(const std::string& name);

  // keys that have one meaning here
  // Refused, with `why`, unless absent or one of `allowed`.
  void allow(const char* name, std::initializer_list<Json> allowed, std::string_view why);
  // Whatever they say, the vectors are the same.
  void harmless(std::initializer_list<const char*> names);

  void refuse(std::string_view name, std::string_view why);  // "NAME is VALUE: why"
  void complain(std::string sentence);                       // without a key

  // The first complaint; else one about a key that nobody took.
  Result<void> end();
  bool ok() const { return !complaint_; }

 private:
  const std::string file_;
  const Json& object_;
  std::set<std::string, std::less<>> taken_;
  std::optional<std::string> complaint_;
};

// The value for a sentence, cut where it is long.
std::string shown(const nlohmann::json& value);

inline constexpr std::size_t kSettingsBytesMax = 1 << 20;

// The object in a file's text; refuses what is no JSON object, naming `file`.
Result<nlohmann::json> parse_settings(std::string_view text, const std::string& file);

}  // namespace tessera
