#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tessera::bench {

// A running script of others' programs, whose standard input and output are ours; both by lines.
class PeerProgram {
 public:
  // Starts `python3 bench/compare/SCRIPT ARGUMENTS...` from the source tree, or the script in the
  // folder $TESSERA_COMPARE. Where it cannot run (no python3, torch, script), one line says so and
  // there is no program.
  static std::unique_ptr<PeerProgram> start(const std::string& script,
                                            const std::vector<std::string>& arguments);
  // Ends its input and waits for its end.
  ~PeerProgram();
  PeerProgram(const PeerProgram&) = delete;
  PeerProgram& operator=(const PeerProgram&) = delete;

  void send(const std::string& line);
  void end_input();
  // Blocks; nothing once its output has ended.
  std::optional<std::string> receive();
  // Blocks until it ends. False if that was with an error.
  bool wait();

 private:
  PeerProgram(pid_t pid, int socket) : pid_(pid), socket_(socket) {}

  pid_t pid_;
  int socket_;
  std::string received_;  // not yet a line
};

// What a peer reached.
struct PeerFigure {
  std::string what, who;
  double value = 0;
};

// What others' programs reach on the same inputs, on the same machine, in the same call.
class Peers {
 public:
  // Runs a script to its end. Its lines "peer<TAB>what<TAB>who<TAB>value" become the figures; all
  // others are printed as they come.
  static Peers run(const std::string& script, const std::vector<std::string>& arguments);

  // NaN where that peer has no figure.
  double find(const std::string& what, const std::string& who) const;
  bool empty() const { return figures_.empty(); }

 private:
  std::vector<PeerFigure> figures_;
};

// A script that takes turns with us: a chip's clock follows its temperature and its neighbours, so
// what is measured minutes apart does not compare.
class PeerTurns {
 public:
  PeerTurns(const std::string& script, const std::vector<std::string>& arguments)
      : program_(PeerProgram::start(script, arguments)) {}

  // Sends the line "what<TAB>who" and blocks until "peer<TAB>what<TAB>who<TAB>value" answers it;
  // what else the script says is printed. NaN once it has ended.
  double take(const std::string& what, const std::string& who);
  bool here() const { return program_ != nullptr; }

 private:
  std::unique_ptr<PeerProgram> program_;
};

// A figure and how many times it `ours` is, or dashes: "    44111 (1.93)".
std::string beside(double peer, double ratio);

}  // namespace tessera::bench
