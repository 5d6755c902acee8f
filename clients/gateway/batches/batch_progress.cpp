#include "clients/gateway/batches/batch_progress.hpp"

#include <fstream>
#include <iterator>
#include <utility>

#include "clients/gateway/api/json.hpp"
#include "clients/gateway/encoding/json_object.hpp"
#include "common/check.hpp"
#include "common/os/replace_file.hpp"
#include "common/whole_number.hpp"

namespace tessera::gateway {
namespace {

constexpr std::uint64_t kFormat = 1;
constexpr std::string_view kFileBegin = "progress.";

Error wrong(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

std::string spec_json(const protocol::EmbedSpec& spec) {
  JsonObject json;
  json.text("model", spec.model);
  json.boolean("query", spec.query);
  json.text("instruction", spec.instruction);
  json.number("dimensions", spec.dimensions);
  json.number("vector_type", static_cast<std::uint64_t>(spec.vector_type));
  json.number("truncate", static_cast<std::uint64_t>(spec.truncate));
  json.number("max_tokens", spec.max_tokens);
  json.text("prompt_name", spec.prompt_name);
  return json.take();
}

std::string plan_json(const BatchPlan& plan) {
  JsonObject json;
  json.text("model", plan.model);
  json.number("hidden_size", plan.hidden_size);
  json.text("tokenizer_hash", plan.tokenizer_hash);
  json.boolean("accept_token_ids", plan.accept_token_ids);
  json.raw("specs", json_array(plan.specs, spec_json));
  json.number("lines", plan.lines);
  return json.take();
}

std::string segment_json(const BatchSegment& segment) {
  JsonObject json;
  json.number("holder", segment.holder);
  json.number("output_bytes", segment.output_bytes);
  json.number("error_bytes", segment.error_bytes);
  return json.take();
}

// reading

template <typename E>
Result<void> take_enum(JsonValue& value, E& into, E last) {
  std::uint8_t number = 0;
  auto ok = take(value, number);
  if (ok && number > static_cast<std::uint8_t>(last)) {
    return wrong("is out of range");
  }
  into = static_cast<E>(number);
  return ok;
}

Result<void> take_spec(JsonValue& value, std::vector<protocol::EmbedSpec>& specs) {
  protocol::EmbedSpec& spec = specs.emplace_back();
  return value.each_field([&](std::string_view name, JsonValue& field) -> Result<void> {
    if (name == "model") return take(field, spec.model);
    if (name == "query") return take(field, spec.query);
    if (name == "instruction") return take(field, spec.instruction);
    if (name == "dimensions") return take(field, spec.dimensions);
    if (name == "vector_type")
      return take_enum(field, spec.vector_type, protocol::VectorType::kFloat16);
    if (name == "truncate") return take_enum(field, spec.truncate, protocol::Truncate::kRight);
    if (name == "max_tokens") return take(field, spec.max_tokens);
    if (name == "prompt_name") return take(field, spec.prompt_name);
    return {};
  });
}

Result<void> take_plan(JsonValue& value, BatchPlan& plan) {
  return value.each_field([&](std::string_view name, JsonValue& field) -> Result<void> {
    if (name == "model") return take(field, plan.model);
    if (name == "hidden_size") return take(field, plan.hidden_size);
    if (name == "tokenizer_hash") return take(field, plan.tokenizer_hash);
    if (name == "accept_token_ids") return take(field, plan.accept_token_ids);
    if (name == "lines") return take(field, plan.lines);
    if (name == "specs")
      return field.each([&](JsonValue& spec) { return take_spec(spec, plan.specs); });
    return {};
  });
}

Result<void> take_done(JsonValue& value, RangeSet& done) {
  return value.each([&](JsonValue& range) -> Result<void> {
    std::vector<std::uint32_t> ends;
    auto ok = range.each([&](JsonValue& end) { return take(end, ends.emplace_back()); });
    if (ok && ends.size() != 2) {
      return wrong("holds a range without two ends");
    }
    if (ok) {
      done.insert(ends[0], ends[1]);
    }
    return ok;
  });
}

Result<void> take_segment(JsonValue& value, std::vector<BatchSegment>& segments) {
  BatchSegment& segment = segments.emplace_back();
  return value.each_field([&](std::string_view name, JsonValue& field) -> Result<void> {
    if (name == "holder") return take(field, segment.holder);
    if (name == "output_bytes") return take(field, segment.output_bytes);
    if (name == "error_bytes") return take(field, segment.error_bytes);
    return {};
  });
}

// The holder of "progress.HOLDER.json".
std::optional<std::uint64_t> holder_of(const std::string& name) {
  if (!name.starts_with(kFileBegin) || !name.ends_with(".json")) {
    return std::nullopt;
  }
  return whole_number<std::uint64_t>(
      std::string_view(name).substr(kFileBegin.size(), name.size() - kFileBegin.size() - 5));
}

}  // namespace

protocol::ModelInfo BatchPlan::model_info() const {
  protocol::ModelInfo info;
  info.name = model;
  info.hidden_size = hidden_size;
  info.tokenizer_hash = tokenizer_hash;
  return info;
}

std::string to_json(const BatchProgress& progress) {
  JsonObject json;
  json.number("format", kFormat);
  json.raw("plan", plan_json(progress.plan));
  json.number("pass", progress.pass);
  json.raw("done", json_array(progress.done.to_pairs(), [](const auto& range) {
             std::string text = "[";
             text += std::to_string(range.first);
             text += ',';
             text += std::to_string(range.second);
             text += ']';
             return text;
           }));
  json.number("completed", progress.completed);
  json.number("failed", progress.failed);
  json.number("tokens", progress.tokens);
  json.number("cached_tokens", progress.cached_tokens);
  json.raw("segments", json_array(progress.segments, segment_json));
  return json.take();
}

Result<BatchProgress> read_progress(std::string text) {
  BatchProgress progress;
  std::uint64_t format = 0;
  const auto take_field = [&](std::string_view name, JsonValue& value) -> Result<void> {
    if (name == "format") return take(value, format);
    if (name == "plan") return take_plan(value, progress.plan);
    if (name == "pass") return take(value, progress.pass);
    if (name == "done") return take_done(value, progress.done);
    if (name == "completed") return take(value, progress.completed);
    if (name == "failed") return take(value, progress.failed);
    if (name == "tokens") return take(value, progress.tokens);
    if (name == "cached_tokens") return take(value, progress.cached_tokens);
    if (name == "segments")
      return value.each([&](JsonValue& one) { return take_segment(one, progress.segments); });
    return {};
  };
  if (const auto ok = read_json_object(text, take_field); !ok) {
    return ok.error();
  }
  if (format != kFormat) {
    return wrong("is not of a format that this version knows");
  }
  return progress;
}

std::filesystem::path progress_file(const std::filesystem::path& folder, std::uint64_t holder) {
  return folder / (std::string(kFileBegin) + std::to_string(holder) + ".json");
}

std::optional<BatchProgress> last_progress(const std::filesystem::path& folder) {
  std::optional<std::uint64_t> last;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const auto holder = holder_of(entry.path().filename());
    last = holder > last ? holder : last;
  }
  if (error) {
    throw FatalError("cannot list " + folder.string() + ": " + error.message());
  }
  if (!last) {
    return std::nullopt;
  }
  const std::filesystem::path path = progress_file(folder, *last);
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  auto progress = read_progress(text);
  if (!file || !progress) {
    throw FatalError("cannot read " + path.string() +
                     (progress ? std::string() : ": " + progress.error().message));
  }
  return std::move(*progress);
}

void save_progress(const std::filesystem::path& folder, const BatchProgress& progress) {
  CHECK(!progress.segments.empty());
  replace_file(progress_file(folder, progress.segments.back().holder), to_json(progress));
}

}  // namespace tessera::gateway
