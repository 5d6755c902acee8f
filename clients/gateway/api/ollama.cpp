#include "clients/gateway/api/embed_body.hpp"
#include "clients/gateway/api/errors.hpp"
#include "clients/gateway/api/vectors_body.hpp"
#include "clients/gateway/encoding/decimal.hpp"
#include "clients/gateway/encoding/json_text.hpp"

// Ollama's routes: /api/embed, /api/tags, /api/version. Its convention is to cut what is too long
// unless told otherwise; ours is to say so in a header.
namespace tessera::gateway {

using http::ExchangePtr;
using http::Problem;

namespace {

struct OllamaRead {
  EmbedCall call;
  std::string model;
  bool has_input = false;
  std::optional<Problem> problem;
};

Error wrong(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

// Ollama's options are of its own runner; none of them decides a vector here but the context, which
// is the model's.
Result<void> take_field(std::string_view name, JsonValue& value, std::size_t items_max,
                        OllamaRead& read) {
  auto kind = value.kind();
  if (!kind) {
    return kind.error();
  }
  if (name == "input") {
    read.has_input = true;
    if (*kind == JsonValue::Kind::kString) {
      return read_items(value, items_max, read.call.items);
    }
    return read_texts(value, items_max, read.call.items);
  }
  if (*kind == JsonValue::Kind::kNull || name == "options" || name == "keep_alive") {
    return {};
  }
  if (name == "model") {
    auto text = value.text();
    read.model = text ? std::string(*text) : std::string();
    return text ? Result<void>() : Result<void>(text.error());
  }
  if (name == "truncate") {
    auto cut = value.boolean();
    read.call.spec.truncate = cut && *cut ? protocol::Truncate::kRight : protocol::Truncate::kNone;
    return cut ? Result<void>() : Result<void>(cut.error());
  }
  if (name == "dimensions") {
    auto width = read_dimensions(value);
    read.call.spec.dimensions = width ? *width : 0;
    return width ? Result<void>() : Result<void>(width.error());
  }
  return wrong("is not a field of this route");
}

void refuse(const ExchangePtr& exchange, const Problem& problem) {
  exchange->respond(respond_to_problem(http::Family::kOllama, problem));
}

// Its clients call a model without a tag NAME:latest.
std::string without_tag(std::string name) {
  static constexpr std::string_view kTag = ":latest";
  if (name.ends_with(kTag)) {
    name.resize(name.size() - kTag.size());
  }
  return name;
}

std::string tail_of(const http::Request& request, std::uint64_t tokens) {
  const auto took =
      std::chrono::duration_cast<std::chrono::nanoseconds>(http::Clock::now() - request.arrived);
  std::string tail = R"(],"total_duration":)";
  append_integer(static_cast<std::uint64_t>(took.count()), tail);
  tail += R"(,"load_duration":0,"prompt_eval_count":)";
  append_integer(tokens, tail);
  return tail + "}";
}

void go_on(Services& services, const ExchangePtr& exchange, OllamaRead& read) {
  if (!read.problem && (read.model.empty() || !read.has_input)) {
    read.problem = problem_of(ErrorCode::kInvalidArgument, "model and input are needed");
  }
  if (read.problem) {
    return refuse(exchange, *read.problem);
  }
  auto model = find_model(services, without_tag(read.model));
  if (const auto* problem = std::get_if<Problem>(&model)) {
    return refuse(exchange, *problem);
  }
  const std::string head = R"({"model":)" + json_string(read.model) + R"(,"embeddings":[)";
  if (read.call.items.size() == 0) {
    return exchange->respond(json_response(head + tail_of(exchange->request(), 0)));
  }
  read.call.spec.model = std::get<protocol::ModelInfo>(model).name;
  read_cache_control(exchange->request(), read.call);
  embed(
      services.link, exchange->request(), std::move(read.call), services.request_time,
      [exchange, head](std::variant<EmbedAnswer, Problem> got) {
        if (auto* bad = std::get_if<Problem>(&got)) {
          return refuse(exchange, *bad);
        }
        EmbedAnswer answer = std::move(std::get<EmbedAnswer>(got));
        http::Response response;
        add_answer_headers(answer, exchange->request(), response);
        std::vector<VectorSection> sections;
        sections.push_back({.before = head, .after = tail_of(exchange->request(), answer.tokens)});
        set_vectors(response, std::move(answer), std::move(sections));
        exchange->respond(std::move(response));
      });
}

void embed_route(Services& services, const ExchangePtr& exchange) {
  auto read = std::make_shared<OllamaRead>();
  read->call.spec.truncate = protocol::Truncate::kRight;
  run_reading(
      services, exchange->request().body.size(),
      [exchange, read, items_max = services.items_max] {
        read->problem =
            read_fields(exchange->request().body, [&](std::string_view name, JsonValue& value) {
              return take_field(name, value, items_max, *read);
            });
      },
      [&services, exchange, read] { go_on(services, exchange, *read); });
}

void tags_route(Services& services, const ExchangePtr& exchange) {
  const auto& hello = services.link.hello();
  if (!hello) {
    return refuse(exchange,
                  problem_of(ErrorCode::kUnavailable, "the coordinator has not answered yet"));
  }
  std::string json = R"({"models":[)";
  for (const protocol::ModelInfo& model : hello->models) {
    const std::string name = json_string(model.name + ":latest");
    json += json.ends_with('[') ? "" : ",";
    json += R"({"name":)" + name + R"(,"model":)" + name +
            R"(,"modified_at":"1970-01-01T00:00:00Z","size":0,"digest":)" +
            json_string(model.fingerprint) +
            R"(,"details":{"format":"safetensors","family":"qwen3","families":["qwen3"],)" +
            R"("parameter_size":"","quantization_level":""}})";
  }
  exchange->respond(json_response(json + "]}"));
}

}  // namespace

void add_ollama_routes(http::Router& router, Services& services) {
  router.add({.method = http::Method::kPost,
              .pattern = "/api/embed",
              .family = http::Family::kOllama,
              .handler = [&services](const ExchangePtr& e) { embed_route(services, e); },
              .body = http::Route::Body::kWhole});
  router.add({.pattern = "/api/tags",
              .family = http::Family::kOllama,
              .handler = [&services](const ExchangePtr& e) { tags_route(services, e); }});
  router.add({.pattern = "/api/version",
              .family = http::Family::kOllama,
              .handler = [&services](const ExchangePtr& e) {
                e->respond(json_response(R"({"version":)" + json_string(services.version) + "}"));
              }});
}

}  // namespace tessera::gateway
