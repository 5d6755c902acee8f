#include <algorithm>

#include "clients/gateway/files/multipart.hpp"
#include "clients/gateway/http/message.hpp"

// The head of a part and the boundary: fields with parameters, as browsers, curl and httpx write
// them.
namespace tessera::gateway {
namespace {

constexpr std::size_t kBoundaryMax = 70;

Error wrong(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool same_word(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, {}, lower, lower);
}

bool is_alphanumeric(char c) {
  const char l = lower(c);
  return (l >= 'a' && l <= 'z') || (c >= '0' && c <= '9');
}

bool is_token_char(char c) {
  return is_alphanumeric(c) ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

bool is_token(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, is_token_char);
}

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) {
    return {};
  }
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// Takes the quoted string at the begin of `text`, of which only \" and \\ are escapes: browsers
// leave a backslash as it is.
std::optional<std::string> take_quoted(std::string_view& text) {
  std::string value;
  for (std::size_t i = 1; i < text.size(); ++i) {
    if (text[i] == '"') {
      text.remove_prefix(i + 1);
      return value;
    }
    const bool escape =
        text[i] == '\\' && i + 1 < text.size() && (text[i + 1] == '"' || text[i + 1] == '\\');
    i += escape ? 1 : 0;
    value += text[i];
  }
  return std::nullopt;
}

struct Parameter {
  std::string_view name;
  std::string value;
};

// Takes `; name=value` or `; name="value"` from the begin of `text`.
std::optional<Parameter> take_parameter(std::string_view& text) {
  text = trimmed(text);
  if (!text.starts_with(';')) {
    return std::nullopt;
  }
  text = trimmed(text.substr(1));
  const std::size_t equals = std::min(text.find('='), text.size());
  Parameter parameter{.name = text.substr(0, equals), .value = {}};
  if (equals == text.size() || !is_token(parameter.name)) {
    return std::nullopt;
  }
  text.remove_prefix(equals + 1);
  if (text.starts_with('"')) {
    auto quoted = take_quoted(text);
    if (!quoted) {
      return std::nullopt;
    }
    parameter.value = std::move(*quoted);
    return parameter;
  }
  const std::size_t end = std::min(text.find(';'), text.size());
  parameter.value = trimmed(text.substr(0, end));
  text.remove_prefix(end);
  const bool plain =
      !parameter.value.empty() && parameter.value.find_first_of("\" \t") == std::string::npos;
  return plain ? std::optional(std::move(parameter)) : std::nullopt;
}

// "form-data; name=..." without its parameters.
std::string_view first_word(std::string_view& text) {
  const std::size_t end = std::min(text.find(';'), text.size());
  const std::string_view word = trimmed(text.substr(0, end));
  text.remove_prefix(end);
  return word;
}

void replace_all(std::string& text, std::string_view what, char with) {
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) {
    text.replace(at, what.size(), 1, with);
  }
}

// What HTML's form encoding escapes; any other percent sign is the name's own.
std::string unescaped(std::string text) {
  replace_all(text, "%22", '"');
  replace_all(text, "%0D", '\r');
  replace_all(text, "%0A", '\n');
  return text;
}

// The value of filename* (RFC 8187): UTF-8'en'%e2%82%ac.
std::optional<std::string> extended_value(std::string_view text) {
  const std::size_t first = text.find('\'');
  const std::size_t second = first == std::string_view::npos ? first : text.find('\'', first + 1);
  if (second == std::string_view::npos || !same_word(text.substr(0, first), "utf-8")) {
    return std::nullopt;
  }
  return http::percent_decoded(text.substr(second + 1), false);
}

struct Disposition {
  std::optional<std::string> name;
  std::optional<std::string> filename;
  std::optional<std::string> extended;
};

Result<void> set_once(std::optional<std::string>& place, std::string value) {
  if (place) {
    return wrong("Content-Disposition names something twice");
  }
  place = std::move(value);
  return {};
}

Result<void> take_disposition_parameter(Parameter parameter, Disposition& into) {
  if (same_word(parameter.name, "name")) {
    return set_once(into.name, unescaped(std::move(parameter.value)));
  }
  if (same_word(parameter.name, "filename")) {
    return set_once(into.filename, unescaped(std::move(parameter.value)));
  }
  if (same_word(parameter.name, "filename*")) {
    auto value = extended_value(parameter.value);
    return value ? set_once(into.extended, std::move(*value))
                 : Result<void>(wrong("a part's filename* is not UTF-8 in percent encoding"));
  }
  return {};
}

Result<Disposition> parse_disposition(std::string_view text) {
  if (!same_word(first_word(text), "form-data")) {
    return wrong("a part's Content-Disposition is not form-data");
  }
  Disposition disposition;
  while (!trimmed(text).empty()) {
    auto parameter = take_parameter(text);
    if (!parameter) {
      return wrong("a part's Content-Disposition is broken");
    }
    if (auto ok = take_disposition_parameter(std::move(*parameter), disposition); !ok) {
      return ok.error();
    }
  }
  if (!disposition.name || disposition.name->empty()) {
    return wrong("a part has no name");
  }
  return disposition;
}

struct PartHead {
  std::optional<Disposition> disposition;
  std::optional<std::string> content_type;
};

Result<void> take_field(std::string_view line, PartHead& head) {
  const std::size_t colon = std::min(line.find(':'), line.size());
  const std::string_view name = line.substr(0, colon);
  if (colon == line.size() || !is_token(name) ||
      line.find_first_of(std::string_view("\r\n\0", 3)) != std::string_view::npos) {
    return wrong("a line of a part's head is no header field");
  }
  const std::string_view value = trimmed(line.substr(colon + 1));
  if (same_word(name, "content-disposition")) {
    auto disposition = parse_disposition(value);
    if (!disposition || head.disposition) {
      return disposition ? wrong("a part has two Content-Dispositions") : disposition.error();
    }
    head.disposition = std::move(*disposition);
  } else if (same_word(name, "content-type")) {
    return set_once(head.content_type, std::string(value));
  } else if (same_word(name, "content-transfer-encoding") && !same_word(value, "binary") &&
             !same_word(value, "8bit") && !same_word(value, "7bit")) {
    return wrong("a part is encoded for transfer");
  }
  return {};
}

bool is_boundary(std::string_view text) {
  return !text.empty() && text.size() <= kBoundaryMax && !text.ends_with(' ') &&
         std::ranges::all_of(text, [](char c) {
           return is_alphanumeric(c) ||
                  std::string_view("'()+_,-./:=? ").find(c) != std::string_view::npos;
         });
}

}  // namespace

Result<MultipartPart> parse_part_head(std::string_view text) {
  PartHead head;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find("\r\n"), text.size());
    if (auto ok = take_field(text.substr(0, end), head); !ok) {
      return ok.error();
    }
    text.remove_prefix(std::min(end + 2, text.size()));
  }
  if (!head.disposition) {
    return wrong("a part has no Content-Disposition");
  }
  Disposition& said = *head.disposition;
  return MultipartPart{.name = std::move(*said.name),
                       .filename = said.extended ? said.extended : said.filename,
                       .content_type = head.content_type.value_or("")};
}

Result<std::string> multipart_boundary(std::string_view text) {
  if (!same_word(first_word(text), "multipart/form-data")) {
    return wrong("the body must be multipart/form-data");
  }
  std::optional<std::string> boundary;
  while (!trimmed(text).empty()) {
    auto parameter = take_parameter(text);
    if (!parameter || (boundary && same_word(parameter->name, "boundary"))) {
      return wrong("the Content-Type is broken");
    }
    if (same_word(parameter->name, "boundary")) {
      boundary = std::move(parameter->value);
    }
  }
  if (!boundary || !is_boundary(*boundary)) {
    return wrong("the Content-Type names no boundary of 1 to 70 characters");
  }
  return std::move(*boundary);
}

}  // namespace tessera::gateway
