#include "clients/gateway/http/request_parser.hpp"

#include <algorithm>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>

#include "common/check.hpp"

namespace tessera::gateway::http {

namespace beast = boost::beast;
namespace bhttp = boost::beast::http;
using beast::error_code;

namespace {

std::string_view view(beast::string_view text) { return {text.data(), text.size()}; }

Method method_of(bhttp::verb verb) {
  switch (verb) {
    case bhttp::verb::get:
      return Method::kGet;
    case bhttp::verb::head:
      return Method::kHead;
    case bhttp::verb::post:
      return Method::kPost;
    case bhttp::verb::put:
      return Method::kPut;
    case bhttp::verb::patch:
      return Method::kPatch;
    case bhttp::verb::delete_:
      return Method::kDelete;
    case bhttp::verb::options:
      return Method::kOptions;
    default:
      return Method::kOther;
  }
}

// Whether each LF has its CR; one at the very beginning has it before `text`, unless that is all.
bool lines_end_well(std::string_view text, bool is_all) {
  for (std::size_t at = text.find('\n'); at != std::string_view::npos;
       at = text.find('\n', at + 1)) {
    if (at == 0 ? is_all : text[at - 1] != '\r') {
      return false;
    }
  }
  return true;
}

}  // namespace

class RequestParser::Impl : public bhttp::basic_parser<true> {
 public:
  Request request;
  std::string* out = nullptr;
  std::size_t out_max = 0;
  int transfer_encodings = 0;
  int lengths = 0;
  bool plain_encoding = true;  // Each Transfer-Encoding was "chunked" and nothing else.
  bool head_done = false;
  std::string refused;  // What this server does not take, a sentence.

 private:
  void refuse(const char* why, error_code& ec) {
    refused = why;
    ec = bhttp::error::bad_value;
  }
  void on_request_impl(bhttp::verb verb, beast::string_view /*method*/, beast::string_view target,
                       int version, error_code& /*ec*/) override {
    request.method = method_of(verb);
    request.target.assign(target.data(), target.size());
    request.http_1_0 = version == 10;
  }
  void on_response_impl(int /*code*/, beast::string_view /*reason*/, int /*version*/,
                        error_code& /*ec*/) override {}
  void on_field_impl(bhttp::field field, beast::string_view name, beast::string_view value,
                     error_code& ec) override {
    if (head_done) {
      return refuse("fields behind the body (trailers) are not taken", ec);
    }
    if (field == bhttp::field::transfer_encoding) {
      ++transfer_encodings;
      plain_encoding = plain_encoding && beast::iequals(value, "chunked");
    }
    lengths += field == bhttp::field::content_length ? 1 : 0;
    request.headers.add(view(name), view(value));
  }
  void on_header_impl(error_code& /*ec*/) override { head_done = true; }
  void on_body_init_impl(const boost::optional<std::uint64_t>& /*length*/,
                         error_code& /*ec*/) override {}
  std::size_t take(beast::string_view body) {
    const std::size_t n = std::min(body.size(), out_max - std::min(out_max, out->size()));
    out->append(body.data(), n);
    return n;
  }
  std::size_t on_body_impl(beast::string_view body, error_code& /*ec*/) override {
    return take(body);
  }
  void on_chunk_header_impl(std::uint64_t /*size*/, beast::string_view extensions,
                            error_code& ec) override {
    if (!extensions.empty()) {
      refuse("chunk extensions are not taken", ec);
    }
  }
  std::size_t on_chunk_body_impl(std::uint64_t /*left*/, beast::string_view body,
                                 error_code& /*ec*/) override {
    return take(body);
  }
  void on_finish_impl(error_code& /*ec*/) override {}
};

RequestParser::RequestParser(const Limits& limits)
    : limits_(limits), impl_(std::make_unique<Impl>()) {
  // Both limits are kept here: the head's before it is parsed, the body's by its owner.
  impl_->header_limit(static_cast<std::uint32_t>(limits.head_bytes) + 1);
  impl_->body_limit(boost::none);
}
RequestParser::~RequestParser() = default;
RequestParser::RequestParser(RequestParser&&) noexcept = default;
RequestParser& RequestParser::operator=(RequestParser&&) noexcept = default;

Request& RequestParser::request() { return impl_->request; }

RequestParser::State RequestParser::bad(int status, std::string message) {
  problem_ = {.status = status, .code = "bad_request", .message = std::move(message)};
  return State::kBad;
}

RequestParser::State RequestParser::read_head(std::string_view bytes, std::size_t& used) {
  used = 0;
  const std::size_t from = looked_at_ > 3 ? looked_at_ - 3 : 0;
  const std::size_t end = bytes.find("\r\n\r\n", from);
  looked_at_ = bytes.size();
  if (std::min(end, bytes.size()) > limits_.head_bytes) {
    return bad(
        431, "the request's head is longer than " + std::to_string(limits_.head_bytes) + " bytes");
  }
  if (end == std::string_view::npos) {
    // A head that can never end this way is told at once instead of at its time-out.
    return lines_end_well(bytes.substr(from), from == 0)
               ? State::kNeedMore
               : bad(400, "lines of a request end with CR LF");
  }
  const std::string_view head = bytes.substr(0, end + 4);
  if (!head_is_sound(head)) {
    return State::kBad;
  }
  error_code ec;
  impl_->put(boost::asio::const_buffer(head.data(), head.size()), ec);
  if (ec || !impl_->is_header_done()) {
    const bool version = ec == bhttp::error::bad_version;
    return bad(version ? 505 : 400, !impl_->refused.empty()
                                        ? impl_->refused
                                        : "the request is not HTTP/1.1: " + ec.message());
  }
  used = head.size();
  const Headers& headers = impl_->request.headers;
  if (impl_->lengths > 1 || (impl_->lengths == 1 && impl_->transfer_encodings > 0)) {
    return bad(400, "the request states its length twice");
  }
  if (impl_->transfer_encodings > 1 || !impl_->plain_encoding) {
    return bad(501, "the only Transfer-Encoding taken is chunked");
  }
  if (impl_->transfer_encodings == 1 && impl_->request.http_1_0) {
    return bad(400, "HTTP/1.0 has no chunked bodies");
  }
  if (headers.count("host") > 1 || (headers.count("host") == 0 && !impl_->request.http_1_0)) {
    return bad(400, "a request names its host once");
  }
  const std::string_view expect = headers.get("expect");
  if (!expect.empty() &&
      !beast::iequals(beast::string_view(expect.data(), expect.size()), "100-continue")) {
    return bad(417, "the only expectation met is 100-continue");
  }
  facts_ = {.length = std::nullopt,
            .has_body = !impl_->is_done(),
            .keep_alive = impl_->keep_alive(),
            .expects_continue = !expect.empty() && !impl_->request.http_1_0};
  if (impl_->content_length()) {
    facts_.length = *impl_->content_length();
  }
  return State::kDone;
}

// What Beast would let pass and another server may read otherwise.
bool RequestParser::head_is_sound(std::string_view head) {
  if (!lines_end_well(head, true)) {
    bad(400, "lines of a request end with CR LF");
    return false;
  }
  if (head.find("\n ") != std::string_view::npos || head.find("\n\t") != std::string_view::npos) {
    bad(400, "a header field is one line");
    return false;
  }
  if (head.find('\0') != std::string_view::npos) {
    bad(400, "the request's head holds a NUL byte");
    return false;
  }
  return true;
}

RequestParser::State RequestParser::read_body(std::string_view bytes, std::size_t& used,
                                              std::string& out, std::size_t out_max) {
  used = 0;
  impl_->out = &out;
  impl_->out_max = out_max;
  while (!impl_->is_done() && used < bytes.size() && out.size() < out_max) {
    error_code ec;
    const std::string_view rest = bytes.substr(used);
    const std::size_t taken = impl_->put(boost::asio::const_buffer(rest.data(), rest.size()), ec);
    used += taken;
    if (ec == bhttp::error::need_more) {
      return State::kNeedMore;
    }
    if (ec) {
      return bad(400, !impl_->refused.empty() ? impl_->refused
                                              : "the request's body is broken: " + ec.message());
    }
  }
  return impl_->is_done() ? State::kDone : State::kNeedMore;
}

}  // namespace tessera::gateway::http
