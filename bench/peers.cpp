#include "bench/peers.hpp"

#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <sstream>
#include <string_view>

namespace tessera::bench {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

std::filesystem::path script_path(const std::string& script) {
  const char* folder = std::getenv("TESSERA_COMPARE");
  return std::filesystem::path(folder != nullptr ? folder : "bench/compare") / script;
}

// The child's pid, or -1.
pid_t spawn(const std::vector<std::string>& words, int input_and_output) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input_and_output, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, input_and_output, STDOUT_FILENO);
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  pid_t pid = -1;
  const int error = posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  return error == 0 ? pid : -1;
}

// Of a line "peer<TAB>what<TAB>who<TAB>value".
std::optional<PeerFigure> figure_of(const std::string& line) {
  std::istringstream fields(line);
  std::string mark, value;
  PeerFigure figure;
  std::getline(fields, mark, '\t');
  std::getline(fields, figure.what, '\t');
  std::getline(fields, figure.who, '\t');
  std::getline(fields, value);
  if (mark != "peer" || value.empty()) return std::nullopt;
  figure.value = std::atof(value.c_str());
  return figure;
}

}  // namespace

std::unique_ptr<PeerProgram> PeerProgram::start(const std::string& script,
                                                const std::vector<std::string>& arguments) {
  const auto path = script_path(script);
  if (!std::filesystem::exists(path)) {
    std::printf("no peers: %s is not there; start from the source tree or set TESSERA_COMPARE\n",
                path.c_str());
    return nullptr;
  }
  // Looked for without loading it, which takes seconds.
  constexpr const char* kHasTorch =
      "python3 -c 'import importlib.util as u, sys; sys.exit(u.find_spec(\"torch\") is None)' "
      "2>/dev/null";
  if (std::system(kHasTorch) != 0) {
    std::printf("no peers: this machine's python3 has no torch\n");
    return nullptr;
  }
  std::vector<std::string> words = {"python3", "-u", path.string()};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::array<int, 2> sockets{-1, -1};
  socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets.data());
  std::fflush(stdout);
  const pid_t pid = spawn(words, sockets[1]);  // which -1 makes fail
  close(sockets[1]);
  if (pid < 0) {
    close(sockets[0]);
    std::printf("no peers: a program cannot be started\n");
    return nullptr;
  }
  return std::unique_ptr<PeerProgram>(new PeerProgram(pid, sockets[0]));
}

PeerProgram::~PeerProgram() {
  end_input();
  while (receive()) continue;
  close(socket_);
  wait();
}

void PeerProgram::send(const std::string& line) {
  const std::string bytes = line + "\n";
  std::string_view left = bytes;
  while (!left.empty()) {
    const ssize_t sent = ::send(socket_, left.data(), left.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return;  // it has ended, which receive will tell
    left.remove_prefix(static_cast<std::size_t>(sent));
  }
}

void PeerProgram::end_input() { shutdown(socket_, SHUT_WR); }

std::optional<std::string> PeerProgram::receive() {
  std::array<char, 4096> bytes{};
  while (true) {
    if (const auto end = received_.find('\n'); end != std::string::npos) {
      std::string line = received_.substr(0, end);
      received_.erase(0, end + 1);
      return line;
    }
    const ssize_t count = read(socket_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return std::nullopt;
    received_.append(bytes.data(), static_cast<std::size_t>(count));
  }
}

std::optional<PeerFigure> PeerProgram::next_figure() {
  while (const auto line = receive()) {
    if (auto figure = figure_of(*line)) return figure;
    std::printf("%s\n", line->c_str());
  }
  return std::nullopt;
}

double PeerProgram::take(const std::string& what, const std::string& who) {
  send(what + "\t" + who);
  while (const auto figure = next_figure()) {
    if (figure->what == what && figure->who == who) return figure->value;
  }
  if (pid_ >= 0) std::printf("peers incomplete: the program ended\n");
  wait();
  return kNone;
}

bool PeerProgram::wait() {
  if (pid_ < 0) return true;
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) continue;
  pid_ = -1;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

Peers Peers::run(const std::string& script, const std::vector<std::string>& arguments) {
  Peers peers;
  const auto program = PeerProgram::start(script, arguments);
  if (program == nullptr) return peers;
  program->end_input();
  while (auto figure = program->next_figure()) peers.figures_.push_back(*std::move(figure));
  if (!program->wait()) {
    std::printf("%s: %s ended with an error\n", peers.empty() ? "no peers" : "peers incomplete",
                script.c_str());
  }
  return peers;
}

double Peers::find(const std::string& what, const std::string& who) const {
  for (const PeerFigure& figure : figures_) {
    if (figure.what == what && figure.who == who) return figure.value;
  }
  return kNone;
}

std::string beside(double peer, double ratio) {
  if (std::isnan(peer)) return "         -       ";
  char text[40];
  std::snprintf(text, sizeof text, "%10.1f (%4.2f)", peer, ratio);
  return text;
}

}  // namespace tessera::bench
