#include <fmt/core.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "clients/cli/io/json_scan.hpp"
#include "clients/cli/io/readers.hpp"

namespace tessera::cli {
namespace {

using Json = nlohmann::json;

// Why a line is no JSON, told from the parser's point of view but without its jargon.
void fail_as_broken(const std::string& line, const Json::parse_error& error, Record& record) {
  const std::string what = error.what();
  const bool utf8 = what.find("UTF-8") != std::string::npos;
  const bool surrogate = what.find("surrogate") != std::string::npos;
  const std::string where = " at byte " + std::to_string(std::min(error.byte, line.size()));
  if (surrogate) {
    record.fail(ErrorCode::kInvalidUtf8, "the line has half a surrogate pair" + where);
  } else if (utf8) {
    record.fail(ErrorCode::kInvalidUtf8, "the line is not valid UTF-8" + where);
  } else {
    record.fail(ErrorCode::kInvalidArgument, "the line is not valid JSON" + where);
  }
}

// Which of an object's members are used, told by their places.
struct Members {
  std::size_t text = kNone;
  std::size_t token_ids = kNone;
  std::size_t id = kNone;
  bool twice = false;  // One of these occurs more than once.
  std::string_view twice_name;
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);

  void see(std::string_view key, std::size_t place, const ReadOptions& options) {
    if (key == options.field) {
      take(text, key, place);
    }
    if (key == "ids" && options.field != "ids") {
      take(token_ids, key, place);
    }
    if (!options.no_ids && (options.id_field.empty() ? key == "id" : key == options.id_field)) {
      take(id, key, place);
    } else if (!options.no_ids && options.id_field.empty() && key == "_id") {
      take(second_id, key, place);
    }
  }
  void settle() { id = id == kNone ? second_id : id; }
  bool sees_id(std::size_t place) const { return id == place || second_id == place; }
  bool both_ids() const { return second_id != kNone && id != second_id; }

 private:
  void take(std::size_t& member, std::string_view key, std::size_t place) {
    if (member != kNone) {
      twice = true;
      twice_name = key;
    }
    member = place;
  }
  std::size_t second_id = kNone;
};

// `raw`: the value as it was written, `text`: what it says when it is a string.
void take_id(std::string_view raw, std::string text, const ReadOptions& options, Record& record) {
  if (raw.empty() || raw == "null") {
    if (!options.id_field.empty()) {
      record.fail(ErrorCode::kInvalidArgument, "the object has no id field " + options.id_field);
    }
    return;
  }
  record.id = raw.front() == '"' ? RecordId{RecordId::Kind::kText, std::move(text)}
                                 : RecordId{RecordId::Kind::kJson, std::string(raw)};
}

void fail_as_twice(std::string_view name, Record& record) {
  record.fail(ErrorCode::kInvalidArgument, fmt::format("the object has {} twice", name));
}

void fail_without_text(bool there, const ReadOptions& options, Record& record) {
  record.fail(ErrorCode::kInvalidArgument, there ? "field " + options.field + " is not a string"
                                                 : "the object has no field " + options.field);
}

void take_ids(const Json& list, Record& record) {
  record.is_ids = true;
  for (const Json& id : list) {
    if (!id.is_number_integer()) {
      record.fail(ErrorCode::kInvalidTokenId, "token ids are whole numbers");
      return;
    }
    // Out of range of the vocabulary is the coordinator's to say; out of range of int32 is ours.
    const bool fits = id.is_number_unsigned()
                          ? id.get<std::uint64_t>() <= std::numeric_limits<std::int32_t>::max()
                          : id.get<std::int64_t>() >= std::numeric_limits<std::int32_t>::min();
    if (!fits) {
      record.fail(ErrorCode::kInvalidTokenId, "token id " + id.dump() + " is out of range");
      return;
    }
    record.ids.push_back(id.get<std::int32_t>());
  }
}

void parse_slowly(const std::string& line, const ReadOptions& options, Record& record) {
  if (line.starts_with("\xEF\xBB\xBF")) {  // That of the file's start is gone; Json skips any.
    record.fail(ErrorCode::kInvalidArgument, "the line begins with a byte order mark");
    return;
  }
  Json object;
  try {
    object = Json::parse(line);
  } catch (const Json::parse_error& error) {
    fail_as_broken(line, error, record);
    return;
  } catch (const Json::out_of_range&) {
    record.fail(ErrorCode::kInvalidArgument, "the line holds a number beyond every number type");
    return;
  }
  if (!object.is_object()) {
    record.fail(ErrorCode::kInvalidArgument, "the line is not a JSON object");
    return;
  }
  Members members;
  const std::vector<RawMember> raw = members_of(line);
  std::vector<std::string> keys;  // That `members` names.
  keys.reserve(raw.size());
  for (std::size_t i = 0; i < raw.size(); ++i) {
    keys.push_back(Json::parse(raw[i].key).get<std::string>());
    members.see(keys.back(), i, options);
  }
  members.settle();
  if (members.id != Members::kNone || !options.id_field.empty()) {
    const std::string_view id = members.id == Members::kNone ? "" : raw[members.id].value;
    take_id(id, id.starts_with('"') ? Json::parse(id).get<std::string>() : "", options, record);
  }
  if (record.error.code != ErrorCode::kOk) {
    return;
  }
  if (members.twice) {
    fail_as_twice(members.twice_name, record);
    return;
  }
  const auto text = object.find(options.field);
  const auto ids = object.find("ids");
  if (text != object.end() && text->is_string()) {
    record.text = std::move(text->get_ref<std::string&>());
  } else if (text == object.end() && ids != object.end() && ids->is_array()) {
    take_ids(*ids, record);
  } else {
    fail_without_text(text != object.end(), options, record);
  }
}

}  // namespace

std::string RecordId::as_json() const {
  switch (kind) {
    case Kind::kNone:
      return "null";
    case Kind::kText:
      return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
    case Kind::kJson:
      return text;
  }
  return {};
}

// What is not plainly good is left to the slow parser, which finds the words for it.
bool JsonRecords::parse_fast(const std::string& line, const ReadOptions& options, Record& record) {
  simdjson::dom::object object;
  if (parser_.parse(line).get_object().get(object) != simdjson::SUCCESS) {
    return false;
  }
  Members members;
  std::size_t place = 0;
  std::string_view text;
  std::string_view id_text;
  for (const auto& [key, value] : object) {
    members.see(key, place, options);
    if (members.text == place && value.get_string().get(text) != simdjson::SUCCESS) {
      return false;
    }
    // The last of "id" and "_id": settled below, where both are there.
    if (members.sees_id(place) && value.is_string()) {
      id_text = value.get_string().value_unsafe();
    }
    ++place;
  }
  members.settle();
  if (members.twice || members.both_ids() || members.text == Members::kNone ||
      (members.id == Members::kNone && !options.id_field.empty())) {
    return false;
  }
  if (members.id != Members::kNone) {
    take_id(id_text.data() != nullptr ? "\"" : raw_member(line, members.id), std::string(id_text),
            options, record);
  }
  // Some versions of the parser take half a surrogate pair.
  if (line.find("\\u") != std::string::npos &&
      !(simdjson::validate_utf8(text) && simdjson::validate_utf8(id_text))) {
    return false;
  }
  record.text = text;
  return record.error.code == ErrorCode::kOk;
}

void JsonRecords::parse(const std::string& line, const ReadOptions& options, Record& record) {
  if (!parse_fast(line, options, record)) {
    record.id = {};
    record.text.clear();
    record.error = {.code = ErrorCode::kOk, .message = {}};
    parse_slowly(line, options, record);
  }
}

}  // namespace tessera::cli
