#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace tessera::cli {

struct ProcessSpec {
  std::string name;                  // For people: "worker-1".
  std::vector<std::string> command;  // Program and arguments.
  std::string log_path;              // Takes stdout and stderr, appended.
};

// One child, known and ended by its process id. It has its own process group, so that Ctrl-C
// reaches only us and we end the children in order; should we die, the kernel ends it with SIGTERM.
// Not thread-safe; start from the thread that lives as long as the child shall.
class ChildProcess {
 public:
  explicit ChildProcess(ProcessSpec spec) : spec_(std::move(spec)) {}
  ~ChildProcess();  // Kills what still runs.
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  void start();  // Throws FatalError when there is no such program.
  void terminate();
  void kill();
  // How it ended ("exit code 1", "signal 9"), once after it has; nothing while it runs.
  std::optional<std::string> poll_end();
  bool running() const { return pid_ > 0; }
  pid_t pid() const { return pid_; }
  const ProcessSpec& spec() const { return spec_; }
  void replace_command(std::vector<std::string> command) { spec_.command = std::move(command); }

 private:
  ProcessSpec spec_;
  pid_t pid_ = -1;
};

// The last lines of a log, for the message about a process that would not start.
std::string last_lines(const std::string& path, std::size_t lines);

}  // namespace tessera::cli
