#include "clients/gateway/files/file_body.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace tessera::gateway {
namespace {

constexpr std::uint64_t kSliceBytes = 64U << 10;

}  // namespace

FileBody::FileBody(OpenFile file, std::uint64_t bytes) : file_(std::move(file)), bytes_(bytes) {
  (void)posix_fadvise(file_.fd(), 0, 0, POSIX_FADV_SEQUENTIAL);
}

FileBody::State FileBody::next(std::string& slice) {
  const auto wanted = static_cast<std::size_t>(std::min(kSliceBytes, bytes_ - at_));
  slice.resize(wanted);
  std::size_t filled = 0;
  while (filled < wanted) {
    const ssize_t got =
        pread(file_.fd(), slice.data() + filled, wanted - filled, static_cast<off_t>(at_ + filled));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      return State::kFail;
    }
    filled += static_cast<std::size_t>(got);
  }
  at_ += filled;
  return at_ == bytes_ ? State::kEnd : State::kMore;
}

}  // namespace tessera::gateway
