#include "coordinator/redis_url.hpp"

#include <arpa/inet.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <limits>
#include <optional>
#include <utility>

namespace tessera::coordinator {
namespace {

constexpr int kPortMax = 65'535;
constexpr std::string_view kHelp =
    "; a Redis URL is redis://[[USER]:PASSWORD@]HOST[:PORT][/DB] or unix:/PATH[?db=DB], with %XX "
    "for special characters in a password";

Error wrong(std::string_view what) {
  return {ErrorCode::kInvalidArgument, std::string(what).append(kHelp)};
}

bool equals_ignoring_case(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](char x, char y) {
    return std::tolower(static_cast<unsigned char>(x)) ==
           std::tolower(static_cast<unsigned char>(y));
  });
}

bool ends_with_redis(std::string_view text) {
  const auto ends_with = [&](std::string_view scheme) {
    return text.size() >= scheme.size() &&
           equals_ignoring_case(text.substr(text.size() - scheme.size()), scheme);
  };
  return ends_with("redis") || ends_with("rediss");
}

std::optional<int> hex_digit(char c) {
  int value = 0;
  const auto [end, failed] = std::from_chars(&c, &c + 1, value, 16);
  return failed == std::errc() && end == &c + 1 ? std::optional(value) : std::nullopt;
}

std::optional<std::string> decode_percent(std::string_view text) {
  std::string decoded;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      decoded += text[i];
      continue;
    }
    const auto high = i + 1 < text.size() ? hex_digit(text[i + 1]) : std::nullopt;
    const auto low = i + 2 < text.size() ? hex_digit(text[i + 2]) : std::nullopt;
    if (!high || !low) {
      return std::nullopt;
    }
    decoded += static_cast<char>(*high * 16 + *low);
    i += 2;
  }
  return decoded;
}

// Decimal digits and nothing else.
std::optional<int> number(std::string_view text, int max) {
  int value = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = failed == std::errc() && end == text.data() + text.size();
  return whole && text.front() != '-' && value <= max ? std::optional(value) : std::nullopt;
}

Result<void> read_login(std::string_view login, RedisAddress& address) {
  const std::size_t colon = login.find(':');
  const auto user = decode_percent(colon == std::string_view::npos ? "" : login.substr(0, colon));
  const auto password =
      decode_percent(colon == std::string_view::npos ? login : login.substr(colon + 1));
  if (!user || !password) {
    return wrong("before the @, a % is not followed by two hexadecimal digits: write % as %25");
  }
  address.user = *user;
  address.password = *password;
  return {};
}

Result<void> read_database(std::string_view text, RedisAddress& address, bool is_known) {
  const auto database =
      text.empty() ? std::nullopt : number(text, std::numeric_limits<std::int32_t>::max());
  if (!database) {
    return wrong("the database is not a number");
  }
  if (is_known && *database != address.database) {
    return wrong("two databases are named");
  }
  address.database = *database;
  return {};
}

// What stands behind the "?".
Result<void> read_query(std::string_view query, RedisAddress& address, bool has_database) {
  constexpr std::string_view kDatabase = "db=";
  if (!query.starts_with(kDatabase) || query.find('&') != std::string_view::npos) {
    return wrong("behind the ? only db=NUMBER is known");
  }
  return read_database(query.substr(kDatabase.size()), address, has_database);
}

// Takes what stands behind the first "?" off `rest`; nothing when there is none.
std::optional<std::string_view> take_query(std::string_view& rest) {
  const std::size_t mark = rest.find('?');
  if (mark == std::string_view::npos) {
    return std::nullopt;
  }
  const std::string_view query = rest.substr(mark + 1);
  rest = rest.substr(0, mark);
  return query;
}

Result<void> read_ipv6(std::string_view text, RedisAddress& address) {
  const auto decoded = decode_percent(text);  // "%25" stands before a zone.
  const std::string host = decoded.value_or("");
  const std::string without_zone = host.substr(0, host.find('%'));
  std::array<unsigned char, 16> bytes{};
  if (host.find('\0') != std::string::npos ||
      inet_pton(AF_INET6, without_zone.c_str(), bytes.data()) != 1) {
    return wrong("what stands in brackets is no IPv6 address");
  }
  address.host = host;
  return {};
}

Result<void> read_host(std::string_view text, RedisAddress& address) {
  std::string_view port;
  if (text.starts_with('[')) {
    const std::size_t end = text.find(']');
    if (end == std::string_view::npos || (end + 1 < text.size() && text[end + 1] != ':')) {
      return wrong("the brackets of an IPv6 address do not match");
    }
    if (auto read = read_ipv6(text.substr(1, end - 1), address); !read) {
      return read;
    }
    port = end + 1 < text.size() ? text.substr(end + 2) : "";
  } else {
    const std::size_t colon = text.find(':');
    const std::string_view host = text.substr(0, colon);
    port = colon == std::string_view::npos ? "" : text.substr(colon + 1);
    const auto is_part = [](unsigned char c) {
      return std::isalnum(c) || c == '.' || c == '-' || c == '_';
    };
    if (port.find(':') != std::string_view::npos) {
      return wrong("an IPv6 address stands in brackets: redis://[::1]:6379");
    }
    if (host.empty() || !std::ranges::all_of(host, is_part)) {
      return wrong(host.empty() ? "it names no host" : "its host is no name and no address");
    }
    address.host = host;
  }
  if (!port.empty()) {
    const auto value = number(port, kPortMax);
    if (!value || *value == 0) {
      return wrong("the port is not a number from 1 to 65535");
    }
    address.port = *value;
  }
  return {};
}

Result<RedisAddress> read_tcp(std::string_view rest) {
  RedisAddress address;
  // The last one: what stands before it may hold such characters unwritten as %XX.
  if (const std::size_t at = rest.rfind('@'); at != std::string_view::npos) {
    if (auto login = read_login(rest.substr(0, at), address); !login) {
      return login.error();
    }
    rest.remove_prefix(at + 1);
  }
  const auto query = take_query(rest);
  const std::size_t slash = std::min(rest.find('/'), rest.size());
  const std::string_view path = rest.substr(slash);
  if (auto host = read_host(rest.substr(0, slash), address); !host) {
    return host.error();
  }
  const bool has_database = path.size() > 1;
  if (has_database) {
    if (auto database = read_database(path.substr(1), address, false); !database) {
      return database.error();
    }
  }
  if (query) {
    if (auto read = read_query(*query, address, has_database); !read) {
      return read.error();
    }
  }
  return address;
}

Result<RedisAddress> read_unix(std::string_view rest) {
  RedisAddress address;
  if (rest.starts_with("//")) {
    rest.remove_prefix(2);
    const std::size_t at = rest.find('@');
    if (at < rest.find('/')) {
      if (auto login = read_login(rest.substr(0, at), address); !login) {
        return login.error();
      }
      rest.remove_prefix(at + 1);
    }
  }
  const auto query = take_query(rest);
  const auto path = decode_percent(rest);
  if (!path || path->empty() || path->find('\0') != std::string::npos) {
    return wrong("it names no path of a socket");
  }
  if (path->size() >= sizeof(sockaddr_un::sun_path)) {
    return wrong("the path is too long for a unix socket");
  }
  address.socket = *path;
  if (query) {
    if (auto read = read_query(*query, address, false); !read) {
      return read.error();
    }
  }
  return address;
}

}  // namespace

std::string RedisAddress::printable() const {
  const std::string number = std::to_string(database);
  if (host.empty()) {
    return "unix:" + socket + (database == 0 ? "" : "?db=" + number);
  }
  const std::string name = host.find(':') == std::string::npos ? host : "[" + host + "]";
  return "redis://" + name + ":" + std::to_string(port) + (database == 0 ? "" : "/" + number);
}

Result<RedisAddress> parse_redis_url(std::string_view url) {
  const std::size_t colon = url.find(':');
  const std::string_view scheme = url.substr(0, colon);
  const std::string_view rest = colon == std::string_view::npos ? "" : url.substr(colon + 1);
  if (equals_ignoring_case(scheme, "rediss")) {
    return Error{ErrorCode::kInvalidArgument,
                 "rediss:// asks for TLS, which this program's Redis client does not speak: run a "
                 "TLS tunnel, such as stunnel, beside the coordinator, and give its end here as "
                 "redis://127.0.0.1:PORT or unix:/PATH"};
  }
  if (equals_ignoring_case(scheme, "unix")) {
    return read_unix(rest);
  }
  if (equals_ignoring_case(scheme, "redis") && rest.starts_with("//")) {
    return read_tcp(rest.substr(2));
  }
  return wrong("it begins with neither redis:// nor unix:");
}

std::string hide_secrets(std::string text) {
  constexpr std::string_view kMark = "://";
  for (std::size_t at = text.find(kMark); at != std::string::npos; at = text.find(kMark, at + 1)) {
    const std::size_t start = at + kMark.size();
    const std::string_view line =
        std::string_view(text).substr(start, text.find('\n', start) - start);
    std::size_t end = line.rfind('@');
    if (end == std::string_view::npos) {
      // A forgotten @ makes a secret of what seems to be a host.
      const bool is_redis = ends_with_redis(std::string_view(text).substr(0, at));
      end = is_redis ? std::min(line.find_first_of(" \t\"'"), line.size()) : 0;
    }
    if (end > 0) {
      text.replace(start, end, "***");
    }
  }
  return text;
}

}  // namespace tessera::coordinator
