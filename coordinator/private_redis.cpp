#include "coordinator/private_redis.hpp"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "common/check.hpp"
#include "common/log.hpp"

namespace tessera::coordinator {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr std::size_t kSocketPathBytesMax = 100;  // sun_path holds 108 with its end.
constexpr auto kLockPatience = 30s;
constexpr auto kStopPatience = 20s;
constexpr auto kRestartPause = 1s;  // From start to start.

// The one beside this program, as in a bundle, or the system's.
std::string redis_program() {
  std::error_code failed;
  const fs::path beside = fs::read_symlink("/proc/self/exe", failed).parent_path() / "redis-server";
  return !failed && fs::exists(beside, failed) ? beside.string() : "redis-server";
}

// A server with a save point, however far away, writes its file when it is told to end.
std::vector<std::string> arguments(const fs::path& dir, const std::string& socket,
                                   PrivateRedis::Keeps keeps, int memory_mb) {
  std::vector<std::string> words = {redis_program(),
                                    "--port",
                                    "0",
                                    "--unixsocket",
                                    socket,
                                    "--unixsocketperm",
                                    "700",
                                    "--dir",
                                    dir.string(),
                                    "--logfile",
                                    (dir / "redis.log").string(),
                                    "--daemonize",
                                    "no",
                                    "--maxmemory",
                                    std::to_string(memory_mb) + "mb"};
  const std::vector<std::string> ledger = {
      "--save",        "",       "--appendonly",       "yes",
      "--appendfsync", "always", "--maxmemory-policy", "volatile-lru"};
  const std::vector<std::string> cache = {
      "--save", "31536000 1000000000", "--rdbcompression", "no", "--appendonly",
      "no",     "--maxmemory-policy",  "allkeys-lfu"};
  const auto& own = keeps == PrivateRedis::Keeps::kLedger ? ledger : cache;
  words.insert(words.end(), own.begin(), own.end());
  return words;
}

// Only calls that are allowed between fork and exec.
[[noreturn]] void run_child(const std::vector<char*>& argv, pid_t parent, int signal_of_death) {
  prctl(PR_SET_PDEATHSIG, signal_of_death);
  if (getppid() != parent) {
    _exit(1);  // The coordinator died before the line above.
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  setpgid(0, 0);  // A Ctrl-C in the terminal is for the coordinator, which ends this one last.
  execvp(argv[0], argv.data());
  _exit(127);
}

}  // namespace

PrivateRedis::PrivateRedis(const fs::path& dir, Keeps keeps, int memory_mb)
    : dir_(fs::absolute(dir)), keeps_(keeps), memory_mb_(memory_mb) {
  std::error_code error;
  fs::create_directories(dir_, error);
  socket_ = (dir_ / "redis.sock").string();
  if (socket_.size() > kSocketPathBytesMax) {
    throw FatalError("the data folder's path is too long for a socket in it: " + dir_.string());
  }
  address_.socket = socket_;
  const auto deadline = std::chrono::steady_clock::now() + kLockPatience;
  while (const auto holder = lock_.take((dir_ / "lock").string(), "tessera coordinator",
                                        LockFile::Inherit::kByChildren)) {
    if (holder->running || std::chrono::steady_clock::now() > deadline) {
      throw FatalError("the data folder " + dir_.string() + " is " + to_string(*holder));
    }
    std::this_thread::sleep_for(50ms);
  }
  start();
}

void PrivateRedis::start() {
  std::vector<std::string> words = arguments(dir_, socket_, keeps_, memory_mb_);
  std::vector<char*> argv;
  for (std::string& word : words) {
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  started_at_ = std::chrono::steady_clock::now();
  const pid_t parent = getpid();
  // The next coordinator waits for a ledger that still writes, and for no cache.
  const int signal_of_death = keeps_ == Keeps::kLedger ? SIGTERM : SIGKILL;
  pid_ = fork();
  if (pid_ == 0) {
    run_child(argv, parent, signal_of_death);
  }
  if (pid_ < 0) {
    throw FatalError("cannot start redis-server: " + std::string(std::strerror(errno)));
  }
  std::this_thread::sleep_for(20ms);
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) == pid_) {
    pid_ = -1;
    throw FatalError(WEXITSTATUS(status) == 127
                         ? "redis-server is not installed, and no --redis URL is given"
                         : "redis-server does not start; see " + (dir_ / "redis.log").string());
  }
  log::info("private redis-server for {} on {}, process {}",
            keeps_ == Keeps::kLedger ? "jobs" : "cached vectors", socket_, pid_);
}

void PrivateRedis::restart_if_ended() {
  int status = 0;
  if (pid_ > 0 && waitpid(pid_, &status, WNOHANG) == pid_) {
    log::warn("the private redis-server on {} has ended; it is started again", socket_);
    pid_ = -1;
  }
  if (pid_ < 0 && std::chrono::steady_clock::now() - started_at_ >= kRestartPause) {
    start();
  }
}

PrivateRedis::~PrivateRedis() {
  if (pid_ > 0) {
    kill(pid_, SIGTERM);
    const auto deadline = std::chrono::steady_clock::now() + kStopPatience;
    while (waitpid(pid_, nullptr, WNOHANG) == 0) {
      if (std::chrono::steady_clock::now() > deadline) {
        log::warn("redis-server does not end; it is killed");
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
        break;
      }
      std::this_thread::sleep_for(10ms);
    }
  }
}

}  // namespace tessera::coordinator
