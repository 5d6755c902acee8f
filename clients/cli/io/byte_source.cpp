#include "clients/cli/io/byte_source.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "clients/cli/io/file_kind.hpp"
#include "common/check.hpp"

namespace tessera::cli {
namespace {

constexpr std::size_t kBlockBytes = 1U << 20;
// Enough to judge by; a pipe that gives less waits, so it is little.
constexpr std::size_t kSampleBytesMin = 4096;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

int open_input(const std::string& path) {
  const int fd = path == "-" ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status {};
  if (fd < 0 || fstat(fd, &status) != 0) {
    throw FatalError("cannot read " + path + ": " + std::strerror(errno));
  }
  if (S_ISDIR(status.st_mode)) {
    close(fd);
    throw FatalError("cannot read " + path + ": it is a folder; name its files");
  }
  return fd;
}

std::string utf8_refusal(std::string_view sample, std::size_t fault) {
  const std::string_view before = sample.substr(0, fault);
  const std::size_t line_start = before.find_last_of("\r\n") + 1;  // npos + 1 is 0.
  return fmt::format(
      "line {} is not valid UTF-8 at byte {} (0x{:02X}); say --encoding with the one that it is in "
      "(latin1, cp1252, ...), or --encoding utf-8 to have such lines as errors of their own",
      std::count(before.begin(), before.end(), '\n') + 1, fault - line_start,
      static_cast<unsigned char>(sample[fault]));
}

bool only_cr_ends_lines(std::string_view sample) {
  return sample.find('\n') == std::string_view::npos && sample.find('\r') + 1 < sample.size();
}

}  // namespace

ByteSource::ByteSource(const std::string& path, const std::string& encoding,
                       const std::atomic<bool>& stop)
    : path_(path), stop_(stop), fd_(open_input(path)), block_(kBlockBytes) {
  try {
    struct stat status {};
    const bool regular = fstat(fd_, &status) == 0 && S_ISREG(status.st_mode);
    const std::size_t wanted = regular ? kBlockBytes : kSampleBytesMin;
    while (filled_ < wanted && read_some() > 0) {
    }
    judge(encoding);
  } catch (const FatalError&) {
    if (fd_ > STDIN_FILENO) {
      close(fd_);
    }
    throw;
  }
}

ByteSource::ByteSource(std::string_view text, const std::atomic<bool>& stop)
    : path_("text"), stop_(stop), buffer_(text), at_end_(true) {
  newline_ = only_cr_ends_lines(text) ? '\r' : '\n';
}

ByteSource::~ByteSource() {
  if (fd_ > STDIN_FILENO) {
    close(fd_);
  }
}

void ByteSource::judge(const std::string& encoding) {
  const std::string_view start(block_.data(), filled_);
  const auto refuse = [&](const std::string& why) { throw FatalError(path_ + " " + why); };
  if (const std::string why = binary_refusal(path_, start); !why.empty()) {
    refuse(why);
  }
  const std::string marked = encoding.empty() ? marked_encoding(start) : "";
  if (!marked.empty() || !is_utf8_name(encoding)) {
    decoder_ = std::make_unique<TextDecoder>(marked.empty() ? encoding : marked);
    encoding_shown_ = marked.empty() ? encoding : marked + " by its byte order mark";
    decode_block(start);
  } else {
    buffer_ = start;
    if (encoding.empty()) {
      if (const std::string why = nul_suspicion(start); !why.empty()) {
        refuse(why);
      }
      if (const auto fault = sample_utf8_fault(start, at_end_); fault != start.npos) {
        throw FatalError(path_ + ": " + utf8_refusal(start, fault));
      }
    }
  }
  if (buffer_.starts_with(kByteOrderMark)) {
    position_ = kByteOrderMark.size();
  }
  newline_ = only_cr_ends_lines(sample()) ? '\r' : '\n';
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

std::size_t ByteSource::read_some() {
  if (at_end_ || !wait_readable()) {
    return 0;
  }
  ssize_t got = 0;
  do {
    got = read(fd_, block_.data() + filled_, block_.size() - filled_);
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    throw FatalError("cannot read " + path_ + ": " + std::strerror(errno));
  }
  at_end_ = got == 0;
  filled_ += static_cast<std::size_t>(got);
  bytes_read_ += static_cast<std::uint64_t>(got);
  return static_cast<std::size_t>(got);
}

void ByteSource::fill() {
  position_ = 0;
  buffer_ = {};
  while (buffer_.empty() && fd_ >= 0) {
    filled_ = 0;
    const bool was_at_end = at_end_;
    const std::size_t got = read_some();
    if (got == 0) {
      if (decoder_ && at_end_ && !was_at_end) {
        decode_block({});
      }
      return;
    }
    if (decoder_) {
      decode_block({block_.data(), got});  // Perhaps too little for one character.
    } else {
      buffer_ = {block_.data(), got};
    }
  }
}

void ByteSource::decode_block(std::string_view bytes) {
  decoded_.clear();
  const bool good = decoder_->decode(bytes, decoded_) && (!at_end_ || decoder_->finish(decoded_));
  if (!good) {
    throw FatalError(fmt::format("{} cannot be read as {}: see its byte {}", path_, encoding_shown_,
                                 decoder_->offset()));
  }
  buffer_ = decoded_;
}

std::uint64_t ByteSource::bytes_read() const {
  const std::size_t unread = buffer_.size() - position_;
  if (decoder_) {
    return unread == 0 ? bytes_read_ : bytes_read_ - filled_;
  }
  return bytes_read_ - (fd_ < 0 ? 0 : unread);
}

ByteSource::Line ByteSource::read_line(std::string& line, std::size_t bytes_max) {
  line.clear();
  std::string_view text = rest();
  if (text.empty()) {
    return Line::kEnd;
  }
  bool too_long = false;
  bool ended = false;
  while (!ended && !text.empty()) {
    const std::size_t end = text.find(newline_);
    ended = end != std::string_view::npos;
    const std::size_t part = ended ? end : text.size();
    too_long = too_long || line.size() + part > bytes_max;
    if (!too_long) {
      line.append(text.substr(0, part));
    }
    consume(ended ? part + 1 : part);
    text = ended ? std::string_view{} : rest();
  }
  if (newline_ == '\n' && !line.empty() && line.back() == '\r') {
    line.pop_back();
  }
  return too_long ? Line::kTooLong : Line::kLine;
}

}  // namespace tessera::cli
