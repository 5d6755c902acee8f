#include "clients/gateway/http/router.hpp"

#include <algorithm>

#include "common/check.hpp"

namespace tessera::gateway::http {
namespace {

std::string_view next_segment(std::string_view& path) {
  const std::size_t end = std::min(path.find('/'), path.size());
  const std::string_view segment = path.substr(0, end);
  path.remove_prefix(std::min(end + 1, path.size()));
  return segment;
}

using Values = std::vector<std::pair<std::string, std::string>>;

bool matches(std::string_view pattern, std::string_view path, Values& values) {
  if (pattern.find('{') == std::string_view::npos) {
    return pattern == path;
  }
  if (std::ranges::count(pattern, '/') != std::ranges::count(path, '/')) {
    return false;
  }
  while (!pattern.empty() || !path.empty()) {
    const std::string_view want = next_segment(pattern);
    const std::string_view have = next_segment(path);
    if (want.starts_with('{') && !have.empty()) {
      values.emplace_back(want.substr(1, want.size() - 2), have);
    } else if (want != have) {
      return false;
    }
  }
  return true;
}

Family family_of(std::string_view path) {
  if (path.starts_with("/v1/") || path == "/v1") {
    return Family::kOpenAi;
  }
  if (path.starts_with("/v2/") || path == "/v2") {
    return Family::kCohere;
  }
  return path.starts_with("/api/") ? Family::kOllama : Family::kPlain;
}

}  // namespace

void Router::add(Route route) {
  CHECK(route.handler != nullptr);
  CHECK(std::ranges::none_of(routes_, [&](const auto& other) {
    return other->method == route.method && other->pattern == route.pattern;
  }));
  routes_.push_back(std::make_unique<Route>(std::move(route)));
}

Router::Match Router::find(Request& request) const {
  Match match{.route = nullptr, .allowed = {}, .family = family_of(request.path)};
  const Method wanted = request.method == Method::kHead ? Method::kGet : request.method;
  for (const auto& route : routes_) {
    Values values;
    if (!matches(route->pattern, request.path, values)) {
      continue;
    }
    match.family = route->family;
    if (route->method == wanted) {
      request.path_values = std::move(values);
      match.route = route.get();
      match.allowed.clear();
      match.allowed.clear();
      return match;
    }
    match.allowed += std::string(match.allowed.empty() ? "" : ", ") +
                     std::string(to_string(route->method)) +
                     (route->method == Method::kGet ? ", HEAD" : "");
  }
  return match;
}

}  // namespace tessera::gateway::http
