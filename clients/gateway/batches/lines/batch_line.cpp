#include "clients/gateway/batches/lines/batch_line.hpp"

namespace tessera::gateway {

namespace {

struct LineFields {
  BatchLine line;
  std::optional<std::string> method;
  std::optional<std::string> url;
  bool has_body = false;
};

void take_body(JsonValue& body, std::size_t items_max, OpenAiRead& read) {
  auto kind = body.kind();
  if (!kind || *kind != JsonValue::Kind::kObject) {
    read.problem = field_problem("body", {ErrorCode::kInvalidArgument, "must be an object"});
    return;
  }
  read.problem = read_fields(body, [&](std::string_view name, JsonValue& value) {
    return take_openai_field(name, value, items_max, read);
  });
}

// Names that are none of the four are the client's own.
Result<void> take_line_field(std::string_view name, JsonValue& value, std::size_t items_max,
                             LineFields& fields) {
  if (name == "custom_id") {
    return take(value, fields.line.custom_id);
  }
  if (name == "method") {
    return take(value, fields.method.emplace());
  }
  if (name == "url") {
    return take(value, fields.url.emplace());
  }
  if (name == "body") {
    fields.has_body = true;
    take_body(value, items_max, fields.line.read);
  }
  return {};
}

std::optional<BatchFault> fault_of(const LineFields& fields) {
  const auto fault = [](std::string code, std::string message, std::string param) {
    return BatchFault{.code = std::move(code),
                      .message = std::move(message),
                      .param = std::move(param),
                      .line = 0};
  };
  if (fields.line.custom_id.empty()) {
    return fault("missing_custom_id", "The line has no custom_id.", "custom_id");
  }
  if (fields.line.custom_id.size() > kCustomIdBytesMax) {
    return fault("invalid_custom_id",
                 "The custom_id has more than " + std::to_string(kCustomIdBytesMax) + " bytes.",
                 "custom_id");
  }
  if (fields.method.value_or("") != "POST") {
    return fault("invalid_method", "The method must be POST.", "method");
  }
  if (fields.url.value_or("") != kBatchEndpoint) {
    return fault("url_mismatch",
                 "The url must be " + std::string(kBatchEndpoint) + ", the batch's endpoint.",
                 "url");
  }
  return std::nullopt;
}

}  // namespace

std::variant<BatchLine, BatchFault> read_batch_line(std::string& line, std::size_t items_max) {
  LineFields fields;
  std::string wrong;  // The field whose kind is.
  const auto ok = read_json_object(line, [&](std::string_view name, JsonValue& value) {
    auto taken = take_line_field(name, value, items_max, fields);
    if (!taken) {
      wrong = name;
    }
    return taken;
  });
  if (!ok) {
    std::string message = wrong.empty() ? ok.error().message : wrong + " " + ok.error().message;
    if (const auto at = message.find("the body"); at == 0) {
      message.replace(0, 8, "The line");
    }
    return BatchFault{.code = "invalid_json_line",
                      .message = message + ".",
                      .param = std::move(wrong),
                      .line = 0};
  }
  if (auto fault = fault_of(fields)) {
    return *fault;
  }
  OpenAiRead& read = fields.line.read;
  if (!fields.has_body) {
    read.problem = field_problem("body", {ErrorCode::kInvalidArgument, "is missing"});
  }
  if (!read.problem) {
    read.problem = judge_openai(read);
  }
  return std::move(fields.line);
}

void judge_batch_line(BatchLine& line, const protocol::ModelInfo& model, bool accept_token_ids) {
  if (!line.read.problem) {
    line.read.problem = judge_openai(line.read, model, accept_token_ids);
  }
}

void append_items(protocol::ItemBlock& block, const protocol::ItemBlock& more) {
  if (!block.kinds.empty() || !more.kinds.empty()) {
    block.kinds.resize(block.sizes.size(), 0);
    block.kinds.insert(block.kinds.end(), more.kinds.begin(), more.kinds.end());
    block.kinds.resize(block.sizes.size() + more.sizes.size(), 0);
  }
  block.sizes.insert(block.sizes.end(), more.sizes.begin(), more.sizes.end());
  block.payload.insert(block.payload.end(), more.payload.begin(), more.payload.end());
}

protocol::ItemBlock take_items(ItemList& items) {
  std::vector<protocol::ItemBlock>& blocks = items.blocks();
  protocol::ItemBlock all = std::move(blocks.front());
  for (std::size_t i = 1; i < blocks.size(); ++i) {
    append_items(all, blocks[i]);
  }
  blocks.clear();
  return all;
}

}  // namespace tessera::gateway
