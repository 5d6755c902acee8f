#include "clients/cli/dry_run.hpp"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "common/check.hpp"
#include "common/model/model_folder.hpp"

namespace tessera::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string prompt_name_of(const protocol::EmbedSpec& spec) {
  return !spec.prompt_name.empty() ? spec.prompt_name : spec.query ? "query" : "document";
}

std::string prompt_of_folder(const protocol::EmbedSpec& spec, const std::string& dir) {
  const auto folder = read_model_folder(dir);
  if (!folder) {
    throw FatalError(folder.error().message);
  }
  const Prompts& prompts = folder->prompts;
  if (!spec.query && spec.prompt_name.empty() && !prompts.plain_refusal.empty()) {
    throw FatalError(prompts.plain_refusal);
  }
  const auto prompt = prompts.by_name.find(prompt_name_of(spec));
  if (prompt == prompts.by_name.end()) {
    throw FatalError(dir + " has no prompt \"" + prompt_name_of(spec) + "\"");
  }
  return prompt->second;
}

// What the coordinator will put before each text; nothing when only the model's folder tells.
std::optional<std::string> prompt_of(const protocol::EmbedSpec& spec, const std::string& dir) {
  if (!spec.instruction.empty()) {
    return "Instruct: " + spec.instruction + "\nQuery:";
  }
  return dir.empty() ? std::nullopt : std::optional(prompt_of_folder(spec, dir));
}

// The id stays as it was written, so the line is put together by hand.
std::string shown_item(const Record& record, const std::vector<std::string>& inputs,
                       const std::string& prompt) {
  Json item;
  item["file"] = inputs.at(record.place.file);
  item["line"] = record.place.line;
  if (record.error.code != ErrorCode::kOk) {
    item["error"] = {{"code", std::string(to_string(record.error.code))},
                     {"message", record.error.message}};
  } else if (record.is_ids) {
    item["ids"] = record.ids;
  } else {
    item["text"] = prompt + record.text;
  }
  const std::string rest = item.dump(-1, ' ', false, Json::error_handler_t::replace);
  return "{\"id\":" + record.id.as_json() + "," + rest.substr(1);
}

}  // namespace

void print_first_items(RecordReader& reader, const std::vector<std::string>& inputs,
                       const protocol::EmbedSpec& spec, const DryRunOptions& options) {
  const auto prompt = prompt_of(spec, options.model_dir);
  if (!prompt) {
    std::fprintf(
        stderr,
        "the model's prompt \"%s\", which may be empty, goes before each text; --model-dir "
        "DIR shows it\n",
        prompt_name_of(spec).c_str());
  }
  Record record;
  for (std::size_t i = 0; i < options.items && reader.next(record); ++i) {
    if (record.id.kind == RecordId::Kind::kNone && record.error.code == ErrorCode::kOk &&
        !reader.has_ids()) {
      record.id = {RecordId::Kind::kText, std::to_string(i)};
    }
    std::printf("%s\n", shown_item(record, inputs, prompt.value_or("")).c_str());
  }
}

}  // namespace tessera::cli
