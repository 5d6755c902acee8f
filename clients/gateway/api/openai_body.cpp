#include "clients/gateway/api/openai_body.hpp"

#include "clients/gateway/encoding/decimal.hpp"
#include "clients/gateway/encoding/json_text.hpp"

namespace tessera::gateway {

using http::Problem;

namespace {

Error wrong(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

Result<void> take_width(JsonValue& value, OpenAiRead& read) {
  auto width = read_dimensions(value);
  if (!width) {
    return width.error();
  }
  if (read.dimensions.value_or(*width) != *width) {
    return wrong("and its synonym name two widths");
  }
  read.dimensions = *width;
  return {};
}

Result<void> take_truncate(JsonValue& value, OpenAiRead& read) {
  auto truncate = read_truncate(value);
  if (!truncate) {
    return truncate.error();
  }
  read.call.spec.truncate = *truncate;
  return {};
}

Result<void> take_encoding(JsonValue& value, OpenAiRead& read) {
  auto text = value.text();
  if (!text || (*text != "float" && *text != "base64")) {
    return wrong("must be \"float\" or \"base64\"");
  }
  read.base64 = *text == "base64";
  return {};
}

Result<void> take_dtype(JsonValue& value, OpenAiRead& read) {
  auto text = value.text();
  const auto dtype = text ? dtype_named(*text) : std::nullopt;
  if (!dtype) {
    return wrong("must be float, float16, int8, uint8, binary or ubinary");
  }
  read.dtype = *dtype;
  return {};
}

Result<void> take_input_type(JsonValue& value, OpenAiRead& read) {
  auto ok = take(value, read.input_type);
  if (!ok) {
    return ok;
  }
  if (read.input_type == "query" || read.input_type == "search_query") {
    read.call.spec.query = true;
  } else if (read.input_type != "document" && read.input_type != "search_document") {
    return wrong("must be \"query\" or \"document\"");
  }
  return {};
}

Result<void> take_priority(JsonValue& value, OpenAiRead& read) {
  auto kind = value.kind();
  if (kind && *kind == JsonValue::Kind::kNumber) {
    auto weight = value.integer();
    if (!weight || *weight < 1 || *weight > 100) {
      return wrong("must be \"interactive\", \"bulk\" or a weight of 1 to 100");
    }
    read.call.weight = static_cast<std::uint32_t>(*weight);
    return {};
  }
  auto text = value.text();
  if (!text || (*text != "interactive" && *text != "bulk")) {
    return wrong("must be \"interactive\", \"bulk\" or a weight of 1 to 100");
  }
  read.call.lane = *text == "bulk" ? protocol::Lane::kBulk : protocol::Lane::kInteractive;
  return {};
}

}  // namespace

Result<void> take_openai_field(std::string_view name, JsonValue& value, std::size_t items_max,
                               OpenAiRead& read) {
  if (name == "input") {
    read.has_input = true;
    return read_items(value, items_max, read.call.items);
  }
  auto null = is_null(value);
  if (!null || *null) {
    return null ? Result<void>() : Result<void>(null.error());
  }
  if (name == "model") return take(value, read.model);
  if (name == "encoding_format") return take_encoding(value, read);
  if (name == "dimensions" || name == "output_dimension") return take_width(value, read);
  if (name == "output_dtype") return take_dtype(value, read);
  if (name == "input_type") return take_input_type(value, read);
  if (name == "instruction") return take(value, read.call.spec.instruction);
  if (name == "prompt_name") return take(value, read.call.spec.prompt_name);
  if (name == "truncate" || name == "truncation") return take_truncate(value, read);
  if (name == "priority") return take_priority(value, read);
  if (name == "vocabulary") return take(value, read.vocabulary);
  if (name == "user") {
    std::string user;  // For the caller's own records; nothing here depends on it.
    return take(value, user);
  }
  return wrong("is not a field of this route");
}

namespace {

Problem about(std::string_view field, std::string message) {
  return field_problem(field, wrong(std::move(message)));
}

std::optional<Problem> judge_width(const OpenAiRead& read, const protocol::ModelInfo& model) {
  const std::uint32_t width = read.dimensions.value_or(model.hidden_size);
  if (width > model.hidden_size || width < protocol::kDimensionsMin) {
    return about("dimensions", "must be " + std::to_string(protocol::kDimensionsMin) + " to " +
                                   std::to_string(model.hidden_size) + " for " + model.name);
  }
  return std::nullopt;
}

std::string tail_of(const EmbedAnswer& answer, const std::string& model) {
  std::string tail = R"(],"model":)" + json_string(model) + R"(,"usage":{"prompt_tokens":)";
  append_integer(answer.tokens, tail);
  tail += R"(,"total_tokens":)";
  append_integer(answer.tokens, tail);
  tail += R"(,"prompt_tokens_details":{"cached_tokens":)";
  append_integer(answer.cached_tokens, tail);
  tail += "}}";
  for (std::size_t i = 0; i < answer.cut.size(); ++i) {
    tail += i == 0 ? R"(,"truncated":[{"index":)" : R"(,{"index":)";
    append_integer(answer.cut[i].first, tail);
    tail += R"(,"tokens_cut":)";
    append_integer(answer.cut[i].second, tail);
    tail += i + 1 == answer.cut.size() ? "}]" : "}";
  }
  tail += "}";
  return tail;
}

}  // namespace

std::optional<Problem> judge_openai(OpenAiRead& read) {
  protocol::EmbedSpec& spec = read.call.spec;
  if (read.model.empty()) {
    return about("model", "is missing: name one of /v1/models");
  }
  if (!read.has_input || read.call.items.size() == 0) {
    return about("input", "is missing or empty");
  }
  if (!spec.instruction.empty()) {
    if (!spec.query && !read.input_type.empty()) {
      return about("instruction", "goes before queries, not before documents");
    }
    spec.query = true;
  }
  if (!spec.prompt_name.empty() && (spec.query || !read.input_type.empty())) {
    return about("prompt_name", "and input_type or instruction name two prompts");
  }
  spec.dimensions = read.dimensions.value_or(0);
  spec.vector_type = read.dtype == Dtype::kFloat16 ? protocol::VectorType::kFloat16
                                                   : protocol::VectorType::kFloat32;
  return std::nullopt;
}

std::optional<Problem> judge_openai(OpenAiRead& read, const protocol::ModelInfo& model,
                                    bool accept_token_ids) {
  auto problem = judge_width(read, model);
  if (!problem) {
    problem = check_vocabulary(accept_token_ids, read.call, model, read.vocabulary);
  }
  if (!problem) {
    read.call.spec.model = model.name;
  }
  return problem;
}

std::optional<Problem> judge_openai_answer(const OpenAiRead& read, const EmbedAnswer& answer) {
  const bool bits = read.dtype == Dtype::kBinary || read.dtype == Dtype::kUbinary;
  if (bits && answer.dimensions % 8 != 0) {
    return about("dimensions", "must divide by 8 for one bit a value");
  }
  return std::nullopt;
}

VectorSection openai_section(const OpenAiRead& read, const EmbedAnswer& answer,
                             const std::string& model) {
  return {.before = R"({"object":"list","data":[)",
          .form = read.base64 ? VectorSection::Form::kBase64 : VectorSection::Form::kList,
          .dtype = read.dtype,
          .openai_rows = true,
          .after = tail_of(answer, model)};
}

}  // namespace tessera::gateway
