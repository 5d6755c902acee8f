#include "clients/gateway/files/multipart.hpp"

#include <algorithm>

namespace tessera::gateway {
namespace {

constexpr std::string_view kLineEnd = "\r\n";
constexpr std::string_view kHeadEnd = "\r\n\r\n";

Error wrong(std::string message) {
  return {ErrorCode::kInvalidArgument,
          "the body is not multipart/form-data: " + std::move(message)};
}

// Bytes of `text` that may go on to be `delimiter`: its longest end that begins the delimiter.
std::size_t begun(std::string_view text, std::string_view delimiter) {
  std::size_t length = std::min(text.size(), delimiter.size() - 1);
  while (length > 0 && !text.ends_with(delimiter.substr(0, length))) {
    --length;
  }
  return length;
}

}  // namespace

// A first delimiter has no line before it, so one is put there.
MultipartParser::MultipartParser(std::string_view boundary, MultipartSink& sink)
    : delimiter_("\r\n--" + std::string(boundary)), sink_(sink), pending_(kLineEnd) {}

Result<void> MultipartParser::feed(std::string_view bytes) {
  pending_ += bytes;
  for (;;) {
    auto enough = step();
    if (!enough) {
      return enough.error();
    }
    if (!*enough) {
      break;
    }
  }
  pending_.erase(0, used_);
  used_ = 0;
  return {};
}

Result<void> MultipartParser::end() {
  const bool closed =
      state_ == State::kEpilogue || (state_ == State::kCloseEnd && unread().empty());
  if (!closed) {
    return wrong("it ends before its closing boundary");
  }
  return {};
}

Result<bool> MultipartParser::step() {
  switch (state_) {
    case State::kPreamble:
      return read_preamble();
    case State::kDelimiterEnd:
      return read_delimiter_end();
    case State::kHead:
      return read_head();
    case State::kDataBegin:
      return begin_data();
    case State::kData:
      return read_data();
    case State::kCloseEnd:
      return read_close_end();
    case State::kEpilogue:
      return skip_epilogue();
  }
  return false;
}

Result<void> MultipartParser::skip(std::size_t bytes) {
  used_ += bytes;
  skipped_ += bytes;
  if (skipped_ > kSkippedMax) {
    return wrong("more than 64 KiB stand before its first part or behind its last");
  }
  return {};
}

Result<bool> MultipartParser::read_preamble() {
  const std::size_t at = unread().find(delimiter_);
  const bool found = at != std::string_view::npos;
  if (auto ok = skip(found ? at : unread().size() - begun(unread(), delimiter_)); !ok) {
    return ok.error();
  }
  if (found) {
    used_ += delimiter_.size();
    skipped_ = 0;
    state_ = State::kDelimiterEnd;
  }
  return found;
}

// RFC 2046 lets a transport put blanks between the boundary and its line's end.
Result<bool> MultipartParser::read_delimiter_end() {
  const std::string_view text = unread();
  const std::size_t padding = std::min(text.find_first_not_of(" \t"), text.size());
  if (padding > kPaddingMax) {
    return wrong("a boundary is followed by too many blanks");
  }
  const std::string_view rest = text.substr(padding);
  if (rest.size() < 2) {
    if (rest == "" || rest == "\r" || (rest == "-" && padding == 0)) {
      return false;
    }
    return wrong("a line begins with the boundary and goes on");
  }
  if (rest.starts_with("--") && padding == 0) {
    used_ += 2;
    state_ = State::kCloseEnd;
    return true;
  }
  if (!rest.starts_with(kLineEnd)) {
    return wrong("a line begins with the boundary and goes on");
  }
  if (++parts_ > kPartsMax) {
    return wrong("it has more than " + std::to_string(kPartsMax) + " parts");
  }
  used_ += padding + 2;
  state_ = State::kHead;
  return true;
}

Result<bool> MultipartParser::read_close_end() {
  const std::string_view text = unread();
  const std::size_t padding = std::min(text.find_first_not_of(" \t"), text.size());
  if (auto ok = skip(padding); !ok) {
    return ok.error();
  }
  const std::string_view rest = unread();
  if (rest.starts_with(kLineEnd)) {
    used_ += 2;
    state_ = State::kEpilogue;
    return true;
  }
  if (rest.empty() || rest == "\r") {
    return false;
  }
  return wrong("its closing boundary's line goes on");
}

Result<bool> MultipartParser::skip_epilogue() {
  if (auto ok = skip(unread().size()); !ok) {
    return ok.error();
  }
  return false;
}

Result<bool> MultipartParser::read_head() {
  const std::size_t at = unread().find(kHeadEnd);
  const bool found = at != std::string_view::npos;
  if (found ? at > kHeadBytesMax : unread().size() >= kHeadBytesMax + kHeadEnd.size()) {
    return wrong("a part's head has more than 8 KiB");
  }
  if (!found) {
    return false;
  }
  auto part = parse_part_head(unread().substr(0, at));
  if (!part) {
    return wrong(part.error().message);
  }
  if (auto ok = sink_.on_part(std::move(*part)); !ok) {
    return ok.error();
  }
  used_ += at + kLineEnd.size();
  state_ = State::kDataBegin;
  return true;
}

// The empty line's end may be the one that a delimiter begins with: a part without a byte.
Result<bool> MultipartParser::begin_data() {
  const std::string_view text = unread().substr(0, delimiter_.size());
  if (text.size() < delimiter_.size() && delimiter_.starts_with(text)) {
    return false;
  }
  used_ += text == delimiter_ ? 0 : kLineEnd.size();
  state_ = State::kData;
  return true;
}

Result<bool> MultipartParser::read_data() {
  const std::size_t at = unread().find(delimiter_);
  const bool found = at != std::string_view::npos;
  const std::size_t length = found ? at : unread().size() - begun(unread(), delimiter_);
  if (length > 0) {
    if (auto ok = sink_.on_data(unread().substr(0, length)); !ok) {
      return ok.error();
    }
    used_ += length;
  }
  if (!found) {
    return false;
  }
  used_ += delimiter_.size();
  state_ = State::kDelimiterEnd;
  if (auto ok = sink_.on_part_end(); !ok) {
    return ok.error();
  }
  return true;
}

}  // namespace tessera::gateway
