#include "clients/gateway/api/errors.hpp"
#include "clients/gateway/api/openai_body.hpp"

// POST /v1/embeddings: OpenAI's form, with the words that Voyage uses for the same and ours.
namespace tessera::gateway {

using http::ExchangePtr;
using http::Problem;

namespace {

bool wants_raw(const http::Request& request) {
  return request.headers.get("accept").find("application/octet-stream") != std::string_view::npos;
}

void refuse(const ExchangePtr& exchange, const Problem& problem) {
  exchange->respond(respond_to_problem(http::Family::kOpenAi, problem));
}

void answer_with(const ExchangePtr& exchange, EmbedAnswer answer, const OpenAiRead& read,
                 const std::string& model) {
  if (const auto problem = judge_openai_answer(read, answer)) {
    return refuse(exchange, *problem);
  }
  http::Response response;
  add_answer_headers(answer, exchange->request(), response);
  VectorSection section = openai_section(read, answer, model);
  if (wants_raw(exchange->request())) {
    section = {.before = {},
               .form = VectorSection::Form::kRaw,
               .dtype = read.dtype,
               .openai_rows = false,
               .after = {}};
    response.content_type = "application/octet-stream";
    response.headers.add("x-tessera-model", model);
    response.headers.add("x-tessera-dtype", to_string(read.dtype));
    response.headers.add("x-tessera-rows", std::to_string(answer.items));
    response.headers.add("x-tessera-dimensions", std::to_string(answer.dimensions));
    response.headers.add("x-tessera-tokens", std::to_string(answer.tokens));
    response.headers.add("x-tessera-cached-tokens", std::to_string(answer.cached_tokens));
  }
  std::vector<VectorSection> sections;
  sections.push_back(std::move(section));
  set_vectors(response, std::move(answer), std::move(sections));
  exchange->respond(std::move(response));
}

void go_on(Services& services, const ExchangePtr& exchange, OpenAiRead& read) {
  if (!read.problem) {
    read.problem = judge_openai(read);
  }
  if (read.problem) {
    return refuse(exchange, *read.problem);
  }
  auto model = find_model(services, read.model);
  if (auto* problem = std::get_if<Problem>(&model)) {
    return refuse(exchange, *problem);
  }
  const auto& info = std::get<protocol::ModelInfo>(model);
  if (const auto problem = judge_openai(read, info, services.accept_token_ids)) {
    return refuse(exchange, *problem);
  }
  read_cache_control(exchange->request(), read.call);
  exchange->request().body = {};
  auto shared = std::make_shared<OpenAiRead>(std::move(read));
  embed(services.link, exchange->request(), std::move(shared->call), services.request_time,
        [exchange, shared, name = info.name](std::variant<EmbedAnswer, Problem> got) {
          if (auto* bad = std::get_if<Problem>(&got)) {
            return refuse(exchange, *bad);
          }
          answer_with(exchange, std::move(std::get<EmbedAnswer>(got)), *shared, name);
        });
}

void embeddings(Services& services, const ExchangePtr& exchange) {
  auto read = std::make_shared<OpenAiRead>();
  const std::size_t items_max = services.items_max;
  run_reading(
      services, exchange->request().body.size(),
      [exchange, read, items_max] {
        read->problem =
            read_fields(exchange->request().body, [&](std::string_view name, JsonValue& value) {
              return take_openai_field(name, value, items_max, *read);
            });
      },
      [&services, exchange, read] { go_on(services, exchange, *read); });
}

}  // namespace

void add_openai_routes(http::Router& router, Services& services) {
  router.add({.method = http::Method::kPost,
              .pattern = "/v1/embeddings",
              .family = http::Family::kOpenAi,
              .handler = [&services](const ExchangePtr& e) { embeddings(services, e); },
              .body = http::Route::Body::kWhole});
}

}  // namespace tessera::gateway
