#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tessera::bench {

// What a peer reached.
struct PeerFigure {
  std::string what, who;
  double value = 0;
};

// A running script of others' programs, whose standard input and output are ours; both by lines. It
// can take turns with us: a chip's clock follows its temperature and its neighbours, so what is
// measured minutes apart does not compare.
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

  // Sends the line "what<TAB>who" and blocks until a figure of that answers it. NaN once the
  // program has ended.
  double take(const std::string& what, const std::string& who);
  void end_input();
  // Blocks for the next line "peer<TAB>what<TAB>who<TAB>value", and prints all others as they come.
  // Nothing once the output has ended.
  std::optional<PeerFigure> next_figure();
  // Blocks until it ends. False if that was with an error.
  bool wait();

 private:
  PeerProgram(pid_t pid, int socket) : pid_(pid), socket_(socket) {}
  void send(const std::string& line);
  std::optional<std::string> receive();

  pid_t pid_;  // -1 once it has been waited for
  int socket_;
  std::string received_;  // not yet a line
};

// What others' programs reach on the same inputs, on the same machine, in the same call.
class Peers {
 public:
  // Runs a script to its end.
  static Peers run(const std::string& script, const std::vector<std::string>& arguments);

  // NaN where that peer has no figure.
  double find(const std::string& what, const std::string& who) const;
  bool empty() const { return figures_.empty(); }

 private:
  std::vector<PeerFigure> figures_;
};

// A figure and how many times it `ours` is, or dashes: "    44111 (1.93)".
std::string beside(double peer, double ratio);

}  // namespace tessera::bench
