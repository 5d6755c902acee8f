#include <algorithm>
#include <atomic>

#include "clients/gateway/api/errors.hpp"
#include "clients/gateway/api/services.hpp"
#include "clients/gateway/encoding/json_object.hpp"
#include "clients/gateway/files/file_body.hpp"
#include "clients/gateway/files/file_info.hpp"
#include "clients/gateway/files/file_thread.hpp"
#include "clients/gateway/files/upload.hpp"
#include "common/whole_number.hpp"

// /v1/files: OpenAI's form. What touches the disk runs on the file thread, which the loop waits for
// without standing still.
namespace tessera::gateway {

using http::ExchangePtr;
using http::Problem;
using Part = http::Exchange::BodyPart;

namespace {

constexpr std::size_t kPageMax = 10'000;
// Uploads and downloads of one loop at a time: each holds a descriptor.
constexpr int kOpenFilesMax = 64;
// Of a refused upload, what is taken and thrown away before the answer: many clients read it only
// when they have sent everything, and a closed connection would take it with it.
constexpr std::size_t kThrownAwayMax = 256U << 20;

void refuse(const ExchangePtr& exchange, const Problem& problem) {
  exchange->respond(respond_to_problem(http::Family::kOpenAi, problem));
}

// The right to an open file; given back on whichever thread its holder ends.
class OpenFiles : public std::enable_shared_from_this<OpenFiles> {
 public:
  using Lease = std::shared_ptr<OpenFiles>;
  // Empty when there are too many.
  Lease take() {
    if (count_.fetch_add(1) >= kOpenFilesMax) {
      count_.fetch_sub(1);
      return nullptr;
    }
    return {this, [self = shared_from_this()](OpenFiles*) { self->count_.fetch_sub(1); }};
  }

 private:
  std::atomic<int> count_ = 0;
};

Problem too_many() {
  return {.status = 503,
          .code = "overloaded",
          .message = "too many files are being sent and fetched",
          .param = {},
          .retry_after = std::chrono::seconds(1),
          .should_retry = true};
}

// POST /v1/files

struct Uploading {
  Services& services;
  ExchangePtr exchange;
  OpenFiles::Lease lease;
  std::unique_ptr<Upload> upload;
  std::optional<Problem> problem;  // The rest of the body is thrown away.
  std::size_t thrown_away = 0;
};
using UploadingPtr = std::shared_ptr<Uploading>;

void read_on(const UploadingPtr& it);

// Its half-written file is the file thread's to remove.
void abandon(const UploadingPtr& it) {
  it->services.file_thread->post([it] { it->upload.reset(); });
}

void finish_upload(const UploadingPtr& it) {
  on_file_thread(
      it->services,
      [it] {
        auto result = it->upload->finish();
        it->upload.reset();
        return result;
      },
      [it](std::variant<FileInfo, Problem> result) {
        if (const auto* problem = std::get_if<Problem>(&result)) {
          return refuse(it->exchange, *problem);
        }
        it->exchange->respond(json_response(file_json(std::get<FileInfo>(result))));
      });
}

void throw_away(const UploadingPtr& it, const Part& part) {
  it->thrown_away += part.data.size();
  if (part.kind == Part::Kind::kData && it->thrown_away < kThrownAwayMax) {
    return read_on(it);
  }
  refuse(it->exchange, *it->problem);
}

void take_part(const UploadingPtr& it, Part part) {
  if (part.kind == Part::Kind::kFailed) {
    return abandon(it);
  }
  if (it->problem) {
    return throw_away(it, part);
  }
  if (part.kind == Part::Kind::kEnd) {
    return finish_upload(it);
  }
  on_file_thread(
      it->services,
      [it, data = std::move(part.data)] {
        auto problem = it->upload->feed(data);
        if (problem) {
          it->upload.reset();
        }
        return problem;
      },
      [it](std::optional<Problem> problem) {
        it->problem = std::move(problem);
        read_on(it);
      });
}

void read_on(const UploadingPtr& it) {
  it->exchange->read_body([it](Part part) { take_part(it, std::move(part)); });
}

void upload(Services& services, OpenFiles& open, const ExchangePtr& exchange) {
  const http::Request& request = exchange->request();
  const auto boundary = multipart_boundary(request.headers.get("content-type"));
  if (!boundary) {
    return refuse(exchange, file_problem(boundary.error()));
  }
  auto lease = open.take();
  if (!lease) {
    return refuse(exchange, too_many());
  }
  read_on(std::make_shared<Uploading>(Uploading{
      .services = services,
      .exchange = exchange,
      .lease = std::move(lease),
      .upload = std::make_unique<Upload>(*services.files, request.caller.tenant, *boundary)}));
}

// GET /v1/files

std::variant<FileQuery, Problem> query_of(const http::Request& request) {
  FileQuery query{.purpose = std::string(request.query_value("purpose").value_or("")),
                  .after = std::string(request.query_value("after").value_or("")),
                  .limit = kPageMax};
  if (const auto text = request.query_value("limit")) {
    query.limit = whole_number<std::size_t>(*text).value_or(0);
    if (query.limit < 1 || query.limit > kPageMax) {
      return invalid_value("limit", "must be a whole number of 1 to 10000");
    }
  }
  const auto order = request.query_value("order").value_or("desc");
  if (order != "asc" && order != "desc") {
    return invalid_value("order", "must be asc or desc");
  }
  query.ascending = order == "asc";
  return query;
}

std::string page_json(const FilePage& page) {
  const auto& files = page.files;
  return json_page(json_array(files, file_json), files.empty() ? "" : files.front().id,
                   files.empty() ? "" : files.back().id, page.more);
}

void list(Services& services, const ExchangePtr& exchange) {
  auto query = query_of(exchange->request());
  if (const auto* problem = std::get_if<Problem>(&query)) {
    return refuse(exchange, *problem);
  }
  on_file_thread(
      services,
      [files = services.files, tenant = exchange->request().caller.tenant,
       query = std::get<FileQuery>(query)]() -> Result<std::string> {
        const auto page = files->list(tenant, query);
        return page ? Result<std::string>(page_json(*page)) : page.error();
      },
      [exchange](Result<std::string> json) {
        if (!json) {
          Problem problem = file_problem(json.error());
          problem.param = "after";
          return refuse(exchange, problem);
        }
        exchange->respond(json_response(std::move(*json)));
      });
}

// one file

std::string id_of(const ExchangePtr& exchange) {
  return std::string(exchange->request().path_value("id"));
}

void retrieve(Services& services, const ExchangePtr& exchange) {
  on_file_thread(
      services,
      [files = services.files, tenant = exchange->request().caller.tenant, id = id_of(exchange)] {
        return files->find(tenant, id);
      },
      [exchange](const Result<FileInfo>& info) {
        info ? exchange->respond(json_response(file_json(*info)))
             : refuse(exchange, file_problem(info.error()));
      });
}

void remove(Services& services, const ExchangePtr& exchange) {
  on_file_thread(
      services,
      [files = services.files, tenant = exchange->request().caller.tenant, id = id_of(exchange)] {
        return files->remove(tenant, id);
      },
      [exchange](const Result<void>& done) {
        done ? exchange->respond(json_response(R"({"id":)" + json_string(id_of(exchange)) +
                                               R"(,"object":"file","deleted":true})"))
             : refuse(exchange, file_problem(done.error()));
      });
}

struct Opened {
  OpenFile file;
  std::uint64_t bytes = 0;
};

Result<Opened> open_content(const FileStore& files, const std::string& tenant,
                            const std::string& id) {
  const auto info = files.find(tenant, id);
  if (!info) {
    return info.error();
  }
  const auto path = files.path_of(*info);
  auto file = open_to_read(path);
  if (!file) {  // Deleted just now.
    return file.error().code == ErrorCode::kNotFound
               ? Error{ErrorCode::kNotFound, "there is no file " + id}
               : file.error();
  }
  const auto bytes = size_of(*file, path);
  return bytes ? Result<Opened>(Opened{.file = std::move(*file), .bytes = *bytes}) : bytes.error();
}

// Keeps its lease as long as the answer is being written.
class LeasedBody : public FileBody {
 public:
  LeasedBody(Opened opened, OpenFiles::Lease lease)
      : FileBody(std::move(opened.file), opened.bytes), lease_(std::move(lease)) {}

 private:
  OpenFiles::Lease lease_;
};

void content(Services& services, OpenFiles& open, const ExchangePtr& exchange) {
  auto lease = open.take();
  if (!lease) {
    return refuse(exchange, too_many());
  }
  on_file_thread(
      services,
      [files = services.files, tenant = exchange->request().caller.tenant, id = id_of(exchange)] {
        return open_content(*files, tenant, id);
      },
      [exchange, lease = std::move(lease)](Result<Opened> opened) {
        if (!opened) {
          return refuse(exchange, file_problem(opened.error()));
        }
        http::Response response{.content_type = "application/octet-stream"};
        response.headers.add("content-disposition", "attachment");
        response.headers.add("x-content-type-options", "nosniff");
        response.source = std::make_unique<LeasedBody>(std::move(*opened), lease);
        exchange->respond(std::move(response));
      });
}

void not_offered(const ExchangePtr& exchange) {
  refuse(exchange, {.status = 404,
                    .code = "not_found",
                    .message = "this server keeps no files: it was started without --files DIR",
                    .param = {}});
}

}  // namespace

void add_file_routes(http::Router& router, Services& services) {
  const auto open = std::make_shared<OpenFiles>();
  const auto add = [&](http::Method method, const char* pattern, http::Handler handler) {
    router.add({.method = method,
                .pattern = pattern,
                .family = http::Family::kOpenAi,
                .handler = services.files != nullptr ? std::move(handler) : not_offered,
                .body = method == http::Method::kPost ? http::Route::Body::kStreamed
                                                      : http::Route::Body::kNone});
  };
  add(http::Method::kPost, "/v1/files",
      [&services, open](const ExchangePtr& e) { upload(services, *open, e); });
  add(http::Method::kGet, "/v1/files", [&services](const ExchangePtr& e) { list(services, e); });
  add(http::Method::kGet, "/v1/files/{id}",
      [&services](const ExchangePtr& e) { retrieve(services, e); });
  add(http::Method::kDelete, "/v1/files/{id}",
      [&services](const ExchangePtr& e) { remove(services, e); });
  add(http::Method::kGet, "/v1/files/{id}/content",
      [&services, open](const ExchangePtr& e) { content(services, *open, e); });
}

}  // namespace tessera::gateway
