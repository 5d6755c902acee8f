#include "clients/gateway/api/embed_body.hpp"
#include "clients/gateway/api/errors.hpp"
#include "clients/gateway/encoding/json_text.hpp"

// GET /v1/models: what is served, and all that a client must know to keep its vectors apart from
// another model's.
namespace tessera::gateway {
namespace {

std::string model_json(const protocol::ModelInfo& model) {
  std::string json =
      R"({"id":)" + json_string(model.name) +
      R"(,"object":"model","created":0,"owned_by":"tessera","dimensions":)" +
      std::to_string(model.hidden_size) + R"(,"dimensions_min":)" +
      std::to_string(protocol::kDimensionsMin) + R"(,"max_input_tokens":)" +
      std::to_string(model.max_seqlen) + R"(,"vocab_size":)" + std::to_string(model.vocab_size) +
      R"(,"pooling":"last_token","normalized":true,"number_format":)" +
      json_string(model.number_format) + R"(,"fingerprint":)" + json_string(model.fingerprint) +
      R"(,"tokenizer_hash":)" + json_string(model.tokenizer_hash) + R"(,"workers":)" +
      std::to_string(model.workers) + R"(,"prompts":[)";
  for (std::size_t i = 0; i < model.prompt_names.size(); ++i) {
    json += i == 0 ? "" : ",";
    append_json_string(model.prompt_names[i], json);
  }
  return json + "]}";
}

void list(Services& services, const http::ExchangePtr& exchange) {
  const auto& hello = services.link.hello();
  if (!hello) {
    return exchange->respond(respond_to_problem(
        http::Family::kOpenAi,
        problem_of(ErrorCode::kUnavailable, "the coordinator has not answered yet")));
  }
  std::string json = R"({"object":"list","data":[)";
  for (std::size_t i = 0; i < hello->models.size(); ++i) {
    json += i == 0 ? "" : ",";
    json += model_json(hello->models[i]);
  }
  exchange->respond(json_response(json + "]}"));
}

void one(Services& services, const http::ExchangePtr& exchange) {
  auto model = find_model(services, std::string(exchange->request().path_value("id")));
  if (const auto* problem = std::get_if<http::Problem>(&model)) {
    return exchange->respond(respond_to_problem(http::Family::kOpenAi, *problem));
  }
  exchange->respond(json_response(model_json(std::get<protocol::ModelInfo>(model))));
}

}  // namespace

void add_model_routes(http::Router& router, Services& services) {
  router.add({.pattern = "/v1/models",
              .family = http::Family::kOpenAi,
              .handler = [&services](const http::ExchangePtr& e) { list(services, e); }});
  router.add({.pattern = "/v1/models/{id}",
              .family = http::Family::kOpenAi,
              .handler = [&services](const http::ExchangePtr& e) { one(services, e); }});
}

}  // namespace tessera::gateway
