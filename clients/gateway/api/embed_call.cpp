#include "clients/gateway/api/embed_call.hpp"

#include <algorithm>
#include <memory>

#include "clients/cpp/items.hpp"
#include "common/wire/embed_batch.hpp"

namespace tessera::gateway {

using http::Problem;
using std::chrono::milliseconds;

namespace {

constexpr std::size_t kBlockItemsMax = 256;
constexpr std::size_t kBlockBytesMax = 1U << 20;

bool is_cached(std::uint8_t source) {
  return source == static_cast<std::uint8_t>(protocol::ItemSource::kMemoryHit) ||
         source == static_cast<std::uint8_t>(protocol::ItemSource::kStorageHit);
}

struct Form {
  int status;
  const char* code;
};
Form form_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return {400, "invalid_value"};
    case ErrorCode::kInvalidUtf8:
      return {400, "invalid_utf8"};
    case ErrorCode::kEmptyText:
      return {400, "empty_input"};
    case ErrorCode::kTooLong:
      return {400, "context_length_exceeded"};
    case ErrorCode::kInvalidTokenId:
      return {400, "invalid_token_id"};
    case ErrorCode::kNotFound:
      return {404, "model_not_found"};
    case ErrorCode::kConflict:
      return {409, "conflict"};
    case ErrorCode::kUnauthenticated:
      return {401, "invalid_api_key"};
    case ErrorCode::kNotFinite:
      return {422, "not_finite"};
    case ErrorCode::kPoison:
      return {422, "poison"};
    case ErrorCode::kResourceExhausted:
      return {429, "rate_limit_exceeded"};
    case ErrorCode::kUnavailable:
      return {503, "unavailable"};
    case ErrorCode::kDeadlineExceeded:
      return {503, "deadline_exceeded"};
    case ErrorCode::kCancelled:
      return {503, "cancelled"};
    default:
      return {500, "internal_error"};
  }
}

}  // namespace

Problem problem_of(ErrorCode code, std::string message, milliseconds retry_after) {
  const Form form = form_of(code);
  const bool later = form.status == 429 || form.status == 503;
  return {.status = form.status,
          .code = form.code,
          .message = std::move(message),
          .param = {},
          .retry_after = later ? std::max(retry_after, milliseconds(1)) : milliseconds(0),
          .should_retry = later};
}

// items

Result<void> ItemList::make_room(std::size_t bytes, std::size_t items_max) {
  if (size_ >= items_max) {
    return Error{ErrorCode::kInvalidArgument,
                 "has more than " + std::to_string(items_max) + " items"};
  }
  if (bytes > protocol::kTextBytesMax) {
    return Error{ErrorCode::kInvalidArgument, "has an item of more than 4 MiB"};
  }
  if (blocks_.empty() || blocks_.back().sizes.size() >= kBlockItemsMax ||
      blocks_.back().payload.size() + bytes > kBlockBytesMax) {
    blocks_.emplace_back();
  }
  ++size_;
  return {};
}

Result<void> ItemList::add_text(std::string_view text, std::size_t items_max) {
  auto room = make_room(text.size(), items_max);
  if (room) {
    client::append_text(blocks_.back(), text);
  }
  return room;
}

Result<void> ItemList::add_ids(std::span<const std::int32_t> ids, std::size_t items_max) {
  auto room = make_room(ids.size_bytes(), items_max);
  if (room) {
    client::append_token_ids(blocks_.back(), ids);
    has_ids_ = true;
  }
  return room;
}

// the answer

std::span<const std::byte> EmbedAnswer::row(std::size_t item) const {
  const auto after = std::ranges::upper_bound(first_items, item);
  const auto block = static_cast<std::size_t>(after - first_items.begin()) - 1;
  const std::size_t bytes = protocol::row_bytes(blocks[block]);
  return std::span(blocks[block].payload).subspan((item - first_items[block]) * bytes, bytes);
}

std::optional<Problem> count_results(const protocol::ResultBlock& results, std::size_t first,
                                     const std::string& items_field, EmbedAnswer& answer) {
  const auto bad = std::ranges::find_if(results.codes, [](std::uint8_t code) { return code != 0; });
  if (bad != results.codes.end()) {
    const auto index = static_cast<std::size_t>(bad - results.codes.begin());
    const auto told = std::ranges::find(results.errors, static_cast<std::uint32_t>(index),
                                        &protocol::ItemError::index);
    const bool known = *bad <= static_cast<std::uint8_t>(ErrorCode::kInternal);
    Problem problem =
        problem_of(known ? static_cast<ErrorCode>(*bad) : ErrorCode::kInternal,
                   items_field + "[" + std::to_string(first + index) +
                       "]: " + (told == results.errors.end() ? "has no vector" : told->message));
    problem.param = items_field;
    return problem;
  }
  const bool all_cached = results.sources.empty() && results.cache_hits == results.codes.size();
  for (std::size_t i = 0; i < results.codes.size(); ++i) {
    const std::uint32_t tokens = results.token_counts.empty() ? 0 : results.token_counts[i];
    const bool cached = all_cached || (i < results.sources.size() && is_cached(results.sources[i]));
    answer.tokens += tokens;
    answer.cached_tokens += cached ? tokens : 0;
    answer.cached_items += cached ? 1 : 0;
    if (!results.tokens_cut.empty() && results.tokens_cut[i] > 0) {
      answer.cut.emplace_back(static_cast<std::uint32_t>(first + i), results.tokens_cut[i]);
    }
  }
  return std::nullopt;
}

// The answers to one HTTP request's messages, until all are there or one says no.
struct Gather {
  EmbedAnswer answer;
  std::string items_field;
  std::size_t missing = 0;
  EmbedDone done;

  void end(std::variant<EmbedAnswer, Problem> outcome) {
    if (done) {
      std::exchange(done, nullptr)(std::move(outcome));
    }
  }
  void fail(ErrorCode code, std::string message, milliseconds retry_after = {}) {
    end(problem_of(code, std::move(message), retry_after));
  }
  void on_block(std::size_t block, std::size_t items, protocol::EmbedReply reply);
};

void Gather::on_block(std::size_t block, std::size_t items, protocol::EmbedReply reply) {
  if (!done) {
    return;
  }
  if (auto fits = client::check_results(reply.results, items); !fits) {
    return fail(ErrorCode::kInternal, fits.error().message);
  }
  if (auto problem = count_results(reply.results, answer.first_items[block], items_field, answer)) {
    return end(std::move(*problem));
  }
  if (reply.quota.limit > 0) {
    answer.quota = reply.quota;
  }
  answer.dimensions = reply.results.dimensions;
  answer.vector_type = reply.results.vector_type;
  answer.blocks[block] = std::move(reply.results);
  if (--missing > 0) {
    return;
  }
  std::ranges::sort(answer.cut);
  for (const protocol::ResultBlock& one : answer.blocks) {
    if (one.dimensions != answer.dimensions || one.vector_type != answer.vector_type) {
      return fail(ErrorCode::kInternal, "the coordinator gave vectors of different widths");
    }
  }
  end(std::move(answer));
}

void embed(Link& link, const http::Request& request, EmbedCall call, milliseconds wait,
           EmbedDone done) {
  auto gather = std::make_shared<Gather>();
  gather->items_field = call.items_field;
  gather->done = std::move(done);
  gather->answer.items = call.items.size();
  std::size_t first = 0;
  for (const protocol::ItemBlock& block : call.items.blocks()) {
    gather->answer.first_items.push_back(first);
    first += block.sizes.size();
  }
  gather->missing = call.items.blocks().size();
  gather->answer.blocks.resize(gather->missing);
  const protocol::RequestTrace trace{
      .id = request.id,
      .traceparent = std::string(request.headers.get("traceparent").substr(0, 128))};
  for (std::size_t i = 0; i < gather->missing; ++i) {
    const std::size_t items = call.items.blocks()[i].sizes.size();
    protocol::EmbedRequest ask{.spec = call.spec,
                               .lane = call.lane,
                               .items = std::move(call.items.blocks()[i]),
                               .no_cache = call.no_cache,
                               .no_store = call.no_store,
                               .tenant = request.caller.tenant,
                               .tokens_per_minute = request.caller.tokens_per_minute,
                               .trace = trace,
                               .weight = call.weight};
    link.embed(std::move(ask), wait,
               [gather, i, items](std::variant<protocol::Message, protocol::ErrorReply> got) {
                 if (auto* error = std::get_if<protocol::ErrorReply>(&got)) {
                   return gather->fail(error->code, std::move(error->message),
                                       milliseconds(error->retry_after_ms));
                 }
                 auto* reply = std::get_if<protocol::EmbedReply>(&std::get<protocol::Message>(got));
                 if (reply == nullptr) {
                   return gather->fail(ErrorCode::kInternal,
                                       "the coordinator gave an unexpected answer");
                 }
                 gather->on_block(i, items, std::move(*reply));
               });
  }
}

}  // namespace tessera::gateway
