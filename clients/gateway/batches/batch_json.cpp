// A batch's record as JSON, for clients and for the ledger.
#include <functional>
#include <map>

#include "clients/gateway/batches/batch_record.hpp"
#include "clients/gateway/encoding/json_object.hpp"

namespace tessera::gateway {
namespace {

Error wrong(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

std::string json_of(const BatchFault& fault) {
  JsonObject json;
  json.text("code", fault.code);
  json.text("message", fault.message);
  json.text_or_null("param", fault.param);
  json.raw("line", fault.line == 0 ? "null" : std::to_string(fault.line));
  return json.take();
}

std::string faults_json(const BatchRecord& record, std::size_t faults_max) {
  if (record.faults.empty()) {
    return "null";
  }
  const std::size_t count = std::min(record.faults.size(), faults_max);
  const std::vector<BatchFault> told(record.faults.begin(),
                                     record.faults.begin() + static_cast<std::ptrdiff_t>(count));
  return R"({"object":"list","data":)" + json_array(told, json_of) + "}";
}

std::string metadata_json(const BatchRecord& record) {
  if (!record.metadata) {
    return "null";
  }
  JsonObject json;
  for (const auto& [key, value] : *record.metadata) {
    json.text(key, value);
  }
  return json.take();
}

std::string usage_json(const BatchRecord& record) {
  JsonObject cached;
  cached.number("cached_tokens", record.cached_tokens);
  JsonObject json;
  json.number("input_tokens", record.tokens);
  json.raw("input_tokens_details", cached.take());
  json.number("output_tokens", 0);
  json.raw("output_tokens_details", R"({"reasoning_tokens":0})");
  json.number("total_tokens", record.tokens);
  return json.take();
}

std::string counts_json(const BatchRecord& record) {
  JsonObject json;
  json.number("total", record.total);
  json.number("completed", record.completed);
  json.number("failed", record.failed);
  return json.take();
}

void add_fields(const BatchRecord& record, std::size_t faults_max, JsonObject& json) {
  json.text("id", record.id);
  json.text("object", "batch");
  json.text("endpoint", record.endpoint);
  json.text_or_null("model", record.model);
  json.raw("errors", faults_json(record, faults_max));
  json.text("input_file_id", record.input_file_id);
  json.text("completion_window", record.completion_window);
  json.text("status", to_string(record.status));
  json.text_or_null("output_file_id", record.output_file_id);
  json.text_or_null("error_file_id", record.error_file_id);
  json.time_or_null("created_at", record.created_at);
  json.time_or_null("in_progress_at", record.in_progress_at);
  json.time_or_null("expires_at", record.expires_at);
  json.time_or_null("finalizing_at", record.finalizing_at);
  json.time_or_null("completed_at", record.completed_at);
  json.time_or_null("failed_at", record.failed_at);
  json.time_or_null("expired_at", record.expired_at);
  json.time_or_null("cancelling_at", record.cancelling_at);
  json.time_or_null("cancelled_at", record.cancelled_at);
  json.raw("request_counts", counts_json(record));
  json.raw("usage", usage_json(record));
  json.raw("metadata", metadata_json(record));
}

std::string stored_with(const BatchRecord& record, std::size_t faults_max) {
  JsonObject json;
  add_fields(record, faults_max, json);
  json.time_or_null("output_expires_s", record.output_expires_s);
  json.number("tokens_per_minute", record.tokens_per_minute);
  return json.take();
}

// reading

bool is_null_value(JsonValue& value) {
  const auto kind = value.kind();
  return kind && *kind == JsonValue::Kind::kNull;
}

// Null, which is what OpenAI's form has for an empty text, leaves it empty.
Result<void> take_text(JsonValue& value, std::string& into) {
  return is_null_value(value) ? Result<void>() : take(value, into);
}

Result<void> take(JsonValue& value, std::optional<std::int64_t>& into) {
  return is_null_value(value) ? Result<void>() : take(value, into.emplace());
}

Result<void> take_status(JsonValue& value, BatchStatus& into) {
  auto text = value.text();
  const auto status = text ? batch_status_named(*text) : std::nullopt;
  if (!status) {
    return wrong("is no status of a batch");
  }
  into = *status;
  return {};
}

Result<void> take_fault(JsonValue& value, std::vector<BatchFault>& faults) {
  BatchFault fault;
  auto ok = value.each_field([&](std::string_view name, JsonValue& field) -> Result<void> {
    if (name == "code") return take_text(field, fault.code);
    if (name == "message") return take_text(field, fault.message);
    if (name == "param") return take_text(field, fault.param);
    if (name == "line" && !is_null_value(field)) return take(field, fault.line);
    return {};
  });
  faults.push_back(std::move(fault));
  return ok;
}

Result<void> take_faults(JsonValue& value, std::vector<BatchFault>& faults) {
  if (is_null_value(value)) {
    return {};
  }
  return value.each_field([&](std::string_view name, JsonValue& field) -> Result<void> {
    return name == "data" ? field.each([&](JsonValue& one) { return take_fault(one, faults); })
                          : Result<void>();
  });
}

Result<void> take_metadata(JsonValue& value, BatchRecord& record) {
  if (is_null_value(value)) {
    return {};
  }
  auto& metadata = record.metadata.emplace();
  return value.each_field([&](std::string_view name, JsonValue& field) {
    metadata.emplace_back(name, "");
    return take_text(field, metadata.back().second);
  });
}

Result<void> take_counts(JsonValue& value, BatchRecord& record) {
  return value.each_field([&](std::string_view name, JsonValue& field) -> Result<void> {
    if (name == "total") return take(field, record.total);
    if (name == "completed") return take(field, record.completed);
    if (name == "failed") return take(field, record.failed);
    return {};
  });
}

Result<void> take_usage(JsonValue& value, BatchRecord& record) {
  return value.each_field([&](std::string_view name, JsonValue& field) -> Result<void> {
    if (name == "input_tokens") {
      return take(field, record.tokens);
    }
    if (name != "input_tokens_details") {
      return {};
    }
    return field.each_field(
        [&](std::string_view, JsonValue& cached) { return take(cached, record.cached_tokens); });
  });
}

using Take = std::function<Result<void>(JsonValue&, BatchRecord&)>;

Take member(std::string BatchRecord::*field) {
  return [field](JsonValue& value, BatchRecord& record) { return take_text(value, record.*field); };
}
template <typename T>
Take member(T BatchRecord::*field) {
  return [field](JsonValue& value, BatchRecord& record) { return take(value, record.*field); };
}

const std::map<std::string_view, Take>& takers() {
  static const std::map<std::string_view, Take> kTakers{
      {"id", member(&BatchRecord::id)},
      {"endpoint", member(&BatchRecord::endpoint)},
      {"model", member(&BatchRecord::model)},
      {"errors", [](JsonValue& v, BatchRecord& r) { return take_faults(v, r.faults); }},
      {"input_file_id", member(&BatchRecord::input_file_id)},
      {"completion_window", member(&BatchRecord::completion_window)},
      {"status", [](JsonValue& v, BatchRecord& r) { return take_status(v, r.status); }},
      {"output_file_id", member(&BatchRecord::output_file_id)},
      {"error_file_id", member(&BatchRecord::error_file_id)},
      {"created_at", member(&BatchRecord::created_at)},
      {"in_progress_at", member(&BatchRecord::in_progress_at)},
      {"expires_at", member(&BatchRecord::expires_at)},
      {"finalizing_at", member(&BatchRecord::finalizing_at)},
      {"completed_at", member(&BatchRecord::completed_at)},
      {"failed_at", member(&BatchRecord::failed_at)},
      {"expired_at", member(&BatchRecord::expired_at)},
      {"cancelling_at", member(&BatchRecord::cancelling_at)},
      {"cancelled_at", member(&BatchRecord::cancelled_at)},
      {"request_counts", take_counts},
      {"usage", take_usage},
      {"metadata", take_metadata},
      {"output_expires_s", member(&BatchRecord::output_expires_s)},
      {"tokens_per_minute", member(&BatchRecord::tokens_per_minute)},
  };
  return kTakers;
}

}  // namespace

std::string public_json(const BatchRecord& record) {
  JsonObject json;
  add_fields(record, kBatchFaultsMax, json);
  return json.take();
}

std::string stored_json(const BatchRecord& record) {
  std::size_t faults = std::min(record.faults.size(), kBatchFaultsMax);
  std::string text = stored_with(record, faults);
  while (text.size() > protocol::kRecordBytesMax && faults > 0) {
    text = stored_with(record, --faults);
  }
  return text;
}

Result<BatchRecord> read_batch(std::string json) {
  BatchRecord record;
  const auto ok = read_json_object(json, [&](std::string_view name, JsonValue& value) {
    const auto found = takers().find(name);
    return found == takers().end() ? Result<void>() : found->second(value, record);
  });
  if (!ok) {
    return ok.error();
  }
  if (!record.id.starts_with(kBatchIdPrefix)) {
    return wrong("is no batch");
  }
  return record;
}

Result<BatchRecord> batch_of(const protocol::RecordInfo& info, std::string content) {
  auto record = read_batch(std::move(content));
  if (record) {
    record->tenant = info.tenant;
  }
  return record;
}

}  // namespace tessera::gateway
