#include "clients/gateway/api/embed_body.hpp"

#include <algorithm>
#include <cctype>
#include <limits>

namespace tessera::gateway {

using http::Problem;

namespace {

// Read at 1 GB/s or more, so within a quarter of a millisecond.
constexpr std::size_t kReadAtOnceMax = 256U << 10;
constexpr std::size_t kListedCutsMax = 64;

Error wrong(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

Result<void> append_id(JsonValue& value, std::vector<std::int32_t>& ids) {
  auto id = value.integer();
  if (!id) {
    return wrong("token ids must be whole numbers");
  }
  if (*id < 0 || *id > std::numeric_limits<std::int32_t>::max()) {
    return wrong("token id " + std::to_string(*id) + " is in no vocabulary");
  }
  ids.push_back(static_cast<std::int32_t>(*id));
  return {};
}

// A list's element may be a text, an id of the list's one item, or a list of ids.
struct ItemReader {
  std::size_t items_max;
  ItemList& items;
  std::vector<std::int32_t> ids;
  std::optional<JsonValue::Kind> kind;  // Of the elements: all are of one.

  Result<void> element(JsonValue& value) {
    auto is = value.kind();
    if (!is) {
      return is.error();
    }
    if (kind.value_or(*is) != *is) {
      return wrong("mixes " + std::string(to_string(*kind)) + " and " +
                   std::string(to_string(*is)));
    }
    kind = *is;
    if (*is == JsonValue::Kind::kString) {
      auto text = value.text();
      return text ? items.add_text(*text, items_max) : Result<void>(text.error());
    }
    if (*is == JsonValue::Kind::kNumber) {
      return append_id(value, ids);
    }
    if (*is == JsonValue::Kind::kArray) {
      ids.clear();
      auto ok = value.each([this](JsonValue& id) { return append_id(id, ids); });
      if (!ok) {
        return ok;
      }
      return add_ids();
    }
    return wrong("holds " + std::string(to_string(*is)) +
                 " where a text or token ids are expected");
  }
  Result<void> add_ids() {
    return ids.empty() ? Result<void>(wrong("holds an empty list of token ids"))
                       : items.add_ids(ids, items_max);
  }
};

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

std::string reset_text(std::uint32_t ms) {
  if (ms < 1000) {
    return std::to_string(ms) + "ms";
  }
  const std::uint32_t seconds = (ms + 999) / 1000;
  return seconds < 60 ? std::to_string(seconds) + "s"
                      : std::to_string(seconds / 60) + "m" + std::to_string(seconds % 60) + "s";
}

}  // namespace

Result<bool> is_null(JsonValue& value) {
  auto kind = value.kind();
  if (!kind) {
    return kind.error();
  }
  return *kind == JsonValue::Kind::kNull;
}

Result<void> read_items(JsonValue& value, std::size_t items_max, ItemList& items) {
  auto kind = value.kind();
  if (!kind) {
    return kind.error();
  }
  if (*kind == JsonValue::Kind::kString) {
    auto text = value.text();
    return text ? items.add_text(*text, items_max) : Result<void>(text.error());
  }
  if (*kind != JsonValue::Kind::kArray) {
    return wrong("must be a string, a list of strings, token ids or lists of them");
  }
  ItemReader reader{.items_max = items_max, .items = items, .ids = {}, .kind = {}};
  auto ok = value.each([&](JsonValue& element) { return reader.element(element); });
  if (ok && reader.kind == JsonValue::Kind::kNumber) {
    ok = reader.add_ids();
  }
  return ok;
}

Result<void> read_texts(JsonValue& value, std::size_t items_max, ItemList& items) {
  return value.each([&](JsonValue& element) -> Result<void> {
    auto text = element.text();
    return text ? items.add_text(*text, items_max) : Result<void>(text.error());
  });
}

Result<std::uint32_t> read_dimensions(JsonValue& value) {
  auto number = value.integer();
  if (!number) {
    return number.error();
  }
  if (*number < 1 || *number > std::numeric_limits<std::int32_t>::max()) {
    return wrong("must be 1 or more");
  }
  return static_cast<std::uint32_t>(*number);
}

Result<protocol::Truncate> read_truncate(JsonValue& value) {
  auto kind = value.kind();
  if (!kind) {
    return kind.error();
  }
  if (*kind == JsonValue::Kind::kBool) {
    auto cut = value.boolean();
    if (!cut) {
      return cut.error();
    }
    return *cut ? protocol::Truncate::kRight : protocol::Truncate::kNone;
  }
  auto text = value.text();
  const std::string word = text ? lower(*text) : std::string();
  if (word == "none") {
    return protocol::Truncate::kNone;
  }
  if (word == "left" || word == "start") {
    return protocol::Truncate::kLeft;
  }
  if (word == "right" || word == "end") {
    return protocol::Truncate::kRight;
  }
  return wrong("must be true, false, \"none\", \"left\" or \"start\", \"right\" or \"end\"");
}

Problem field_problem(std::string_view field, const Error& error) {
  Problem problem = problem_of(error.code, std::string(field) + " " + error.message);
  problem.param = field;
  return problem;
}

namespace {

std::optional<Problem> read_all(
    const JsonValue::EachField& field,
    const std::function<Result<void>(const JsonValue::EachField&)>& object) {
  std::optional<Problem> problem;
  const auto ok = object([&](std::string_view name, JsonValue& value) {
    auto taken = field(name, value);
    if (!taken) {
      problem = field_problem(name.substr(0, 64), taken.error());
    }
    return taken;
  });
  if (!ok && !problem) {
    problem = problem_of(ok.error().code, ok.error().message);
    problem->code = "invalid_json";
  }
  return problem;
}

}  // namespace

std::optional<Problem> read_fields(std::string& body, const JsonValue::EachField& field) {
  return read_all(field, [&](const auto& each) { return read_json_object(body, each); });
}

std::optional<Problem> read_fields(JsonValue& body, const JsonValue::EachField& field) {
  return read_all(field, [&](const auto& each) { return body.each_field(each); });
}

void run_reading(Services& services, std::size_t body_bytes, std::function<void()> read,
                 std::function<void()> done) {
  if (body_bytes <= kReadAtOnceMax) {
    read();
    return done();
  }
  services.side.post(
      [&loop = services.loop, read = std::move(read), done = std::move(done)]() mutable {
        read();
        loop.post(std::move(done));
      });
}

std::variant<protocol::ModelInfo, Problem> find_model(const Services& services,
                                                      const std::string& name) {
  if (!services.link.hello()) {
    return problem_of(ErrorCode::kUnavailable, "the coordinator has not answered yet",
                      std::chrono::seconds(1));
  }
  if (const protocol::ModelInfo* model = services.link.model(name)) {
    return *model;
  }
  Problem problem = problem_of(
      ErrorCode::kNotFound,
      name.empty() ? "several models are served, so the request must name one; see /v1/models"
                   : "the model " + name.substr(0, 200) + " is not served here; see /v1/models");
  problem.param = "model";
  return problem;
}

std::optional<Problem> check_vocabulary(bool accept_token_ids, const EmbedCall& call,
                                        const protocol::ModelInfo& model,
                                        const std::string& vocabulary) {
  if (!vocabulary.empty() && vocabulary != model.tokenizer_hash) {
    Problem problem =
        problem_of(ErrorCode::kInvalidTokenId, "vocabulary is not that of " + model.name +
                                                   ", whose tokenizer_hash /v1/models tells");
    problem.param = "vocabulary";
    return problem;
  }
  if (!call.items.has_ids() || accept_token_ids || !vocabulary.empty()) {
    return std::nullopt;
  }
  Problem problem = problem_of(
      ErrorCode::kInvalidTokenId,
      call.items_field +
          " holds token ids, and those of another tokenizer would give meaningless vectors: send "
          "texts (LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False)), or say "
          "\"vocabulary\": \"" +
          model.tokenizer_hash + "\" if the ids are of this model's own tokenizer");
  problem.param = call.items_field;
  problem.code = "unknown_vocabulary";
  return problem;
}

void read_cache_control(const http::Request& request, EmbedCall& call) {
  for (const auto& [name, value] : request.headers.all()) {
    if (lower(name) != "cache-control") {
      continue;
    }
    const std::string words = lower(value);
    call.no_store = call.no_store || words.find("no-store") != std::string::npos;
    call.no_cache = call.no_cache || words.find("no-cache") != std::string::npos;
  }
}

void add_answer_headers(const EmbedAnswer& answer, const http::Request& request,
                        http::Response& response) {
  const auto took =
      std::chrono::duration_cast<std::chrono::milliseconds>(http::Clock::now() - request.arrived);
  response.headers.add("openai-processing-ms", std::to_string(took.count()));
  response.headers.add("x-cache", answer.cached_items == answer.items ? "HIT" : "MISS");
  if (answer.quota.limit > 0) {
    response.headers.add("x-ratelimit-limit-tokens", std::to_string(answer.quota.limit));
    response.headers.add("x-ratelimit-remaining-tokens", std::to_string(answer.quota.remaining));
    response.headers.add("x-ratelimit-reset-tokens", reset_text(answer.quota.reset_ms));
  }
  if (answer.cut.empty()) {
    return;
  }
  std::string listed;
  for (std::size_t i = 0; i < std::min(answer.cut.size(), kListedCutsMax); ++i) {
    listed += i == 0 ? "" : ", ";
    listed += std::to_string(answer.cut[i].first) + "=" + std::to_string(answer.cut[i].second);
  }
  response.headers.add("x-tessera-truncated-items", std::to_string(answer.cut.size()));
  response.headers.add("x-tessera-truncated", listed);
}

}  // namespace tessera::gateway
