#include "bench/peers.hpp"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <sstream>

namespace tessera::bench {
namespace {

std::string quoted(const std::string& word) {
  std::string text = "'";
  for (const char c : word) {
    if (c == '\'') text += "'\\'";  // closes, one quote, and below opens again
    text += c;
  }
  text += "'";
  return text;
}

std::filesystem::path script_path(const std::string& script) {
  const char* folder = std::getenv("TESSERA_COMPARE");
  return std::filesystem::path(folder != nullptr ? folder : "bench/compare") / script;
}

}  // namespace

Peers Peers::run(const std::string& script, const std::vector<std::string>& arguments) {
  Peers peers;
  const auto path = script_path(script);
  if (!std::filesystem::exists(path)) {
    std::printf("no peers: %s is not there; start from the source tree or set TESSERA_COMPARE\n",
                path.c_str());
    return peers;
  }
  // Looked for without loading it, which takes seconds.
  constexpr const char* kHasTorch =
      "python3 -c 'import importlib.util as u, sys; sys.exit(u.find_spec(\"torch\") is None)' "
      "2>/dev/null";
  if (std::system(kHasTorch) != 0) {
    std::printf("no peers: this machine's python3 has no torch\n");
    return peers;
  }
  std::string command = "python3 -u";
  command.append(" ").append(quoted(path.string()));
  for (const std::string& argument : arguments) command.append(" ").append(quoted(argument));
  std::fflush(stdout);
  FILE* output = popen(command.c_str(), "r");
  if (output == nullptr) {
    std::printf("no peers: a program cannot be started\n");
    return peers;
  }
  std::string line;
  for (int c = std::fgetc(output); c != EOF; c = std::fgetc(output)) {
    if (c != '\n') {
      line += static_cast<char>(c);
      continue;
    }
    peers.read_line(line);
    line.clear();
  }
  if (pclose(output) != 0) {
    std::printf("%s: %s ended with an error\n", peers.empty() ? "no peers" : "peers incomplete",
                path.c_str());
  }
  return peers;
}

void Peers::read_line(const std::string& line) {
  std::istringstream fields(line);
  std::string mark, value;
  Figure figure;
  std::getline(fields, mark, '\t');
  std::getline(fields, figure.what, '\t');
  std::getline(fields, figure.who, '\t');
  std::getline(fields, value);
  if (mark != "peer" || value.empty()) {
    std::printf("%s\n", line.c_str());
    return;
  }
  figure.value = std::atof(value.c_str());
  figures_.push_back(figure);
}

double Peers::find(const std::string& what, const std::string& who) const {
  for (const Figure& figure : figures_) {
    if (figure.what == what && figure.who == who) return figure.value;
  }
  return std::numeric_limits<double>::quiet_NaN();
}

std::string beside(double peer, double ratio) {
  if (std::isnan(peer)) return "         -       ";
  char text[40];
  std::snprintf(text, sizeof text, "%10.1f (%4.2f)", peer, ratio);
  return text;
}

}  // namespace tessera::bench
