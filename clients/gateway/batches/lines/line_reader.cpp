#include "clients/gateway/batches/lines/line_reader.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/check.hpp"

namespace tessera::gateway {
namespace {

constexpr std::size_t kBufferBytes = 256U << 10;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

}  // namespace

bool LineReader::fill() {
  buffer_.resize(kBufferBytes);
  used_ = 0;
  ssize_t got = -1;
  do {
    got = pread(fd_, buffer_.data(), buffer_.size(), static_cast<off_t>(offset_));
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    throw FatalError(std::string("cannot read a batch's input: ") + std::strerror(errno));
  }
  buffer_.resize(static_cast<std::size_t>(got));
  offset_ += static_cast<std::uint64_t>(got);
  return got > 0;
}

bool LineReader::next_of_any_kind(std::string& line) {
  line.clear();
  too_long_ = false;
  bool any = false;
  while (used_ < buffer_.size() || fill()) {
    any = true;
    const std::size_t end = buffer_.find('\n', used_);
    const std::size_t stop = end == std::string::npos ? buffer_.size() : end;
    const std::size_t room = line_bytes_max_ - line.size();
    too_long_ = too_long_ || stop - used_ > room;
    line.append(buffer_, used_, std::min(stop - used_, room));
    used_ = end == std::string::npos ? stop : stop + 1;
    if (end != std::string::npos) {
      break;
    }
  }
  number_ += any ? 1 : 0;
  return any;
}

bool LineReader::next(std::string& line) {
  while (next_of_any_kind(line)) {
    if (number_ == 1 && line.starts_with(kByteOrderMark)) {
      line.erase(0, kByteOrderMark.size());
    }
    if (line.find_first_not_of(" \t\r") != std::string::npos) {
      return true;
    }
  }
  return false;
}

}  // namespace tessera::gateway
