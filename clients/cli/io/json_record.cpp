#include <limits>
#include <nlohmann/json.hpp>

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

void take_id(const Json& object, const ReadOptions& options, Record& record) {
  const Json* id = nullptr;
  for (const char* name : {"id", "_id"}) {
    if (options.id_field.empty() && id == nullptr && object.contains(name)) {
      id = &object.at(name);
    }
  }
  if (!options.id_field.empty() && object.contains(options.id_field)) {
    id = &object.at(options.id_field);
  }
  if (id == nullptr || id->is_null()) {
    if (!options.id_field.empty()) {
      record.fail(ErrorCode::kInvalidArgument, "the object has no id field " + options.id_field);
    }
    return;
  }
  record.id = id->is_string() ? id->get<std::string>() : id->dump();
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

}  // namespace

void parse_json_record(const std::string& line, const ReadOptions& options, Record& record) {
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
  take_id(object, options, record);
  if (record.error.code != ErrorCode::kOk) {
    return;
  }
  const auto text = object.find(options.field);
  const auto ids = object.find("ids");
  if (text != object.end() && text->is_string()) {
    record.text = std::move(text->get_ref<std::string&>());
  } else if (text == object.end() && ids != object.end() && ids->is_array()) {
    take_ids(*ids, record);
  } else if (text == object.end()) {
    record.fail(ErrorCode::kInvalidArgument, "the object has no field " + options.field);
  } else {
    record.fail(ErrorCode::kInvalidArgument, "field " + options.field + " is not a string");
  }
}

}  // namespace tessera::cli
