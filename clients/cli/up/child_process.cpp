#include "clients/cli/up/child_process.hpp"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <deque>
#include <fstream>

#include "common/check.hpp"

namespace tessera::cli {
namespace {

// Between fork and exec: only calls that are safe there.
[[noreturn]] void become(char* const* argv, int log_fd, pid_t parent) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) {
    _exit(1);
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  dup2(log_fd, STDOUT_FILENO);
  dup2(log_fd, STDERR_FILENO);
  execv(argv[0], argv);
  _exit(127);
}

}  // namespace

ChildProcess::~ChildProcess() {
  if (running()) {
    kill();
    waitpid(pid_, nullptr, 0);
  }
}

void ChildProcess::start() {
  CHECK(!running());
  if (access(spec_.command.front().c_str(), X_OK) != 0) {
    throw FatalError("there is no program " + spec_.command.front());
  }
  const int log_fd = open(spec_.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (log_fd < 0) {
    throw FatalError("cannot write " + spec_.log_path + ": " + std::strerror(errno));
  }
  std::vector<char*> argv;
  for (std::string& argument : spec_.command) {
    argv.push_back(argument.data());
  }
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) {
    become(argv.data(), log_fd, parent);
  }
  close(log_fd);
  if (pid_ < 0) {
    throw FatalError(std::string("cannot start a process: ") + std::strerror(errno));
  }
}

void ChildProcess::terminate() {
  if (running()) {
    ::kill(pid_, SIGTERM);
  }
}

void ChildProcess::kill() {
  if (running()) {
    ::kill(pid_, SIGKILL);
  }
}

std::optional<std::string> ChildProcess::poll_end() {
  int status = 0;
  if (!running() || waitpid(pid_, &status, WNOHANG) != pid_) {
    return std::nullopt;
  }
  pid_ = -1;
  return WIFSIGNALED(status) ? "signal " + std::to_string(WTERMSIG(status))
                             : "exit code " + std::to_string(WEXITSTATUS(status));
}

std::string last_lines(const std::string& path, std::size_t lines) {
  std::ifstream file(path);
  std::deque<std::string> last;
  for (std::string line; std::getline(file, line);) {
    last.push_back(std::move(line));
    if (last.size() > lines) {
      last.pop_front();
    }
  }
  std::string text;
  for (const std::string& line : last) {
    text += "\n  " + line;
  }
  return text;
}

}  // namespace tessera::cli
