#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "clients/cli/io/csv_header.hpp"
#include "clients/cli/io/file_kind.hpp"
#include "clients/cli/io/readers.hpp"
#include "common/check.hpp"

namespace tessera::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kLinesJudged = 100;

// What the first lines of a file are.
struct Lines {
  std::size_t objects = 0;
  std::size_t strings = 0;
  std::size_t arrays = 0;
  std::size_t others = 0;  // Numbers, true, null.
  std::size_t broken = 0;
  std::string first_error;
  std::size_t with_text = 0;  // Or with token ids.
  std::size_t with_id = 0;
  std::string id_name;             // Of the first that has one.
  std::vector<std::string> names;  // Of the first objects' members, each once.

  std::size_t all() const { return objects + strings + arrays + others + broken; }
};

// The name of the member that names the object; "" when none does.
std::string id_name_of(const Json& object, const ReadOptions& options) {
  if (options.no_ids) {
    return {};
  }
  if (!options.id_field.empty()) {
    return object.contains(options.id_field) ? options.id_field : "";
  }
  for (const char* name : kIdNames) {
    if (object.contains(name)) {
      return object.at(name).is_null() ? "" : name;
    }
  }
  return {};
}

void look_at(const std::string& line, const ReadOptions& options, Lines& seen) {
  Json value;
  try {
    value = Json::parse(line);
  } catch (const Json::exception&) {
    // Good is what the reader takes: it tells a number beyond every type from what is no JSON.
    Record record;
    JsonRecords().parse(line, options, record);
    seen.first_error = seen.broken++ == 0 ? record.error.message : seen.first_error;
    return;
  }
  if (!value.is_object()) {
    ++(value.is_string() ? seen.strings : value.is_array() ? seen.arrays : seen.others);
    return;
  }
  ++seen.objects;
  seen.with_text += value.contains(options.field) || value.contains("ids") ? 1 : 0;
  if (const std::string name = id_name_of(value, options); !name.empty()) {
    seen.id_name = seen.with_id++ == 0 ? name : seen.id_name;
  }
  for (const auto& [name, member] : value.items()) {
    if (seen.names.size() < 100 && std::ranges::count(seen.names, name) == 0) {
      seen.names.push_back(name);
    }
  }
}

Lines look(std::string_view sample, bool whole, const ReadOptions& options) {
  const std::atomic<bool> kNoStop{false};
  ByteSource source(sample, kNoStop);
  Lines seen;
  std::string line;
  while (seen.all() < kLinesJudged &&
         source.read_line(line, kRecordBytesMax) == ByteSource::Line::kLine) {
    if (!whole && source.peek() == ByteSource::kEnd) {
      break;  // Perhaps cut by the sample's end.
    }
    if (line.find_first_not_of(" \t\r\n") != std::string::npos) {
      look_at(line, options, seen);
    }
  }
  return seen;
}

std::string refuse_no_objects(const std::string& path, std::string_view sample, const Lines& seen) {
  const std::string file = path == "-" ? "" : " " + shell_word(path);
  const std::size_t start = std::min(sample.find_first_not_of(" \t\r\n"), sample.size());
  if (seen.broken == 0 && seen.strings > 0) {
    return "its lines are strings of JSON, not objects; make them objects: jq -c '{text: .}'" +
           file;
  }
  if (sample.substr(start, 1) == "[") {
    return "it is an array of JSON, not an object a line; make it one: jq -c '.[]'" + file;
  }
  if (sample.substr(start, 1) == "{") {
    return "its first line is no whole object of JSON (" + seen.first_error +
           "); if it is one document over several lines, make it one a line: jq -c ." + file;
  }
  if (seen.broken == 0) {
    return "its lines are values of JSON, not objects";
  }
  return "its first lines are no JSON (" + seen.first_error +
         "); say --input-format if it is something else";
}

}  // namespace

JsonShape judge_json_lines(const std::string& path, std::string_view sample, bool whole,
                           const ReadOptions& options) {
  const Lines seen = look(sample, whole, options);
  if (seen.all() == 0) {
    return {};  // Empty, or one line longer than the sample.
  }
  if (seen.objects == 0) {
    throw FatalError(path + ": " + refuse_no_objects(path, sample, seen));
  }
  if (seen.with_text == 0) {
    const std::string similar = similar_name(seen.names, options.field);
    throw FatalError(fmt::format("{} has the fields {}; none is called {} or ids: say --field {}",
                                 path, list_names(seen.names), shown(options.field),
                                 similar.empty() ? "NAME" : shell_word(similar)));
  }
  if (!options.id_field.empty() && seen.with_id == 0) {
    const std::string similar = similar_name(seen.names, options.id_field);
    throw FatalError(fmt::format("{} has the fields {}; none is called {}: say --id-field {}", path,
                                 list_names(seen.names), shown(options.id_field),
                                 similar.empty() ? "NAME, or --no-ids" : shell_word(similar)));
  }
  JsonShape shape{.has_ids = seen.with_id > 0};
  if (shape.has_ids) {
    shape.ids_shown = "ids from " + shown(seen.id_name) +
                      (seen.with_id < seen.objects ? ", which not every line has" : "");
  } else if (const std::string similar = similar_id(seen.names, options); !similar.empty()) {
    shape.ids_shown = "if " + shown(similar) + " is the id, say --id-field " + shell_word(similar);
  }
  return shape;
}

bool looks_like_json(std::string_view sample, bool whole) {
  const std::size_t start = sample.find_first_not_of(" \t\r\n");
  if (start == std::string_view::npos || (sample[start] != '{' && sample[start] != '[')) {
    return false;
  }
  const Lines seen = look(sample, whole, {});
  if (seen.all() == 0 || seen.broken == 0) {
    return seen.objects > 0 || seen.arrays > 0;
  }
  // An array or object over several lines.
  return whole && !Json::parse(sample, nullptr, false).is_discarded();
}

}  // namespace tessera::cli
