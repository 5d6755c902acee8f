#include <sodium.h>

#include <array>
#include <memory>

#include "clients/gateway/api/errors.hpp"
#include "clients/gateway/api/services.hpp"
#include "clients/gateway/page/page_feed.hpp"
#include "common/check.hpp"

// The page at "/", and what it listens to.
namespace tessera::gateway {

extern const std::string_view kPageHtml;  // page.html, compiled in.

namespace {

// 'sha256-...' of what stands between the page's only pair of such tags.
std::string source_hash(std::string_view tag) {
  const std::string open = std::string("<").append(tag).append(">");
  const std::string close = std::string("</").append(tag).append(">");
  const std::size_t begin = kPageHtml.find(open);
  const std::size_t end = kPageHtml.find(close);
  CHECK(begin != std::string_view::npos && end != std::string_view::npos);
  const std::string_view text = kPageHtml.substr(begin + open.size(), end - begin - open.size());
  std::array<unsigned char, crypto_hash_sha256_BYTES> digest{};
  crypto_hash_sha256(digest.data(), reinterpret_cast<const unsigned char*>(text.data()),
                     text.size());
  std::array<char, 64> base64{};
  sodium_bin2base64(base64.data(), base64.size(), digest.data(), digest.size(),
                    sodium_base64_VARIANT_ORIGINAL);
  return std::string("'sha256-").append(base64.data()).append("'");
}

// Nothing but the page's own script and style runs, whatever a job's name says, and it speaks to
// this server only.
std::string content_security_policy() {
  return "default-src 'none'; script-src " + source_hash("script") + "; style-src " +
         source_hash("style") +
         "; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
         "frame-ancestors 'none'";
}

void add_page_headers(http::Headers& headers, const std::string& policy) {
  headers.add("content-security-policy", policy);
  headers.add("x-content-type-options", "nosniff");
  headers.add("referrer-policy", "no-referrer");
  headers.add("cache-control", "no-cache");
}

}  // namespace

void add_page_routes(http::Router& router, Services& services) {
  router.add({.pattern = "/",
              .handler = [policy = content_security_policy()](const http::ExchangePtr& exchange) {
                http::Response response;
                response.content_type = "text/html; charset=utf-8";
                add_page_headers(response.headers, policy);
                response.body = kPageHtml;
                exchange->respond(std::move(response));
              }});
  const auto feed = std::make_shared<PageFeed>(services);
  router.add(
      {.pattern = "/events", .handler = [feed](const http::ExchangePtr& exchange) {
         http::Response response;
         response.source = feed->open();
         if (response.source == nullptr) {
           return exchange->respond(respond_to_problem(
               http::Family::kPlain, {.status = 503,
                                      .code = "too_many_viewers",
                                      .message = "as many as may look at the page do so already",
                                      .retry_after = std::chrono::seconds(10)}));
         }
         response.content_type = "text/event-stream";
         response.headers.add("cache-control", "no-store");
         response.headers.add("x-accel-buffering", "no");
         exchange->respond(std::move(response));
       }});
}

}  // namespace tessera::gateway
