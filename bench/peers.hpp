#pragma once

#include <string>
#include <vector>

namespace tessera::bench {

// What others' programs reach on the same inputs, on the same machine, in the same call.
class Peers {
 public:
  // Runs `python3 bench/compare/SCRIPT ARGUMENTS...` from the source tree, or with the script in
  // the folder $TESSERA_COMPARE, and blocks. Its lines "peer<TAB>what<TAB>who<TAB>value" become the
  // figures; all others are printed as they come. Where it cannot run (no python3, torch, script),
  // one line says so and there are no figures.
  static Peers run(const std::string& script, const std::vector<std::string>& arguments);

  // NaN where that peer has no figure.
  double find(const std::string& what, const std::string& who) const;
  bool empty() const { return figures_.empty(); }

 private:
  struct Figure {
    std::string what, who;
    double value = 0;
  };
  void read_line(const std::string& line);

  std::vector<Figure> figures_;
};

// A figure and how many times it `ours` is, or dashes: "    44111 (1.93)".
std::string beside(double peer, double ratio);

}  // namespace tessera::bench
