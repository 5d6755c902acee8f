#include "common/model/settings/settings.hpp"

#include <algorithm>
#include <cmath>

namespace tessera {

namespace {

constexpr std::size_t kShownBytesMax = 80;

// Never deeper than the limit, whatever the file nests.
void show(const nlohmann::json& value, int depth, std::string& text) {
  if (!value.is_structured() || value.empty()) {
    text += value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
    return;
  }
  text += value.is_array() ? "[" : "{";
  const std::size_t begin = text.size();
  for (const auto& [name, element] : value.items()) {
    text += text.size() > begin ? ", " : "";
    if (depth == 0 || text.size() > kShownBytesMax) {
      text += "...";
      break;
    }
    if (value.is_object()) {
      text +=
          nlohmann::json(name).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace) + ": ";
    }
    show(element, depth - 1, text);
  }
  text += value.is_array() ? "]" : "}";
}

// A key as it is, or in quotes where it comes from the file and could break the sentence.
std::string key_shown(std::string_view name) {
  const bool plain = !name.empty() && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  });
  return plain ? std::string(name) : shown(name);
}

}  // namespace

std::string shown(const nlohmann::json& value) {
  std::string text;
  show(value, 3, text);
  return text.size() > kShownBytesMax ? text.substr(0, kShownBytesMax) + "..." : text;
}

Result<nlohmann::json> parse_settings(std::string_view text, const std::string& file) {
  const auto refuse = [&](const std::string& why) {
    return Error{ErrorCode::kInvalidArgument, file + ": " + why};
  };
  if (text.size() > kSettingsBytesMax) {
    return refuse("larger than " + std::to_string(kSettingsBytesMax) + " bytes");
  }
  auto object = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (object.is_discarded()) {
    return refuse("not valid JSON; it may have been cut off, so fetch it again");
  }
  if (!object.is_object()) {
    return refuse("not a JSON object");
  }
  return object;
}

const Settings::Json* Settings::value(const std::string& name) {
  taken_.insert(name);
  const auto found = object_.find(name);
  return found == object_.end() ? nullptr : &*found;
}

std::int64_t Settings::integer(const std::string& name, std::int64_t min, std::int64_t max,
                               std::optional<std::int64_t> fallback) {
  const Json* found = value(name);
  if (found == nullptr) {
    if (!fallback) {
      complain(key_shown(name) + " is missing");
    }
    return fallback.value_or(min);
  }
  if (!found->is_number_integer()) {
    return refuse(name, "not a whole number"), min;
  }
  // A value above 2^63 is kept as unsigned by the parser; as signed it would turn negative.
  const bool too_large =
      found->is_number_unsigned() && found->get<std::uint64_t>() > static_cast<std::uint64_t>(max);
  const auto number = found->get<std::int64_t>();
  if (too_large || number < min || number > max) {
    return refuse(name, "not within " + std::to_string(min) + ".." + std::to_string(max)), min;
  }
  return number;
}

double Settings::number(const char* name, double fallback, double min, double max) {
  const Json* found = value(name);
  if (found == nullptr) {
    return fallback;
  }
  if (!found->is_number()) {
    return refuse(name, "not a number"), fallback;
  }
  const auto number = found->get<double>();
  if (!std::isfinite(number) || number < min || number > max) {
    return refuse(name, "out of range"), fallback;
  }
  return number;
}

bool Settings::boolean(const char* name, bool fallback) {
  const Json* found = value(name);
  if (found == nullptr || found->is_null()) {
    return fallback;
  }
  if (!found->is_boolean()) {
    return refuse(name, "neither true nor false"), fallback;
  }
  return found->get<bool>();
}

std::string Settings::text(const char* name, std::string_view fallback) {
  const Json* found = value(name);
  if (found == nullptr) {
    return std::string(fallback);
  }
  if (!found->is_string()) {
    return refuse(name, "not a string"), std::string(fallback);
  }
  return found->get<std::string>();
}

void Settings::allow(const char* name, std::initializer_list<Json> allowed, std::string_view why) {
  const Json* found = value(name);
  if (found != nullptr && std::ranges::find(allowed, *found) == allowed.end()) {
    refuse(name, why);
  }
}

void Settings::harmless(std::initializer_list<const char*> names) {
  taken_.insert(names.begin(), names.end());
}

void Settings::refuse(std::string_view name, std::string_view why) {
  const auto found = object_.find(name);
  complain(key_shown(name) + (found == object_.end() ? " is missing" : " is " + shown(*found)) +
           ": " + std::string(why));
}

void Settings::complain(std::string sentence) {
  if (!complaint_) {
    complaint_ = std::move(sentence);
  }
}

Result<void> Settings::end() {
  for (const auto& [name, value] : object_.items()) {
    if (!taken_.contains(name)) {
      complain(shown(name) + " is " + shown(value) +
               ": this key is not known here and may change the vectors; remove it if it does not");
      break;
    }
  }
  if (complaint_) {
    return Error{ErrorCode::kInvalidArgument, file_ + ": " + *complaint_};
  }
  return {};
}

}  // namespace tessera
