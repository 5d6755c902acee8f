#include "clients/cpp/client.hpp"

#include <deque>
#include <random>

#include "clients/cpp/connection.hpp"

namespace tessera::client {

using std::chrono::milliseconds;

namespace {

constexpr std::size_t kRequestItemsMax = 256;
constexpr std::size_t kRequestBytesMax = 1U << 20;
constexpr std::size_t kRequestsInFlightMax = 8;

const Error kUnexpectedAnswer{ErrorCode::kInternal, "the coordinator gave an unexpected answer"};

std::uint64_t random_opener() {
  std::random_device source;
  return (std::uint64_t{source()} << 32U | source()) | 1U;  // 0 would be: not said.
}

std::size_t bytes_of(const Item& item) {
  return item.ids.empty() ? item.text.size() : item.ids.size() * sizeof(std::int32_t);
}

// The items from `first` on that go into one request; at least one.
protocol::ItemBlock block_from(const std::vector<Item>& items, std::size_t first) {
  protocol::ItemBlock block;
  for (std::size_t i = first; i < items.size(); ++i) {
    const std::size_t bytes = bytes_of(items[i]);
    if (!block.sizes.empty() && (block.sizes.size() >= kRequestItemsMax ||
                                 block.payload.size() + bytes > kRequestBytesMax)) {
      break;
    }
    if (items[i].ids.empty()) {
      append_text(block, bytes > protocol::kTextBytesMax ? std::string_view() : items[i].text);
    } else {
      append_token_ids(block, items[i].ids);
    }
  }
  return block;
}

void append_results(const protocol::ResultBlock& block, EmbedResult& all) {
  std::size_t row = 0;
  const std::size_t first = all.items.size();
  for (std::size_t i = 0; i < block.codes.size(); ++i) {
    ItemResult item;
    item.error.code = static_cast<ErrorCode>(block.codes[i]);
    item.tokens = block.token_counts.empty() ? 0 : block.token_counts[i];
    item.tokens_cut = block.tokens_cut.empty() ? 0 : block.tokens_cut[i];
    if (item.ok()) {
      item.vector = row_as_floats(block, row++);
    }
    all.items.push_back(std::move(item));
  }
  for (const protocol::ItemError& error : block.errors) {
    all.items[first + error.index].error.message = error.message;
  }
  all.dimensions = block.dimensions;
  all.cache_hits += block.cache_hits;
  all.cache_joins += block.cache_joins;
  all.cache_misses += block.cache_misses;
}

// Items that no message may carry were sent as empty texts; they get their true error here.
void mark_oversized(const std::vector<Item>& items, EmbedResult& all) {
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (bytes_of(items[i]) > protocol::kTextBytesMax) {
      all.items[i] = ItemResult{.error = {ErrorCode::kTooLong, "the text is longer than 4 MiB"}};
    }
  }
}

}  // namespace

Client::Client(ClientOptions options)
    : connection_(std::make_shared<Connection>(std::move(options))) {}
Client::~Client() = default;
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;

Result<protocol::ServerHello> Client::connect(milliseconds timeout) {
  return connection_->wait_ready(timeout);
}

bool Client::connected() const { return connection_->ready(); }

Result<EmbedResult> Client::embed(const std::vector<Item>& items, const protocol::EmbedSpec& spec,
                                  milliseconds timeout, protocol::Lane lane) {
  struct InFlight {
    std::size_t items;
    std::future<RequestTable::Reply> reply;
  };
  std::deque<InFlight> waiting;
  EmbedResult all;
  all.items.reserve(items.size());
  for (std::size_t sent = 0; sent < items.size() || !waiting.empty();) {
    while (sent < items.size() && waiting.size() < kRequestsInFlightMax) {
      protocol::EmbedRequest request{.request_id = connection_->next_request_id(),
                                     .spec = spec,
                                     .lane = lane,
                                     .deadline_ms = static_cast<std::uint32_t>(timeout.count()),
                                     .items = block_from(items, sent)};
      const std::size_t count = request.items.sizes.size();
      const std::uint64_t id = request.request_id;
      waiting.push_back({count, connection_->call(id, std::move(request), timeout)});
      sent += count;
    }
    auto reply = waiting.front().reply.get();
    if (!reply) {
      return reply.error();
    }
    auto* answer = std::get_if<protocol::EmbedReply>(&*reply);
    if (answer == nullptr) {
      return kUnexpectedAnswer;
    }
    if (auto fits = check_results(answer->results, waiting.front().items); !fits) {
      return fits.error();
    }
    append_results(answer->results, all);
    waiting.pop_front();
  }
  mark_oversized(items, all);
  return all;
}

Result<Job> Client::open_job(const protocol::OpenJob& open, milliseconds timeout) {
  protocol::OpenJob opening = open;
  opening.opener = random_opener();
  auto state = connection_->add_job(opening);
  std::optional<Error> failure;
  const auto settled = [&] {
    failure = state->failure();
    return failure || state->was_opened();
  };
  bool opened = connection_->wait(timeout, settled);
  while (!opened && timeout.count() == 0) {
    opened = connection_->wait(std::chrono::seconds(1), settled);
  }
  // A job that is known to be cancelled is still a job: the caller sees it at the first use.
  if (opened && (!failure || failure->code == ErrorCode::kCancelled)) {
    return Job(connection_, std::move(state));
  }
  connection_->forget(state);
  return failure ? *failure
                 : Error{ErrorCode::kDeadlineExceeded, "the coordinator did not open the job"};
}

Result<protocol::StatusReply> Client::status(const std::string& job_id, milliseconds timeout) {
  const std::uint64_t id = connection_->next_request_id();
  auto reply =
      connection_->call(id, protocol::StatusRequest{.request_id = id, .job_id = job_id}, timeout)
          .get();
  if (!reply) {
    return reply.error();
  }
  auto* status = std::get_if<protocol::StatusReply>(&*reply);
  return status != nullptr ? Result<protocol::StatusReply>(std::move(*status)) : kUnexpectedAnswer;
}

Result<protocol::JobProgress> Client::cancel(const std::string& job_id, milliseconds timeout) {
  const std::uint64_t id = connection_->next_request_id();
  auto reply =
      connection_->call(id, protocol::CancelJob{.request_id = id, .job_id = job_id}, timeout).get();
  if (!reply) {
    return reply.error();
  }
  auto* update = std::get_if<protocol::JobUpdate>(&*reply);
  return update != nullptr ? Result<protocol::JobProgress>(update->progress) : kUnexpectedAnswer;
}

template <typename Question>
Result<protocol::RecordsReply> Client::ask_for_records(Question question, milliseconds timeout) {
  const std::uint64_t id = connection_->next_request_id();
  question.request_id = id;
  auto reply = connection_->call(id, std::move(question), timeout).get();
  if (!reply) {
    return reply.error();
  }
  auto* records = std::get_if<protocol::RecordsReply>(&*reply);
  return records != nullptr ? Result<protocol::RecordsReply>(std::move(*records))
                            : kUnexpectedAnswer;
}

Result<protocol::RecordsReply> Client::put_record(protocol::RecordPut put, milliseconds timeout) {
  return ask_for_records(std::move(put), timeout);
}

Result<protocol::RecordsReply> Client::query_records(protocol::RecordQuery query,
                                                     milliseconds timeout) {
  return ask_for_records(std::move(query), timeout);
}

Result<protocol::RecordsReply> Client::claim_record(protocol::RecordClaim claim,
                                                    milliseconds timeout) {
  return ask_for_records(std::move(claim), timeout);
}

Result<protocol::RecordsReply> Client::delete_record(protocol::RecordDelete request,
                                                     milliseconds timeout) {
  return ask_for_records(std::move(request), timeout);
}

}  // namespace tessera::client
