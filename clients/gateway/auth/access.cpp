#include "clients/gateway/auth/access.hpp"

#include <sodium.h>

#include <algorithm>
#include <cctype>

namespace tessera::gateway {

using http::Problem;

namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

// The value behind "Scheme ", whatever the scheme's case.
std::optional<std::string_view> credentials(std::string_view header, std::string_view scheme) {
  if (header.size() <= scheme.size() || header[scheme.size()] != ' ' ||
      lower(header.substr(0, scheme.size())) != scheme) {
    return std::nullopt;
  }
  header.remove_prefix(scheme.size() + 1);
  header.remove_prefix(std::min(header.find_first_not_of(' '), header.size()));
  return header;
}

// The password of "user:password" in base64.
std::string basic_password(std::string_view encoded) {
  std::string decoded(encoded.size(), '\0');
  std::size_t length = 0;
  if (sodium_base642bin(reinterpret_cast<unsigned char*>(decoded.data()), decoded.size(),
                        encoded.data(), encoded.size(), nullptr, &length, nullptr,
                        sodium_base64_VARIANT_ORIGINAL) != 0) {
    return {};
  }
  decoded.resize(length);
  const std::size_t colon = decoded.find(':');
  return colon == std::string::npos ? std::string() : decoded.substr(colon + 1);
}

std::string origin_host(std::string_view origin) {
  const std::size_t scheme = origin.find("://");
  return scheme == std::string_view::npos ? std::string() : host_of(origin.substr(scheme + 3));
}

Problem forbidden(std::string message) {
  return {.status = 403, .code = "forbidden", .message = std::move(message), .param = {}};
}

Problem unauthorized(std::string message) {
  return {.status = 401, .code = "invalid_api_key", .message = std::move(message), .param = {}};
}

}  // namespace

std::string host_of(std::string_view authority) {
  if (authority.starts_with('[')) {
    const std::size_t end = authority.find(']');
    return end == std::string_view::npos ? std::string() : lower(authority.substr(1, end - 1));
  }
  std::string host = lower(authority.substr(0, authority.find(':')));
  if (host.ends_with('.')) {
    host.pop_back();
  }
  return host;
}

std::vector<std::string> loopback_hosts(const std::vector<std::string>& more) {
  std::vector<std::string> hosts{"localhost", "127.0.0.1", "::1"};
  for (const std::string& host : more) {
    hosts.push_back(lower(host));
  }
  return hosts;
}

std::optional<Problem> Access::screen(const http::Request& request) const {
  if (rules_.hosts.empty()) {
    return std::nullopt;
  }
  const std::string host = host_of(request.headers.get("host"));
  if (std::ranges::find(rules_.hosts, host) == rules_.hosts.end() &&
      !(request.http_1_0 && host.empty())) {
    return forbidden("this server is on the loopback interface and is not called " +
                     host.substr(0, 100) + "; --allow-host adds a name");
  }
  const std::string_view origin = request.headers.get("origin");
  if (!origin.empty() &&
      std::ranges::find(rules_.hosts, origin_host(origin)) == rules_.hosts.end()) {
    return forbidden("pages of " + std::string(origin.substr(0, 100)) +
                     " may not ask this server; --allow-host adds a name");
  }
  return std::nullopt;
}

std::optional<Problem> Access::admit(http::Request& request, const http::Route& route) const {
  if (!keys_ || route.access == http::Route::Access::kOpen) {
    return std::nullopt;
  }
  const std::string_view header = request.headers.get("authorization");
  std::string key(request.headers.get("x-api-key"));
  if (const auto bearer = credentials(header, "bearer")) {
    key = *bearer;
  } else if (const auto basic = credentials(header, "basic")) {
    // A browser adds what it remembers to requests of other sites' pages, too.
    const std::string_view origin = request.headers.get("origin");
    if (!origin.empty() && origin_host(origin) != host_of(request.headers.get("host"))) {
      return forbidden("pages of other sites may not use this server's password");
    }
    key = basic_password(*basic);
  }
  if (key.empty()) {
    return unauthorized("an API key is needed: Authorization: Bearer KEY");
  }
  const http::Caller* caller = keys_->find(key);
  if (caller == nullptr) {
    return unauthorized("the API key is not known");
  }
  request.caller = *caller;
  return std::nullopt;
}

}  // namespace tessera::gateway
