#include <algorithm>
#include <array>

#include "clients/gateway/api/embed_body.hpp"
#include "clients/gateway/api/errors.hpp"
#include "clients/gateway/api/vectors_body.hpp"
#include "clients/gateway/encoding/decimal.hpp"
#include "clients/gateway/encoding/json_text.hpp"
#include "clients/gateway/http/request_id.hpp"

// POST /v2/embed: Cohere's form, texts only. Its convention is to cut the end of what is too long
// unless told otherwise; ours is to say so in a header.
namespace tessera::gateway {

using http::ExchangePtr;
using http::Problem;

namespace {

struct CohereType {
  std::string_view name;
  VectorSection::Form form;
  Dtype dtype;
};
constexpr std::array<CohereType, 6> kTypes{
    {{"float", VectorSection::Form::kList, Dtype::kFloat},
     {"int8", VectorSection::Form::kList, Dtype::kInt8},
     {"uint8", VectorSection::Form::kList, Dtype::kUint8},
     {"binary", VectorSection::Form::kList, Dtype::kBinary},
     {"ubinary", VectorSection::Form::kList, Dtype::kUbinary},
     {"base64", VectorSection::Form::kBase64, Dtype::kFloat}}};

struct CohereRead {
  EmbedCall call;
  std::string model;
  std::string texts;  // As they were sent: they go back in the answer.
  std::vector<const CohereType*> types;
  std::optional<Problem> problem;
};

Error wrong(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

Result<void> take_input_type(JsonValue& value, CohereRead& read) {
  auto text = value.text();
  const std::string_view word = text ? *text : std::string_view();
  read.call.spec.query = word == "search_query";
  const bool document =
      word == "search_document" || word == "classification" || word == "clustering";
  return read.call.spec.query || document
             ? Result<void>()
             : Result<void>(wrong("must be search_document, search_query, classification or "
                                  "clustering; images are not taken"));
}

Result<void> take_types(JsonValue& value, CohereRead& read) {
  return value.each([&](JsonValue& element) -> Result<void> {
    auto text = element.text();
    const auto* found = text ? std::ranges::find(kTypes, *text, &CohereType::name) : kTypes.end();
    if (found == kTypes.end()) {
      return wrong("must list float, int8, uint8, binary, ubinary or base64");
    }
    if (std::ranges::find(read.types, found) == read.types.end()) {
      read.types.push_back(found);
    }
    return {};
  });
}

Result<void> take_texts(JsonValue& value, std::size_t items_max, CohereRead& read) {
  auto raw = value.raw();
  if (!raw) {
    return raw.error();
  }
  read.texts = std::move(*raw);
  return read_texts(value, items_max, read.call.items);
}

Result<void> take_number(std::string_view name, JsonValue& value, CohereRead& read) {
  if (name == "priority") {
    auto priority = value.integer();
    if (!priority || *priority < 0 || *priority > 999) {
      return wrong("must be 0 to 999");
    }
    read.call.lane = *priority == 0 ? protocol::Lane::kInteractive : protocol::Lane::kBulk;
    return {};
  }
  auto number = read_dimensions(value);
  if (!number) {
    return number.error();
  }
  (name == "max_tokens" ? read.call.spec.max_tokens : read.call.spec.dimensions) = *number;
  return {};
}

Result<void> take_field(std::string_view name, JsonValue& value, std::size_t items_max,
                        CohereRead& read) {
  auto null = is_null(value);
  if (!null || *null) {
    return null ? Result<void>() : Result<void>(null.error());
  }
  if (name == "model") {
    return take(value, read.model);
  }
  if (name == "texts") return take_texts(value, items_max, read);
  if (name == "input_type") return take_input_type(value, read);
  if (name == "embedding_types") return take_types(value, read);
  if (name == "output_dimension" || name == "max_tokens" || name == "priority") {
    return take_number(name, value, read);
  }
  if (name == "truncate") {
    auto truncate = read_truncate(value);
    read.call.spec.truncate = truncate ? *truncate : protocol::Truncate::kNone;
    return truncate ? Result<void>() : Result<void>(truncate.error());
  }
  if (name == "images" || name == "inputs") {
    return wrong("is not taken: this server embeds texts");
  }
  return wrong("is not a field of this route");
}

void refuse(const ExchangePtr& exchange, const Problem& problem) {
  exchange->respond(respond_to_problem(http::Family::kCohere, problem));
}

std::optional<Problem> judge(CohereRead& read) {
  if (read.model.empty()) {
    return problem_of(ErrorCode::kInvalidArgument, "model is missing: name one of /v1/models");
  }
  if (read.call.items.size() == 0) {
    return problem_of(ErrorCode::kInvalidArgument, "texts is missing or empty");
  }
  if (read.types.empty()) {
    read.types.push_back(kTypes.data());
  }
  read.call.items_field = "texts";
  return std::nullopt;
}

std::vector<VectorSection> sections_of(const EmbedAnswer& answer, const CohereRead& read) {
  std::vector<VectorSection> sections;
  for (const CohereType* type : read.types) {
    std::string before =
        sections.empty() ? R"({"id":")" + http::random_hex(16) + R"(","embeddings":{)" : ",";
    before += json_string(type->name) + ":[";
    sections.push_back(
        {.before = std::move(before), .form = type->form, .dtype = type->dtype, .after = "]"});
  }
  std::string& tail = sections.back().after;
  tail += R"(},"texts":)" + read.texts +
          R"(,"meta":{"api_version":{"version":"2"},"billed_units":{"input_tokens":)";
  append_integer(answer.tokens, tail);
  tail += R"(},"cached_tokens":)";
  append_integer(answer.cached_tokens, tail);
  tail += R"(},"response_type":"embeddings_by_type"})";
  return sections;
}

void answer_with(const ExchangePtr& exchange, EmbedAnswer answer, const CohereRead& read) {
  const bool bits = std::ranges::any_of(read.types, [](const CohereType* type) {
    return type->dtype == Dtype::kBinary || type->dtype == Dtype::kUbinary;
  });
  if (bits && answer.dimensions % 8 != 0) {
    return refuse(exchange, problem_of(ErrorCode::kInvalidArgument,
                                       "output_dimension must divide by 8 for one bit a value"));
  }
  http::Response response;
  add_answer_headers(answer, exchange->request(), response);
  auto sections = sections_of(answer, read);
  set_vectors(response, std::move(answer), std::move(sections));
  exchange->respond(std::move(response));
}

void go_on(Services& services, const ExchangePtr& exchange,
           const std::shared_ptr<CohereRead>& read) {
  if (!read->problem) {
    read->problem = judge(*read);
  }
  if (read->problem) {
    return refuse(exchange, *read->problem);
  }
  auto model = find_model(services, read->model);
  if (const auto* problem = std::get_if<Problem>(&model)) {
    return refuse(exchange, *problem);
  }
  read->call.spec.model = std::get<protocol::ModelInfo>(model).name;
  read_cache_control(exchange->request(), read->call);
  embed(services.link, exchange->request(), std::move(read->call), services.request_time,
        [exchange, read](std::variant<EmbedAnswer, Problem> got) {
          if (auto* bad = std::get_if<Problem>(&got)) {
            return refuse(exchange, *bad);
          }
          answer_with(exchange, std::move(std::get<EmbedAnswer>(got)), *read);
        });
}

void embed_route(Services& services, const ExchangePtr& exchange) {
  auto read = std::make_shared<CohereRead>();
  read->call.spec.truncate = protocol::Truncate::kRight;
  run_reading(
      services, exchange->request().body.size(),
      [exchange, read, items_max = services.items_max] {
        read->problem =
            read_fields(exchange->request().body, [&](std::string_view name, JsonValue& value) {
              return take_field(name, value, items_max, *read);
            });
      },
      [&services, exchange, read] { go_on(services, exchange, read); });
}

}  // namespace

void add_cohere_routes(http::Router& router, Services& services) {
  router.add({.method = http::Method::kPost,
              .pattern = "/v2/embed",
              .family = http::Family::kCohere,
              .handler = [&services](const ExchangePtr& e) { embed_route(services, e); },
              .body = http::Route::Body::kWhole});
}

}  // namespace tessera::gateway
