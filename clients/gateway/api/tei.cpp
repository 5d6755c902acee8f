#include "clients/gateway/api/embed_body.hpp"
#include "clients/gateway/api/errors.hpp"
#include "clients/gateway/api/token_list.hpp"
#include "clients/gateway/api/vectors_body.hpp"
#include "clients/gateway/encoding/json_text.hpp"

// The routes of Hugging Face's text-embeddings-inference: /embed, /tokenize, /info. Its convention
// is to cut what is too long unless told otherwise; ours is to say so in a header.
namespace tessera::gateway {

using http::ExchangePtr;
using http::Problem;

namespace {

struct TeiRead {
  EmbedCall call;
  std::string texts;  // The inputs as they were sent, for /tokenize.
  bool has_inputs = false;
  bool truncate = true;
  bool from_left = false;
  bool normalize = true;
  bool add_special_tokens = true;
  std::optional<Problem> problem;
};

Error wrong(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

Result<void> take_direction(JsonValue& value, TeiRead& read) {
  auto text = value.text();
  const std::string word(text ? *text : std::string_view());
  read.from_left = word == "Left" || word == "left";
  return read.from_left || word == "Right" || word == "right"
             ? Result<void>()
             : Result<void>(wrong("must be \"Left\" or \"Right\""));
}

Result<void> take_field(std::string_view name, JsonValue& value, std::size_t items_max,
                        bool tokenize, TeiRead& read) {
  if (name == "inputs") {
    read.has_inputs = true;
    return read_items(value, items_max, read.call.items);
  }
  auto null = is_null(value);
  if (!null || *null) {
    return null ? Result<void>() : Result<void>(null.error());
  }
  if (name == "prompt_name") return take(value, read.call.spec.prompt_name);
  if (tokenize && name == "add_special_tokens") return take(value, read.add_special_tokens);
  if (tokenize) return wrong("is not a field of this route");
  if (name == "truncate") return take(value, read.truncate);
  if (name == "truncation_direction") return take_direction(value, read);
  if (name == "normalize") return take(value, read.normalize);
  if (name == "dimensions") {
    auto width = read_dimensions(value);
    read.call.spec.dimensions = width ? *width : 0;
    return width ? Result<void>() : Result<void>(width.error());
  }
  return wrong("is not a field of this route");
}

void refuse(const ExchangePtr& exchange, const Problem& problem) {
  exchange->respond(respond_to_problem(http::Family::kTei, problem));
}

std::optional<Problem> judge(TeiRead& read) {
  if (!read.has_inputs || read.call.items.size() == 0) {
    return problem_of(ErrorCode::kEmptyText, "inputs is missing or empty");
  }
  if (!read.normalize) {
    return field_problem("normalize", wrong("cannot be false: vectors have unit length"));
  }
  read.call.items_field = "inputs";
  read.call.spec.truncate = !read.truncate   ? protocol::Truncate::kNone
                            : read.from_left ? protocol::Truncate::kLeft
                                             : protocol::Truncate::kRight;
  return std::nullopt;
}

// The model that TEI's routes, which name none, mean; or what is wrong.
std::optional<Problem> prepare(Services& services, TeiRead& read, protocol::ModelInfo& info) {
  if (!read.problem) {
    read.problem = judge(read);
  }
  if (read.problem) {
    return read.problem;
  }
  auto model = find_model(services, "");
  if (auto* problem = std::get_if<Problem>(&model)) {
    return *problem;
  }
  info = std::get<protocol::ModelInfo>(std::move(model));
  read.call.spec.model = info.name;
  return check_vocabulary(services.accept_token_ids, read.call, info, "");
}

void read_body(Services& services, const ExchangePtr& exchange, bool tokenize,
               const std::function<void(TeiRead&)>& go_on) {
  auto read = std::make_shared<TeiRead>();
  run_reading(
      services, exchange->request().body.size(),
      [exchange, read, tokenize, items_max = services.items_max] {
        read->problem =
            read_fields(exchange->request().body, [&](std::string_view name, JsonValue& value) {
              return take_field(name, value, items_max, tokenize, *read);
            });
      },
      [read, go_on] { go_on(*read); });
}

void answer_with(const ExchangePtr& exchange, EmbedAnswer answer) {
  http::Response response;
  add_answer_headers(answer, exchange->request(), response);
  std::vector<VectorSection> sections;
  sections.push_back({.before = "[", .after = "]"});
  set_vectors(response, std::move(answer), std::move(sections));
  exchange->respond(std::move(response));
}

void embed_route(Services& services, const ExchangePtr& exchange) {
  read_body(services, exchange, false, [&services, exchange](TeiRead& read) {
    protocol::ModelInfo info;
    if (const auto problem = prepare(services, read, info)) {
      return refuse(exchange, *problem);
    }
    read_cache_control(exchange->request(), read.call);
    embed(services.link, exchange->request(), std::move(read.call), services.request_time,
          [exchange](std::variant<EmbedAnswer, Problem> got) {
            if (auto* bad = std::get_if<Problem>(&got)) {
              return refuse(exchange, *bad);
            }
            answer_with(exchange, std::move(std::get<EmbedAnswer>(got)));
          });
  });
}

void tokenize_route(Services& services, const ExchangePtr& exchange) {
  read_body(services, exchange, true, [&services, exchange](TeiRead& read) {
    protocol::ModelInfo info;
    if (const auto problem = prepare(services, read, info)) {
      return refuse(exchange, *problem);
    }
    if (read.call.items.has_ids()) {
      return refuse(exchange, field_problem("inputs", wrong("must be texts")));
    }
    auto tokenizer = services.tokenizers ? services.tokenizers->find(info) : nullptr;
    if (!tokenizer) {
      return refuse(exchange, {.status = 503,
                               .code = "no_tokenizer",
                               .message = "this gateway has no tokenizer of " + info.name +
                                          ": start it with --model DIR",
                               .param = {},
                               .should_retry = false});
    }
    auto items = std::make_shared<ItemList>(std::move(read.call.items));
    auto list = std::make_shared<std::variant<std::string, Problem>>();
    services.side.post([&loop = services.loop, exchange, tokenizer, items, list,
                        prompt = read.call.spec.prompt_name, special = read.add_special_tokens] {
      *list = token_list(*tokenizer, items->blocks(), prompt, special);
      loop.post([exchange, list] {
        if (const auto* problem = std::get_if<Problem>(list.get())) {
          return refuse(exchange, *problem);
        }
        exchange->respond(json_response(std::move(std::get<std::string>(*list))));
      });
    });
  });
}

void info_route(Services& services, const ExchangePtr& exchange) {
  auto model = find_model(services, "");
  if (const auto* problem = std::get_if<Problem>(&model)) {
    return refuse(exchange, *problem);
  }
  const auto& info = std::get<protocol::ModelInfo>(model);
  exchange->respond(json_response(
      R"({"model_id":)" + json_string(info.name) + R"(,"model_sha":)" +
      json_string(info.fingerprint) + R"(,"model_dtype":)" + json_string(info.number_format) +
      R"(,"served_model_name":)" + json_string(info.name) +
      R"(,"model_type":{"embedding":{"pooling":"last_token"}},"max_concurrent_requests":1024)" +
      R"(,"max_input_length":)" + std::to_string(info.max_seqlen) + R"(,"max_batch_tokens":)" +
      std::to_string(info.max_seqlen) + R"(,"max_batch_requests":null,"max_client_batch_size":)" +
      std::to_string(services.items_max) +
      R"(,"auto_truncate":true,"tokenization_workers":1,"version":)" +
      json_string(services.version) + R"(,"sha":null,"docker_label":null})"));
}

}  // namespace

void add_tei_routes(http::Router& router, Services& services) {
  const auto route = [&](http::Method method, const char* path,
                         void (*handler)(Services&, const ExchangePtr&)) {
    router.add({.method = method,
                .pattern = path,
                .family = http::Family::kTei,
                .handler = [&services, handler](const ExchangePtr& e) { handler(services, e); },
                .body = method == http::Method::kPost ? http::Route::Body::kWhole
                                                      : http::Route::Body::kNone});
  };
  route(http::Method::kPost, "/embed", embed_route);
  route(http::Method::kPost, "/tokenize", tokenize_route);
  route(http::Method::kGet, "/info", info_route);
}

}  // namespace tessera::gateway
