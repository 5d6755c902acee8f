#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "clients/gateway/auth/key_file.hpp"
#include "clients/gateway/http/router.hpp"

namespace tessera::gateway {

struct AccessRules {
  // Only requests to one of these hosts, and from pages of them, are looked at: a server without
  // keys on the loopback interface must not be reached by a web page whose name was made to point
  // there. Empty: all hosts.
  std::vector<std::string> hosts;
};

// The names under which the loopback interface is reached, and `more`.
std::vector<std::string> loopback_hosts(const std::vector<std::string>& more);

// Who may. One for each loop, on its thread; pure but for the key ring that it is given.
class Access {
 public:
  explicit Access(AccessRules rules) : rules_(std::move(rules)) {}
  void set_keys(std::shared_ptr<const KeyRing> keys) { keys_ = std::move(keys); }

  // Host and Origin; a 403 otherwise.
  std::optional<http::Problem> screen(const http::Request& request) const;
  // The key, from Authorization: Bearer KEY, x-api-key: KEY, or as the password of Basic (for
  // browsers, then only from the server's own pages). Sets request.caller; a 401 otherwise.
  std::optional<http::Problem> admit(http::Request& request, const http::Route& route) const;

 private:
  AccessRules rules_;
  std::shared_ptr<const KeyRing> keys_;  // None: everybody may.
};

// "localhost" of "LocalHost:8080", "::1" of "[::1]:80"; empty for what is no host.
std::string host_of(std::string_view authority);

}  // namespace tessera::gateway
