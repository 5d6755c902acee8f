#include "clients/cli/io/byte_source.hpp"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>

#include "common/check.hpp"

namespace tessera::cli {
namespace {

constexpr std::size_t kBlockBytes = 1U << 20;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

}  // namespace

ByteSource::ByteSource(const std::string& path, const std::atomic<bool>& stop)
    : path_(path), stop_(stop), block_(kBlockBytes) {
  fd_ = path == "-" ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) {
    throw FatalError("cannot read " + path + ": " + std::strerror(errno));
  }
  if (fill() && buffer_.starts_with(kByteOrderMark)) {
    position_ = kByteOrderMark.size();
  }
}

ByteSource::~ByteSource() {
  if (fd_ > STDIN_FILENO) {
    close(fd_);
  }
}

bool ByteSource::wait_readable() const {
  pollfd poll_fd{.fd = fd_, .events = POLLIN, .revents = 0};
  while (!stop_) {
    if (poll(&poll_fd, 1, 100) > 0) {
      return true;
    }
  }
  return false;
}

bool ByteSource::fill() {
  if (at_end_ || !wait_readable()) {
    return false;
  }
  ssize_t got = 0;
  do {
    got = read(fd_, block_.data(), block_.size());
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    throw FatalError("cannot read " + path_ + ": " + std::strerror(errno));
  }
  at_end_ = got == 0;
  buffer_ = {block_.data(), static_cast<std::size_t>(got)};
  position_ = 0;
  bytes_read_ += static_cast<std::uint64_t>(got);
  return !at_end_;
}

ByteSource::Line ByteSource::read_line(std::string& line, std::size_t bytes_max) {
  line.clear();
  bool too_long = false;
  if (peek() == kEnd) {
    return Line::kEnd;
  }
  while (peek() != kEnd) {
    const auto rest = buffer_.substr(position_);
    const std::size_t end = rest.find('\n');
    const std::size_t part = end == std::string_view::npos ? rest.size() : end;
    too_long = too_long || line.size() + part > bytes_max;
    if (!too_long) {
      line.append(rest.substr(0, part));
    }
    position_ += part;
    if (end != std::string_view::npos) {
      ++position_;
      break;
    }
  }
  if (!line.empty() && line.back() == '\r') {
    line.pop_back();
  }
  return too_long ? Line::kTooLong : Line::kLine;
}

}  // namespace tessera::cli
