#include "common/os/lock_file.hpp"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/core.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <sstream>

#include "common/check.hpp"

namespace tessera {
namespace {

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 && name[0] != '\0' ? name.data() : "-";
}

// When the process was started, in the kernel's ticks: tells it from a later one of the same
// number. 0 when there is no such process, or it has ended and nobody has asked how.
std::uint64_t start_ticks(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) {
    return 0;
  }
  std::istringstream rest(text.substr(name_end + 1));
  std::string state;
  std::string field;
  rest >> state;
  constexpr int kFieldsBetween = 18;  // ppid, the fourth field, to itrealvalue, the 21st.
  for (int i = 0; i < kFieldsBetween; ++i) {
    rest >> field;
  }
  std::uint64_t ticks = 0;
  rest >> ticks;
  return state == "Z" || state == "X" ? 0 : ticks;
}

LockHolder read_holder(int fd) {
  std::array<char, 1024> text{};
  const ssize_t got = pread(fd, text.data(), text.size(), 0);
  std::istringstream words(std::string(text.data(), got > 0 ? static_cast<std::size_t>(got) : 0));
  LockHolder holder;
  std::uint64_t ticks = 0;
  if (!(words >> holder.pid >> ticks >> holder.host >> holder.since)) {
    return {};
  }
  std::getline(words >> std::ws, holder.program);
  holder.running = holder.host == host_name() && start_ticks(holder.pid) == ticks;
  return holder;
}

}  // namespace

std::string to_string(const LockHolder& holder) {
  if (holder.pid == 0) {
    return "in use by another process";
  }
  const std::string host = holder.host == host_name() ? "" : " on " + holder.host;
  return fmt::format("in use by process {}{} ({}) since {}", holder.pid, host, holder.program,
                     holder.since);
}

LockFile::~LockFile() {
  if (fd_ >= 0) {
    close(fd_);
  }
}

std::optional<LockHolder> LockFile::take(const std::string& path, const std::string& program,
                                         Inherit inherit) {
  CHECK(fd_ < 0);
  const int on_exec = inherit == Inherit::kByChildren ? 0 : O_CLOEXEC;
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | on_exec, 0666);
  if (fd < 0) {
    throw FatalError("cannot write " + path + ": " + std::strerror(errno));
  }
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const int reason = errno;
    const LockHolder holder = read_holder(fd);
    close(fd);
    if (reason != EWOULDBLOCK) {
      throw FatalError("cannot lock " + path + ": " + std::strerror(reason));
    }
    return holder;
  }
  fd_ = fd;
  const std::string text =
      fmt::format("{} {} {} {:%Y-%m-%dT%H:%M:%SZ} {}\n", getpid(), start_ticks(getpid()),
                  host_name(), fmt::gmtime(std::time(nullptr)), program);
  if (ftruncate(fd_, 0) != 0 ||
      pwrite(fd_, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
    throw FatalError("cannot write " + path + ": " + std::strerror(errno));
  }
  return std::nullopt;
}

}  // namespace tessera
