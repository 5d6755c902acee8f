#include <algorithm>
#include <chrono>
#include <ctime>

#include "clients/gateway/api/errors.hpp"
#include "clients/gateway/api/services.hpp"
#include "clients/gateway/batches/batch_request.hpp"
#include "clients/gateway/files/file_store.hpp"
#include "clients/gateway/files/file_thread.hpp"
#include "clients/gateway/http/request_id.hpp"
#include "common/whole_number.hpp"

// /v1/batches: OpenAI's form. Batches are records that the coordinator keeps, so any gateway
// answers for any of them; who works on one is BatchRunner's matter.
namespace tessera::gateway {

using http::ExchangePtr;
using http::Problem;

namespace {

constexpr std::chrono::milliseconds kAnswerWait{15'000};
constexpr std::uint32_t kPageMax = 100;
constexpr std::uint32_t kPage = 20;
constexpr int kCancelTries = 8;

using Records = std::variant<protocol::RecordsReply, protocol::ErrorReply>;
using RecordsDone = std::function<void(Records)>;

void refuse(const ExchangePtr& exchange, const Problem& problem) {
  exchange->respond(respond_to_problem(http::Family::kOpenAi, problem));
}

Problem problem_of_reply(const protocol::ErrorReply& error) {
  return problem_of(error.code, error.message, std::chrono::milliseconds(error.retry_after_ms));
}

Problem no_batch(const std::string& id) {
  return {.status = 404,
          .code = "not_found",
          .message = "no batch has the id " + id.substr(0, 100),
          .param = "batch_id"};
}

template <typename Question>
void ask(Services& services, Question question, RecordsDone done) {
  services.link.ask(
      [question = std::move(question)](std::uint64_t id) {
        Question asked = question;
        asked.request_id = id;
        return protocol::Message(std::move(asked));
      },
      kAnswerWait,
      [done = std::move(done)](std::variant<protocol::Message, protocol::ErrorReply> got) {
        if (auto* error = std::get_if<protocol::ErrorReply>(&got)) {
          return done(std::move(*error));
        }
        if (auto* reply = std::get_if<protocol::RecordsReply>(&std::get<protocol::Message>(got))) {
          return done(std::move(*reply));
        }
        done(protocol::ErrorReply{.code = ErrorCode::kInternal,
                                  .message = "the coordinator gave an unexpected answer"});
      });
}

// The records of a reply, those that are no batches left out.
std::vector<BatchRecord> batches_of(const protocol::RecordsReply& reply) {
  std::vector<BatchRecord> batches;
  std::vector<std::string> contents = contents_of(reply);
  for (std::size_t i = 0; i < contents.size(); ++i) {
    if (auto batch = batch_of(reply.records[i], std::move(contents[i]))) {
      batches.push_back(std::move(*batch));
    }
  }
  return batches;
}

// A batch of the caller's and its version, or the problem.
struct Found {
  BatchRecord batch;
  std::uint64_t version = 0;
};
void find(Services& services, const ExchangePtr& exchange, const std::string& id,
          std::function<void(std::variant<Found, Problem>)> done) {
  if (!id.starts_with(kBatchIdPrefix) || id.size() > protocol::kNameBytesMax) {
    return done(no_batch(id));
  }
  ask(services, protocol::RecordQuery{.tenant = exchange->request().caller.tenant, .id = id},
      [id, done = std::move(done)](Records got) {
        if (const auto* error = std::get_if<protocol::ErrorReply>(&got)) {
          return done(error->code == ErrorCode::kNotFound ? no_batch(id)
                                                          : problem_of_reply(*error));
        }
        const auto& reply = std::get<protocol::RecordsReply>(got);
        auto batches = batches_of(reply);
        if (batches.size() != 1) {
          return done(no_batch(id));
        }
        done(Found{std::move(batches.front()), reply.records.front().version});
      });
}

// Without a folder for files the routes are not offered, which the page takes as an answer.
bool offered(const Services& services, const ExchangePtr& exchange) {
  if (services.files != nullptr) {
    return true;
  }
  refuse(exchange, {.status = 404,
                    .code = "not_found",
                    .message = "batches are not offered here: the gateway was started without "
                               "--files",
                    .param = {}});
  return false;
}

// POST /v1/batches

void put_new(Services& services, const ExchangePtr& exchange, const BatchRecord& batch) {
  ask(services, put_of(batch, 0), [&services, exchange, batch](Records got) {
    const auto* error = std::get_if<protocol::ErrorReply>(&got);
    // The id is ours alone: a conflict is our own message that was asked twice.
    if (error != nullptr && error->code != ErrorCode::kConflict) {
      return refuse(exchange, problem_of_reply(*error));
    }
    if (services.batch_added) {
      services.batch_added();
    }
    exchange->respond(json_response(public_json(batch)));
  });
}

void create_with_file(Services& services, const ExchangePtr& exchange, BatchRecord batch,
                      const Result<FileInfo>& file) {
  if (!file) {
    Problem problem = problem_of(file.error().code, "input_file_id " + file.error().message);
    if (file.error().code == ErrorCode::kNotFound) {
      problem = invalid_value("input_file_id", "is no file of yours");
    }
    return refuse(exchange, problem);
  }
  if (file->purpose != "batch") {
    return refuse(exchange, invalid_value("input_file_id", "is not of purpose \"batch\""));
  }
  const http::Caller& caller = exchange->request().caller;
  batch.id = std::string(kBatchIdPrefix) + http::random_hex(16);
  batch.tenant = caller.tenant;
  batch.created_at = std::time(nullptr);
  batch.expires_at = batch.created_at + window_seconds(batch.completion_window).value_or(0);
  batch.tokens_per_minute = caller.tokens_per_minute;
  put_new(services, exchange, batch);
}

void create(Services& services, const ExchangePtr& exchange) {
  if (!offered(services, exchange)) {
    return;
  }
  auto read = read_batch_request(exchange->request().body);
  if (const auto* problem = std::get_if<Problem>(&read)) {
    return refuse(exchange, *problem);
  }
  auto batch = std::make_shared<BatchRecord>(std::move(std::get<BatchRecord>(read)));
  on_file_thread(
      services,
      [files = services.files, tenant = exchange->request().caller.tenant,
       id = batch->input_file_id] { return files->find(tenant, id); },
      [&services, exchange, batch](const Result<FileInfo>& file) {
        create_with_file(services, exchange, std::move(*batch), file);
      });
}

// GET

void get_one(Services& services, const ExchangePtr& exchange) {
  if (!offered(services, exchange)) {
    return;
  }
  find(services, exchange, std::string(exchange->request().path_value("id")),
       [exchange](const std::variant<Found, Problem>& found) {
         if (const auto* problem = std::get_if<Problem>(&found)) {
           return refuse(exchange, *problem);
         }
         exchange->respond(json_response(public_json(std::get<Found>(found).batch)));
       });
}

std::optional<std::uint32_t> page_size(const http::Request& request) {
  const auto text = request.query_value("limit");
  if (!text) {
    return kPage;
  }
  const auto limit = whole_number<std::uint32_t>(*text);
  return limit && *limit >= 1 && *limit <= kPageMax ? limit : std::nullopt;
}

void list(Services& services, const ExchangePtr& exchange) {
  if (!offered(services, exchange)) {
    return;
  }
  const http::Request& request = exchange->request();
  const auto limit = page_size(request);
  if (!limit) {
    return refuse(exchange, invalid_value("limit", "must be 1 to 100"));
  }
  protocol::RecordQuery query{.tenant = request.caller.tenant,
                              .prefix = std::string(kBatchIdPrefix),
                              .after = std::string(request.query_value("after").value_or("")),
                              .limit = *limit};
  ask(services, std::move(query), [exchange](const Records& got) {
    if (const auto* error = std::get_if<protocol::ErrorReply>(&got)) {
      return refuse(exchange, error->code == ErrorCode::kNotFound
                                  ? invalid_value("after", "is no batch of yours")
                                  : problem_of_reply(*error));
    }
    const auto& reply = std::get<protocol::RecordsReply>(got);
    exchange->respond(json_response(batch_list_json(batches_of(reply), reply.more)));
  });
}

// cancel

void cancel(Services& services, const ExchangePtr& exchange, const std::string& id, int tries) {
  find(services, exchange, id, [&services, exchange, id, tries](std::variant<Found, Problem> got) {
    if (const auto* problem = std::get_if<Problem>(&got)) {
      return refuse(exchange, *problem);
    }
    auto& found = std::get<Found>(got);
    const auto changed = request_cancel(found.batch, std::time(nullptr));
    if (!changed) {
      return refuse(exchange, problem_of(changed.error().code, changed.error().message));
    }
    if (!*changed) {
      return exchange->respond(json_response(public_json(found.batch)));
    }
    ask(services, put_of(found.batch, found.version),
        [&services, exchange, id, tries, batch = found.batch](const Records& put) {
          const auto* error = std::get_if<protocol::ErrorReply>(&put);
          if (error == nullptr) {
            return exchange->respond(json_response(public_json(batch)));
          }
          if (error->code == ErrorCode::kConflict && tries > 1) {
            return cancel(services, exchange, id, tries - 1);  // Its runner was faster.
          }
          refuse(exchange, problem_of_reply(*error));
        });
  });
}

}  // namespace

void add_batch_routes(http::Router& router, Services& services) {
  const auto add = [&](http::Method method, std::string pattern,
                       void (*handler)(Services&, const ExchangePtr&), http::Route::Body body) {
    router.add({.method = method,
                .pattern = std::move(pattern),
                .family = http::Family::kOpenAi,
                .handler = [&services, handler](const ExchangePtr& e) { handler(services, e); },
                .body = body});
  };
  add(http::Method::kPost, "/v1/batches", create, http::Route::Body::kWhole);
  add(http::Method::kGet, "/v1/batches", list, http::Route::Body::kNone);
  add(http::Method::kGet, "/v1/batches/{id}", get_one, http::Route::Body::kNone);
  add(
      http::Method::kPost, "/v1/batches/{id}/cancel",
      [](Services& s, const ExchangePtr& e) {
        if (offered(s, e)) {
          cancel(s, e, std::string(e->request().path_value("id")), kCancelTries);
        }
      },
      http::Route::Body::kWhole);
}

}  // namespace tessera::gateway
